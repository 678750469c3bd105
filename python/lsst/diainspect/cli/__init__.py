"""The ``diainspect`` command."""

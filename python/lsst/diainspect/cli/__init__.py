"""The ``diainspect`` command: a group with one command a file."""

from ._main import main

__all__ = ["main"]

"""Turns the errors that bad input causes into a message without a traceback."""

from __future__ import annotations

__all__ = ["clear_errors"]

from collections.abc import Iterator
from contextlib import contextmanager

import click
from lsst.daf.butler import ButlerUserError


@contextmanager
def clear_errors() -> Iterator[None]:
    """Raise `click.ClickException` in place of errors that say what is wrong with the input."""
    try:
        yield
    except (ValueError, OSError, LookupError, ButlerUserError) as error:
        raise click.ClickException(str(error)) from error

"""Generated text in a page that is written by hand, between two lines that mark its place."""

from __future__ import annotations

__all__ = ["write_between"]

from pathlib import Path


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put text between two lines of a page; ValueError when it lacks them."""
    content = page.read_text()
    if begin not in content or end not in content:
        raise ValueError(f"{page} has no lines {begin} and {end} to write between.")
    head, _, rest = content.partition(begin)
    tail = rest.partition(end)[2]
    page.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}")

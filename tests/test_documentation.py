"""The pages under doc/ say what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOC = Path(__file__).parent.parent / "doc"


def test_page_of_the_dataset_types_is_up_to_date() -> None:
    written = runpy.run_path(str(DOC / "write_datasets.py"))
    assert written["PAGE"].read_text() == written["render"](), "doc/datasets.md is behind the code: make doc"


@pytest.mark.parametrize(
    "page",
    [
        "../README.md",
        "alert_validation.md",
        "configuration.md",
        "methods.md",
        "truth.md",
        "stamps.md",
        "survey.md",
        "datasets.md",
    ],
)
def test_links_between_pages_lead_somewhere(page: str) -> None:

    path = DOC / page
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target

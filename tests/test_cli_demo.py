"""What ``diainspect demo`` shows on the way, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from lsst.diainspect.cli import main
from lsst.diainspect.cli._demo import _progress

_QUANTUM = (
    "lsst.pipe.base.single_quantum_executor INFO: Execution of task '{}' on quantum {{{}}} took {} seconds\n"
)
_COUNT = (
    "lsst.pipe.base.mp_graph_executor INFO: Executed {} quanta successfully, 0 failed and {} remain "
    "out of total 3 quanta.\n"
)


def test_each_quantum_is_one_line_with_its_number() -> None:
    lines = [
        _QUANTUM.format("subtractAl", "instrument: 'DiaSim', detector: 1, visit: 2, band: 'r'", "3.14"),
        _COUNT.format(1, 2),
        _QUANTUM.format("gatherVisit", "instrument: 'DiaSim', visit: 2", "0.50"),
        _QUANTUM.format("gatherSurvey", "instrument: 'DiaSim'", "0.25"),
        _COUNT.format(3, 0),
    ]
    said = [" ".join(line.split()) for line in _progress(lines)]
    assert said == [
        "[ 1/3] subtractAl visit 2 detector 1 3.1 s",
        "[ 2/3] gatherVisit visit 2 0.5 s",
        "[ 3/3] gatherSurvey 0.2 s",
    ]


def test_warnings_and_errors_are_passed_on() -> None:
    lines = ["lsst.subtractAl ERROR: Only 0.00% are good.\n", "anything else\n"]
    assert list(_progress(lines)) == ["lsst.subtractAl ERROR: Only 0.00% are good.", "anything else"]


def test_demo_refuses_a_repository_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "butler.yaml").touch()
    result = CliRunner().invoke(main, ["demo", str(tmp_path)])
    assert result.exit_code == 1
    assert "is a repository already" in result.output

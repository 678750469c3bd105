"""Command line: simulate detectors, train the stored model, validate it and write the page's figures."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import click
import numpy as np

import lsst.diainspect

from ._detector_files import detector_path, read_detectors, write_detector
from ._psf_families import TRAINING_FAMILIES, VALIDATION_FAMILIES
from ._surveys import SCENARIOS, TARGET_NUMBERS

_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))

_MODEL = Path(lsst.diainspect.__file__).parent / "classification" / "cause_model.npz"

_PAGE = Path(__file__).parents[2] / "doc" / "classification.md"

TRAINING_SEED, VALIDATION_SEED = 1, 4


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train and validate the classification of sources.

    `simulate` makes detectors in FOLDER, and goes on where it was stopped; `train` writes the model into the package;
    `validate` measures it on detectors with other seeds and other PSFs.
    """


@main.command()
@_FOLDER
@click.option("--training", default=320, show_default=True, help="Detectors to train on.")
@click.option(
    "--validation", default=32, show_default=True, help="Detectors to validate on, with other PSFs."
)
@click.option(
    "--targets",
    default=1.0,
    show_default=True,
    help="More to validate on, each for one claim: part of those planned.",
)
@click.option("-j", "--jobs", default=1, show_default=True, help="Processes.")
def simulate(folder: Path, training: int, validation: int, targets: float, jobs: int) -> None:
    """Simulate, subtract, detect and measure detectors."""
    # Each scenario with one family, then with the other.
    plans = [
        (number, TRAINING_SEED, TRAINING_FAMILIES[number // len(SCENARIOS) % 2]) for number in range(training)
    ]
    numbers = list(range(validation))
    for first, planned in TARGET_NUMBERS:
        numbers += range(first, first + round(targets * planned))
    plans += [(number, VALIDATION_SEED, VALIDATION_FAMILIES[number % 2]) for number in numbers]
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder, *plan) for plan in plans if not detector_path(folder, *plan).exists()]
    # Interleaved, so that a run that is stopped has some of each.
    parts = {
        (seed, number): count / size
        for seed, group in ((TRAINING_SEED, range(training)), (VALIDATION_SEED, range(validation)))
        for size in [max(len(group), 1)]
        for count, number in enumerate(group)
    }
    for first, planned in TARGET_NUMBERS:
        parts |= {(VALIDATION_SEED, first + count): count / planned for count in range(planned)}
    tasks.sort(key=lambda task: parts[task[2], task[1]])
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for done, path in enumerate(pool.imap_unordered(write_detector, tasks), start=1):
            click.echo(f"{done} of {len(tasks)}: {path.name}")


@main.command()
@_FOLDER
@click.option(
    "--out", type=click.Path(path_type=Path), default=_MODEL, show_default=True, help="File to write."
)
def train(folder: Path, out: Path) -> None:
    """Train the model on the detectors in FOLDER that are for it."""
    from ._train import train as train_model

    model = train_model(read_detectors(folder, TRAINING_SEED), TRAINING_SEED)
    model.write(out)
    click.echo(f"{out}: {model.provenance}")


@main.command()
@_FOLDER
@click.option("--model", type=click.Path(path_type=Path), default=_MODEL, show_default=True, help="Model.")
@click.option(
    "--page", type=click.Path(path_type=Path), default=_PAGE, show_default=True, help="Page to update."
)
def validate(folder: Path, model: Path, page: Path) -> None:
    """Measure the model on the detectors in FOLDER with other PSFs, and write figures and table of the page."""
    from lsst.diainspect.classification import CauseModel

    from ._page import write_figures, write_table
    from ._validate import validate as validate_model

    table = read_detectors(folder, VALIDATION_SEED)
    is_alert = np.asarray(table["isAlert"], dtype=bool)
    trained = CauseModel.read(model)
    results = {
        "with filters and maps": validate_model(table[~is_alert], trained),
        "as alerts": validate_model(table[is_alert], trained),
    }
    detectors = len({(str(row["family"]), int(row["detectorNumber"])) for row in table})
    sentence = (
        f"Trained on {trained.provenance['nSources'] // 2} sources of {trained.provenance['nDetectors']} detectors "
        f"with Kolmogorov PSFs and two Gaussians (seed {trained.provenance['seed']}), each measured twice; validated "
        f"on {np.count_nonzero(~is_alert)} sources of {detectors} detectors with Moffat PSFs and optical ones (seed "
        f"{VALIDATION_SEED}). Intervals are Wilson's, 95 %."
    )
    write_figures(page.parent / "classification", results)
    write_table(page, results, sentence)
    for rows in zip(*(result.rows for result in results.values()), strict=True):
        click.echo(f"{rows[0][0]}: " + "; ".join(f"{row[1]} of {row[2]}" for row in rows))


if __name__ == "__main__":
    main()

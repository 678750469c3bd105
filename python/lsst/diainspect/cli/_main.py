"""The command group: what is common to all commands is set up here."""

from __future__ import annotations

__all__ = ["main"]

import logging

import click
from lsst.utils.threads import disable_implicit_threading

from ._compare import compare_command
from ._demo import demo_command
from ._ingest_alerts import ingest_alerts_command
from ._ingest_pair import ingest_pair_command
from ._ingest_pairs import ingest_pairs_command
from ._ingest_sources import ingest_sources_command
from ._ingest_template import ingest_template_command
from ._ingest_truth import ingest_truth_command
from ._plot import plot_command
from ._simulate import simulate_command
from ._stamps import stamps_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is done.")
def main(verbose: bool) -> None:
    """Bring images into a butler repository for the inspection of their differences."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("lsst.diainspect").setLevel(logging.INFO if verbose else logging.WARNING)
    # Without afw the butler warns about each storage class that it cannot convert to; none is needed.
    logging.getLogger("lsst.daf.butler._storage_class").setLevel(logging.ERROR)
    # As pipetask does: for the small matrices of sources, the threads of linear algebra wait for each other at many
    # times the cost of the work.
    disable_implicit_threading()


main.add_command(demo_command)
main.add_command(simulate_command)
main.add_command(plot_command)
main.add_command(stamps_command)
main.add_command(ingest_pair_command)
main.add_command(ingest_pairs_command)
main.add_command(ingest_template_command)
main.add_command(ingest_alerts_command)
main.add_command(ingest_sources_command)
main.add_command(ingest_truth_command)
main.add_command(compare_command)

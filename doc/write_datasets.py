"""Write doc/datasets.md: every dataset type and column, from the pipeline and from tables that the tasks make.

Run it after a column, a unit or a description has changed: ``make doc``. A test fails while the page is behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from astropy.table import Table
from lsst.pipe.base import Pipeline, PipelineGraph

from lsst.diainspect.comparison import summarise_methods, summarise_sources
from lsst.diainspect.masks import MASK_BITS, MASK_PLANES
from lsst.diainspect.simulation import SceneConfig, artefact_table, simulate_pair
from lsst.diainspect.stamps import MODELS, PLANES
from lsst.diainspect.tasks import (
    CalibrateDifferenceTask,
    ClassifySourcesTask,
    CompareSubtractionsTask,
    CutStampsTask,
    DetectDiaSourcesTask,
    DiagnoseSourcesTask,
    MatchTruthTask,
    MeasureDetectorMapsTask,
    MeasureDifferenceMetricsTask,
    SubtractImagesTask,
    SummarizeTruthTask,
)
from lsst.diainspect.truth import standard_truth

_METHOD = re.compile(r"\b(al|zogy)_")
_DETECTOR = ("instrument", "visit", "detector")

_STEPS = (
    "subtract",
    "detect",
    "cutStamps",
    "maps",
    "diagnose",
    "classify",
    "metrics",
    "calibrate",
    "matchTruth",
    "compare",
    "force",
    "plot",
    "gatherVisit",
    "gatherSurvey",
    "gatherTruth",
    "gatherStars",
    "summarizeMethods",
    "summarizeTruth",
)

_WHERE_MADE = {
    "{method}_difference_kernel": "Not by zogy.",
    "{method}_template_matched": "With doWriteTemplateMatched; not by zogy.",
}

PAGE = Path(__file__).with_name("datasets.md")

_INTRODUCTION = """\
# Dataset types and columns

Written from the code by `make doc`; do not edit.

`{method}` is the name of a subtraction method: `al`, `zogy`, or that of another package. Dimensions D are instrument,
visit, detector. Fluxes are in nJy, variances in nJy2. Positions are pixels in the image's own frame, in which the
centre of the lower-left pixel has the image box's own integer coordinates; on the sky they are ICRS degrees. What was
not measured is NaN, and a flag says why. The tables that end in `_visit` and `_summary` have the columns of those
that they gather.
"""

# Columns whose tables do not say themselves what they mean.
_DOCS = {
    "visit": "Visit.",
    "detector": "Detector.",
    "band": "Band of the visit.",
    "x": "Position; in the science image where the fit succeeded.",
    "y": "Position; in the science image where the fit succeeded.",
    "scienceFlux": "PSF flux in the science image.",
    "scienceFluxErr": "Error of scienceFlux.",
    "scienceWidth": "Relative excess of the width over the PSF's in the science image.",
    "templateFlux": "PSF flux in the template.",
    "templateFluxErr": "Error of templateFlux.",
    "templateWidth": "Relative excess of the width over the PSF's in the template.",
    "offsetX": "Science minus template position.",
    "offsetY": "Science minus template position.",
    "offsetErr": "Error of offsetX and of offsetY.",
    "isStar": "The width is the PSF's in both images.",
    "used": "The images were matched on it.",
    "rejected": "Why not; empty for those used.",
    "residualBefore": "Reduced chi-square of the unmatched difference around it (al).",
    "residualFlux": "Flux left in the difference at the source.",
    "residualFluxErr": "Error of residualFlux.",
    "residualAfter": "Reduced chi-square of the matched difference around it (al).",
}


def render() -> str:
    """Return the page."""
    tables = _make_tables()
    graph = Pipeline.from_uri("resource://lsst.diainspect/pipelines/DiaSim/inspect.yaml").to_graph()
    parts = [_INTRODUCTION, "## Dataset types\n", _dataset_types(graph)]
    for title, text, table in tables:
        parts += [f"## {title}\n", f"{text}\n", _columns(table)]
        if "statistic" in table.colnames:
            parts += ["### Statistics\n", _statistic_rows(table)]
        if "metric" in table.colnames and len(table):
            parts += ["### Metrics\n", _metric_rows(table)]
    parts += ["## Mask bits of the stamps\n", _mask_bits()]
    return "\n".join(parts)


def _make_tables() -> list[tuple[str, str, Table]]:
    """Run the tasks on a small simulated pair and return one table of each kind."""
    scene = SceneConfig(star_density=60.0, star_magnitudes=(16.5, 23.0), n_transients=6)
    pair = simulate_pair(scene=scene, seed=3, size=300)
    subtracted = SubtractImagesTask(config=SubtractImagesTask.ConfigClass()).run(pair.science, pair.template)
    sources = (
        DetectDiaSourcesTask(config=DetectDiaSourcesTask.ConfigClass())
        .run(subtracted.difference, subtracted.score)
        .diaSources
    )
    cut = CutStampsTask(config=CutStampsTask.ConfigClass())
    stamps = cut.run(sources, subtracted.filters, subtracted.difference, pair.science, pair.template).stamps
    diagnose = DiagnoseSourcesTask(config=DiagnoseSourcesTask.ConfigClass())
    diagnostics = diagnose.run(stamps, subtracted.filters).diagnostics
    classification = (
        ClassifySourcesTask(config=ClassifySourcesTask.ConfigClass()).run(diagnostics, sources).classification
    )
    measured = MeasureDifferenceMetricsTask(config=MeasureDifferenceMetricsTask.ConfigClass()).run(
        pair.science,
        pair.template,
        subtracted.difference,
        subtracted.score.image,
        sources,
        subtracted.filters,
        subtracted.kernelSources,
    )
    images = (pair.science, pair.template, subtracted.difference, subtracted.filters)
    mapped = MeasureDetectorMapsTask(config=MeasureDetectorMapsTask.ConfigClass()).run(
        *images, subtracted.kernelSources, subtracted.kernel
    )
    calibration = (
        CalibrateDifferenceTask(config=CalibrateDifferenceTask.ConfigClass(nBlank=50, nOnSources=50))
        .run(*images, sources, mapped.stars)
        .calibration
    )
    comparison = (
        CompareSubtractionsTask(config=CompareSubtractionsTask.ConfigClass())
        .run({"al": sources, "zogy": sources}, {"al": diagnostics, "zogy": diagnostics})
        .comparison
    )
    own = comparison[[name for name in comparison.colnames if not _METHOD.match(name)]]
    own["{method}_found"] = comparison["al_found"]
    own["{method}_found"].description = "Found by the method."
    matched = MatchTruthTask(config=MatchTruthTask.ConfigClass()).run(
        sources,
        standard_truth(pair.truth),
        subtracted.difference.mask,
        subtracted.difference.sky_projection,
        method="al",
    )
    summarise = SummarizeTruthTask(config=SummarizeTruthTask.ConfigClass(nResamples=10))
    summarised = summarise.run(*({"al": table, "zogy": table} for table in (matched.matches, matched.counts)))
    copied = {name for name in sources.colnames if sources[name].dtype.kind == "b"} | {"psfChi2", "psfNdata"}
    matches = matched.matches[
        [name for name in matched.matches.colnames if name not in copied or name == "isNegative"]
    ]
    added = [name for name in stamps.colnames if name not in sources.colnames]
    return [
        ("`{method}_dia_source`", "One row a detection, with the column names of the DPDD.", sources),
        (
            "`{method}_dia_stamps`",
            "One row a source: the columns of `{method}_dia_source` and those below. Which planes and models there "
            "are is set by `cutStamps*:planes` and `:models`. `lsst.diainspect.stamps.StampSet.from_tables(stamps, "
            f"filters)` puts stamps and filters together. Planes: {_names(PLANES)}. Models: {_names(MODELS)}.",
            stamps[added],
        ),
        (
            "`{method}_difference_filters`",
            "PSFs and filters over the detector, one row a term of a spatial polynomial. The products of "
            "Chebyshev polynomials T_p(x) T_q(y), p + q <= order, over the box are the weights of the images.",
            subtracted.filters,
        ),
        (
            "`{method}_dia_diagnostics`",
            "One row a source, in the order of `{method}_dia_source`. Each diagnostic's columns carry its name.",
            diagnostics,
        ),
        (
            "`{method}_dia_classification`",
            "One row a source, in the order of `{method}_dia_diagnostics`; [classification.md](classification.md) says "
            "how the scores are made.",
            classification,
        ),
        (
            "`{method}_kernel_sources`",
            "One row a candidate source of the match of the two images.",
            subtracted.kernelSources,
        ),
        (
            "`{method}_kernel_quality`",
            "One row a position of a grid, for methods that fit a kernel of their own (al); what holds for the "
            "detector is repeated in every row. [methods.md](methods.md) explains.",
            subtracted.kernelQuality,
        ),
        (
            "`{method}_detector_maps`",
            "One row a quantity and term of its polynomial; [residual_modes.md](residual_modes.md) lists them.",
            mapped.maps,
        ),
        (
            "`{method}_static_stars`",
            "One row a static star, with the columns of its diagnostics as in `{method}_dia_diagnostics`.",
            mapped.stars[[name for name in mapped.stars.colnames if name not in diagnostics.colnames]],
        ),
        ("`{method}_difference_metrics`", "One row a metric of one detector.", measured.metrics),
        (
            "`{method}_image_statistics`",
            "One row a statistic and bin, or cell of a grid; [metrics.md](metrics.md) says how they are measured.",
            measured.statistics,
        ),
        ("`{method}_image_stacks`", "One row a small image of one detector.", measured.stacks),
        ("`{method}_star_residuals`", "One row a static star.", measured.stars),
        (
            "`method_metrics_visit`, `method_metrics_summary`",
            "One row a method, or pair of methods, metric and bin.",
            summarise_methods({}, {}, []),
        ),
        (
            "`method_sources_visit`, `method_sources_summary`",
            "One row a method, kind and class.",
            summarise_sources(Table(), []),
        ),
        ("`{method}_calibration`", "One row a statistic and bin of one detector.", calibration),
        (
            "`subtraction_comparison`",
            "One row a source that any method found. Every column of `{method}_dia_source` and "
            "`{method}_dia_diagnostics` follows with `{method}_` in front; it is NaN, 0 or False where the method "
            "did not find the source.",
            own,
        ),
        (
            "`{method}_truth_match`",
            "One row an object that changed, with its source if it has one, then one row a source without an object. "
            "The flags of sources and diagnostics, and what `matchTruth*:copiedColumns` names, follow.",
            matches,
        ),
        ("`{method}_truth_counts`", "One row a detector image.", matched.counts),
        (
            "`truth_summary`",
            "One row a method, statistic, bin and cut; [truth.md](truth.md) says how to read it.",
            summarised.summary,
        ),
        ("`truth_curves`", "One row a method, score and threshold.", summarised.curves),
        ("`dia_truth`", "Simulated data only: one row an object of the sky.", pair.truth),
        (
            "`dia_truth_artefact`",
            "Simulated data only: one row an artefact of the camera or the coadd.",
            artefact_table([]),
        ),
    ]


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _order(label: str) -> tuple[int, str]:
    """Sort tasks in the order of the data flow, whatever the order of the graph."""
    return next(index for index, step in enumerate(_STEPS) if label.startswith(step)), label


def _dataset_types(graph: PipelineGraph) -> str:
    rows = {
        "visit_image": ("VisitImage", "D", "input", "Science image."),
        "template_detector": ("DifferenceImage", "D", "input", "Template on the science image's pixel grid."),
        "dia_truth": ("ArrowAstropy", "D", "simulation", "What is on the simulated sky."),
        "dia_truth_artefact": (
            "ArrowAstropy",
            "D",
            "simulation",
            "What camera and coadd have put into the simulated images.",
        ),
    }
    for label in sorted(graph.tasks, key=_order):
        node = graph.tasks[label]
        config = node.config
        if label == "subtractAl":
            config = SubtractImagesTask.ConfigClass()
            config.doWriteTemplateMatched = True
        connections = config.ConnectionsClass(config=config)
        for output in sorted(connections.outputs):
            connection = getattr(connections, output)
            name = _METHOD.sub("{method}_", connection.name)
            dimensions = ", ".join(sorted(connection.dimensions, key=_DETECTOR.index))
            made_by = label.removesuffix("Al").removesuffix("Zogy")
            doc = _METHOD.sub("{method}_", connection.doc)
            if name in _WHERE_MADE:
                doc += f" {_WHERE_MADE[name]}"
            rows.setdefault(
                name,
                (
                    connection.storageClass,
                    "D" if dimensions == ", ".join(_DETECTOR) else dimensions,
                    made_by,
                    doc,
                ),
            )
    return _markdown(
        ("Name", "Storage class", "Dimensions", "Made by", "What"),
        [(f"`{name}`", *row) for name, row in rows.items()],
    )


def _columns(table: Table) -> str:
    rows = []
    for name in table.colnames:
        column = table[name]
        doc = column.description or _DOCS.get(name)
        if doc is None:
            raise ValueError(f"Column {name} has no description.")
        kind = column.dtype.name if column.dtype.kind not in "US" else "string"
        shape = " x ".join(str(size) for size in column.shape[1:])
        rows.append((f"`{name}`", f"{kind} {shape}".strip(), str(column.unit or ""), doc))
    return _markdown(("Column", "Type", "Unit", "Meaning"), rows)


def _metric_rows(table: Table) -> str:
    rows = [(f"`{row['metric']}`", str(row["unit"]), str(row["description"])) for row in table]
    return _markdown(("Metric", "Unit", "Meaning"), rows)


def _statistic_rows(table: Table) -> str:
    rows = {str(row["statistic"]): (str(row["unit"]), str(row["description"])) for row in table}
    # Limits of completeness are in the unit of what they are limits of.
    rows |= {name: ("that of variable", rows[name][1]) for name in rows if name.startswith("thresholdAt")}
    return _markdown(("Statistic", "Unit", "Meaning"), [(f"`{name}`", *row) for name, row in rows.items()])


def _mask_bits() -> str:
    docs = {plane.name: plane.description for plane in MASK_PLANES}
    rows = [(str(bit), f"`{name}`", docs[name]) for name, bit in MASK_BITS.items()]
    return _markdown(("Bit", "Plane", "Meaning"), rows)


def _markdown(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())

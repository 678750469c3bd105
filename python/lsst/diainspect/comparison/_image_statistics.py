"""Statistics of one difference image as tables: numbers by bin and cell, and small images."""

from __future__ import annotations

__all__ = [
    "IMAGE_STACK_COLUMNS",
    "IMAGE_STATISTICS_COLUMNS",
    "cell_maps_from_table",
    "image_stacks_table",
    "image_statistics_table",
    "sky_noise_from_tables",
]

from collections.abc import Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from lsst.images import Box, SkyProjection

from ..psf import centre_crop
from ._cell_maps import CELL_STATISTICS, CellMap
from ._difference_psf import DifferencePsf
from ._image_metrics import THRESHOLDS
from ._metric import MetricInput
from ._score_noise import median_with_error, robust_sigma, tail_ratio
from ._sky_noise import FREQUENCY_STEP, HISTOGRAM_EDGES, SkyNoise
from ._star_residuals import ROLES, StarStack

IMAGE_STATISTICS_COLUMNS: dict[str, tuple[str, u.UnitBase | None, str]] = {
    "statistic": ("U32", None, "What is measured."),
    "group": ("U8", None, "Role of the stars in the match, fit, heldOut or rejected; else empty."),
    "variable": ("U16", None, "Quantity that is binned: sigma, frequency, magnitude or cell."),
    "low": ("float64", None, "Lower edge of the bin, in the unit of the variable; NaN for a cell."),
    "high": ("float64", None, "Upper edge of the bin; NaN for a cell."),
    "cellX": ("int16", None, "Column of the cell; -1 for the whole image."),
    "cellY": ("int16", None, "Row of the cell; -1 for the whole image."),
    "x": ("float64", u.pix, "Middle of the cell or image."),
    "y": ("float64", u.pix, "Middle of the cell or image."),
    "ra": ("float64", u.deg, "Middle of the cell or image (ICRS)."),
    "dec": ("float64", u.deg, "Middle of the cell or image (ICRS)."),
    "value": ("float64", None, "Value, in unit."),
    "error": ("float64", None, "Standard error of the value; NaN where it is not known."),
    "n": ("int64", None, "Pixels, stars or sources that it rests on."),
    "unit": ("U16", None, "Unit of value and error."),
    "description": ("U160", None, "Meaning."),
}
"""Type, unit and meaning of the columns of ``{method}_image_statistics``."""

IMAGE_STACK_COLUMNS: dict[str, tuple[str, u.UnitBase | None, str]] = {
    "kind": ("U20", None, "autocorrelation, starResidual, differencePsf or modelPsf."),
    "group": ("U8", None, "Role of the stars in the match, fit or heldOut; else empty."),
    "low": ("float64", u.mag, "Lower edge of the bin of the stars' magnitudes; else NaN."),
    "high": ("float64", u.mag, "Upper edge of the bin; else NaN."),
    "n": ("int64", None, "Pixels, stars or sources that the image rests on."),
    "image": ("float32", None, "Image [y, x]: correlation by lag, or part of the flux in each pixel."),
    "error": ("float32", None, "Standard error of each pixel; NaN where it is not known."),
    "unit": ("U16", None, "Unit of image and error."),
}
"""Type, unit and meaning of the columns of ``{method}_image_stacks``."""


def image_statistics_table(
    data: MetricInput,
    maps: Sequence[CellMap],
    box: Box,
    projection: SkyProjection | None,
    magnitude_edges: Sequence[float],
) -> Table:
    """Make the table of the statistics of an image.

    Parameters
    ----------
    data : `MetricInput`
        Images, sources and stars.
    maps : sequence [`CellMap`]
        Maps over the detector.
    box : `lsst.images.Box`
        Box of the images.
    projection : `lsst.images.SkyProjection` or `None`
        Pixels to sky; without one ra and dec are NaN.
    magnitude_edges : sequence [`float`]
        Edges of the bins of the stars' magnitudes [mag].

    Returns
    -------
    table : `astropy.table.Table`
        One row a statistic and bin or cell, with the columns of `IMAGE_STATISTICS_COLUMNS`.
    """
    rows: list[dict[str, Any]] = []
    _add_noise(rows, data)
    if data.stars is not None:
        _add_stars(rows, data.stars, magnitude_edges)
    for one in maps:
        unit, doc = CELL_STATISTICS[one.statistic]
        shared = {"statistic": one.statistic, "variable": "cell", "unit": unit, "description": doc}
        for (j, i), value in np.ndenumerate(one.value):
            rows.append(
                {**shared, "cellX": i, "cellY": j, "value": value, "error": one.error[j, i], "n": one.n[j, i]}
            )
    table = _table(IMAGE_STATISTICS_COLUMNS, rows)
    n_cells = len(maps[0].value) if maps else 1
    for axis, interval in (("x", box.x), ("y", box.y)):
        index = np.asarray(table[f"cell{axis.upper()}"])
        part = np.where(index < 0, 0.5, (index + 0.5) / n_cells)
        table[axis][:] = interval.start - 0.5 + part * interval.size
    if projection is not None and len(table):
        sky = projection.pixel_to_sky(x=np.asarray(table["x"]), y=np.asarray(table["y"]))
        table["ra"][:], table["dec"][:] = sky.icrs.ra.deg, sky.icrs.dec.deg
    return table


def image_stacks_table(
    noise: SkyNoise, stars: Sequence[StarStack], psf: DifferencePsf | None, size: int
) -> Table:
    """Make the table of the small images of a difference.

    Parameters
    ----------
    noise : `SkyNoise`
        Noise of the sky, for its autocorrelation.
    stars : sequence [`StarStack`]
        Mean residuals of stars, of the size.
    psf : `DifferencePsf` or `None`
        Stack of point sources, of the size.
    size : `int`
        Side of the images, odd [pixel].

    Returns
    -------
    table : `astropy.table.Table`
        One row an image, with the columns of `IMAGE_STACK_COLUMNS`; ``image`` and ``error`` are (N, size, size).
    """
    correlation = centre_crop(noise.correlation, size)
    unknown = np.full((size, size), np.nan)
    rows: list[dict[str, Any]] = [
        {
            "kind": "autocorrelation",
            "n": noise.n_pixels,
            "image": correlation,
            "error": np.full((size, size), noise.correlation_error),
        }
    ]
    rows += [
        {
            "kind": "starResidual",
            "group": one.role,
            "low": one.low,
            "high": one.high,
            "n": one.n,
            "image": one.image,
            "error": one.error,
            "unit": "1 / pix2",
        }
        for one in stars
    ]
    if psf is not None and psf.n:
        shared = {"n": psf.n, "unit": "1 / pix2"}
        rows.append({"kind": "differencePsf", "image": psf.image, "error": psf.error, **shared})
        rows.append({"kind": "modelPsf", "image": psf.model, "error": unknown, **shared})
    return _table(IMAGE_STACK_COLUMNS, rows)


def sky_noise_from_tables(statistics: Table, stacks: Table) -> SkyNoise:
    """Read the noise of the sky back from the tables of one image.

    Parameters
    ----------
    statistics, stacks : `astropy.table.Table`
        What `image_statistics_table` and `image_stacks_table` made; the autocorrelation has the size of the stacks.
    """
    names = np.asarray(statistics["statistic"]).astype(str)
    whole = np.asarray(statistics["cellX"]) < 0

    def of(name: str) -> Table:
        return statistics[(names == name) & whole]

    def scalar(name: str) -> float:
        found = of(name)
        return float(found["value"][0]) if len(found) else np.nan

    counts = []
    for name in ("differenceHistogram", "scoreHistogram"):
        found = of(name)
        filled = np.zeros(len(HISTOGRAM_EDGES) - 1, dtype=np.int64)
        # Empty bins have no row.
        filled[np.searchsorted(HISTOGRAM_EDGES, np.asarray(found["low"]) + 1e-6) - 1] = found["n"]
        counts.append(filled)
    power = of("power")
    images = stacks[np.asarray(stacks["kind"]).astype(str) == "autocorrelation"]
    return SkyNoise(
        n_pixels=int(counts[0].sum()),
        difference_counts=counts[0],
        score_counts=counts[1],
        difference_sigma=scalar("skySigmaOverPredicted"),
        score_sigma=scalar("scoreSigma"),
        frequency=0.5 * (np.asarray(power["low"]) + np.asarray(power["high"])),
        power=np.asarray(power["value"]),
        power_error=np.asarray(power["error"]),
        correlation=np.asarray(images["image"][0], dtype=float),
        correlation_error=float(images["error"][0].flat[0]),
    )


def cell_maps_from_table(statistics: Table) -> dict[str, CellMap]:
    """Read the maps back from the table of one image, by statistic."""
    cells = statistics[np.asarray(statistics["cellX"]) >= 0]
    names = np.asarray(cells["statistic"]).astype(str)
    maps = {}
    for name in dict.fromkeys(names):
        own = cells[names == name]
        index = np.asarray(own["cellY"]), np.asarray(own["cellX"])
        shape = (int(index[0].max()) + 1, int(index[1].max()) + 1)
        arrays = {"value": np.full(shape, np.nan), "error": np.full(shape, np.nan)}
        n = np.zeros(shape, dtype=np.int64)
        for column, array in arrays.items():
            array[index] = own[column]
        n[index] = own["n"]
        maps[str(name)] = CellMap(str(name), arrays["value"], arrays["error"], n)
    return maps


def _add_noise(rows: list[dict[str, Any]], data: MetricInput) -> None:
    noise, score = data.sky_noise, data.score_noise
    pull = data.pull[np.isfinite(data.pull)]
    n = len(pull)
    of_pull = "difference / sqrt(variance) in blank sky"
    of_score = "the score in blank sky"
    sigma = robust_sigma(pull, max(n, 1))
    background = median_with_error(data.difference[np.isfinite(data.pull)], max(n, 1))
    for name, (value, error), number, unit, doc in (
        ("skySigmaOverPredicted", sigma, n, "", f"Robust sigma of {of_pull}."),
        ("skyBackground", background, n, "nJy", "Median of the difference in blank sky."),
        ("scoreMedian", (score.median, score.median_error), score.n_pixels, "", f"Median of {of_score}."),
        ("scoreSigma", (score.sigma, score.sigma_error), score.n_pixels, "", f"Robust sigma of {of_score}."),
    ):
        rows.append(
            {
                "statistic": name,
                "value": value,
                "error": error,
                "n": number,
                "unit": unit,
                "description": doc,
            }
        )
    scores = data.sky_score[np.isfinite(data.sky_score)]
    for name, values, area, counts, what in (
        ("difference", pull, 1.0, noise.difference_counts, of_pull),
        ("score", scores, score.area, noise.score_counts, of_score),
    ):
        for threshold in THRESHOLDS:
            value, error = tail_ratio(values, threshold, area)
            rows.append(
                {
                    "statistic": f"{name}Tail",
                    "variable": "sigma",
                    "low": threshold,
                    "high": np.inf,
                    "value": value,
                    "error": error,
                    "n": len(values),
                    "description": f"Pixels of {what} beyond the bin's edge in robust sigma over the Gaussian's.",
                }
            )
        rows += [
            {
                "statistic": f"{name}Histogram",
                "variable": "sigma",
                "low": HISTOGRAM_EDGES[index],
                "high": HISTOGRAM_EDGES[index + 1],
                "value": counts[index] / counts.sum(),
                "error": np.sqrt(counts[index]) / counts.sum(),
                "n": counts[index],
                "description": f"Part of the pixels of {what} in the bin; the outermost hold what lies beyond.",
            }
            for index in np.flatnonzero(counts)
        ]
    rows += [
        {
            "statistic": "power",
            "variable": "frequency",
            "low": frequency - 0.5 * width,
            "high": frequency + 0.5 * width,
            "value": power,
            "error": error,
            "n": n,
            "description": f"Power of {of_pull} about a spatial frequency [cycles / pixel].",
        }
        for frequency, power, error, width in zip(
            noise.frequency,
            noise.power,
            noise.power_error,
            np.full(len(noise.frequency), FREQUENCY_STEP),
            strict=True,
        )
    ]


def _add_stars(rows: list[dict[str, Any]], stars: Table, edges: Sequence[float]) -> None:
    magnitude = np.asarray(stars["magnitude"], dtype=float)
    group = np.asarray(stars["role"]).astype(str)
    for role in ROLES:
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            here = (group == role) & (magnitude >= low) & (magnitude < high)
            n = int(here.sum())
            if n == 0:
                continue
            for name, column, doc in (
                ("starRms", "rms", "Median over static stars of the rms of difference / sqrt(variance)."),
                ("starResidual", "residual", "Median over static stars of the flux left, over the flux."),
            ):
                values = np.asarray(stars[column], dtype=float)[here]
                value, error = median_with_error(values, n) if n > 1 else (float(values[0]), np.nan)
                rows.append(
                    {
                        "statistic": name,
                        "group": role,
                        "variable": "magnitude",
                        "low": low,
                        "high": high,
                        "value": value,
                        "error": error,
                        "n": n,
                        "description": doc,
                    }
                )


_MISSING: dict[str, Any] = {"cellX": -1, "cellY": -1, "n": 0}


def _table(columns: dict[str, tuple[str, u.UnitBase | None, str]], rows: list[dict[str, Any]]) -> Table:
    """Make a table of rows; what a row does not say is NaN, or empty."""
    table = Table()
    for name, (dtype, unit, doc) in columns.items():
        missing = _MISSING.get(name, "" if dtype.startswith("U") else np.nan)
        values = np.array([row.get(name, missing) for row in rows], dtype=dtype)
        table[name] = Column(values, unit=unit, description=doc)
    return table

"""Write doc/alert_validation.md and its figures: our measurements of real alerts against what the surveys recorded.

    python doc/validate_alerts.py [DATA] [--out DOC]

DATA is the folder with rubin_v9_hsc_lsstcam2025, rubin_v7_4_sim_dc2field and ztf_2018_skyportal; the environment
variable DIAINSPECT_TESTDATA_DIR, or ../shared/data beside the repository, when omitted. It takes a minute.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table, vstack
from matplotlib.figure import Figure

from lsst.diainspect.alerts import estimate_planes, read_alerts
from lsst.diainspect.diagnostics import diagnostic_registry, measure_diagnostics
from lsst.diainspect.stamps import StampSet
from lsst.diainspect.validation import (
    PsfFit,
    Separation,
    compare_differences,
    compare_dipoles,
    compare_psf_fluxes,
    diagnostic_features,
    factor_by_visit,
    flux_ratio_by_visit,
    objects_on_sky,
    plot_differences,
    plot_dipoles,
    plot_psf_fluxes,
    plot_separation,
    separate_by_classifier,
    separate_by_column,
)

DOC = Path(__file__).parent
DATA = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR") or Path(__file__).parents[2] / "shared" / "data")

RUBIN_SIZE = 41
"""Side of the PSF images, on whose pixels the recorded fluxes were fitted."""

ZTF_SIZE = 63
"""Side of ZTF's cutouts."""

FIRST_LSSTCAM_VISIT = 10**12
"""Visits of HSC have five digits, those of LSSTCam begin with the date."""

MAX_UNRESOLVED = 1.5
"""Dipoles with longer recorded separations are two sources side by side [arcsec]."""

FITS = {
    "equal weights, all pixels, recorded position": PsfFit(),
    "the same within 12 pixels": PsfFit(radius=12.0),
    "the same within 8 pixels": PsfFit(radius=8.0),
    "equal weights, all pixels, recentred": PsfFit(recentred=True),
    "variance weights, all pixels": PsfFit("variance"),
    "variance weights within 12 pixels (ours)": PsfFit("variance", 12.0),
}
"""Ways to fit a flux; the last is what psfPhotometry does by default."""

SUBTRACTIONS = {"al": "template", "zogy": "auto"}
"""Methods and what AL convolves: the PSF of the recorded differences is that of the science image."""

N_SPLITS = 10
"""Cross-validations of ZTF's alerts with other folds, the first of which is shown."""

SCALED = "al, flux ratio of the visit"
"""Name of AL with the template scaled as the recorded differences of the visit tell."""


@dataclass(frozen=True)
class ZtfResult:
    """A separation of ZTF alerts.

    Parameters
    ----------
    separation : `Separation`
        Result of the first split.
    positive : `numpy.ndarray`, (N,), bool
        Class of each source.
    areas : `numpy.ndarray`, (N_SPLITS,)
        ROC areas of all splits.
    """

    separation: Separation
    positive: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Results:
    """Everything that the page and the figures are made of.

    Parameters
    ----------
    fluxes : mapping [`str`, mapping [`str`, `astropy.table.Table`]]
        Flux comparisons by the name of the data and of the fit.
    dipoles : `astropy.table.Table`
        Dipole comparison.
    differences : mapping [`str`, mapping [`str`, `astropy.table.Table`]]
        Comparisons of differences by the name of the data and the method.
    separations : mapping [`str`, `ZtfResult`]
        Separations of ZTF alerts.
    """

    fluxes: Mapping[str, Mapping[str, Table]]
    dipoles: Table
    differences: Mapping[str, Mapping[str, Table]]
    separations: Mapping[str, ZtfResult]


def read_rubin(data: Path) -> dict[str, StampSet]:
    """Read Rubin's alerts by camera."""
    real = read_alerts(data / "rubin_v9_hsc_lsstcam2025", size=RUBIN_SIZE).stamps
    lsstcam = np.asarray(real.sources["visit"]) > FIRST_LSSTCAM_VISIT
    simulated = read_alerts(data / "rubin_v7_4_sim_dc2field", size=RUBIN_SIZE).stamps
    return {"HSC": real[~lsstcam], "LSSTCam": real[lsstcam], "simulated": simulated}


def separate_ztf(data: Path) -> dict[str, ZtfResult]:
    """Run every diagnostic on ZTF's alerts and separate high from low rb."""
    stamps = read_alerts(data / "ztf_2018_skyportal", size=ZTF_SIZE).stamps
    # A source that faded is looked at as one that rose.
    sign = np.where(np.asarray(stamps.sources["isNegative"], dtype=bool), -1.0, 1.0).astype(np.float32)
    rising = {**stamps.planes, "difference": stamps.planes["difference"] * sign[:, None, None]}
    stamps = estimate_planes(replace(stamps, planes=rising))
    plugins = {name: diagnostic_registry[name](diagnostic_registry[name].ConfigClass()) for name in PLUGINS}
    diagnostics = measure_diagnostics(stamps, plugins)
    rb = np.asarray(stamps.sources["rb"], dtype=float)
    objects = objects_on_sky(np.asarray(stamps.sources["ra"]), np.asarray(stamps.sources["dec"]))
    results: dict[str, ZtfResult] = {}
    for rows, what in (((rb < 0.3) | (rb > 0.7), "rb < 0.3, > 0.7"), (rb >= 0.0, "rb < 0.5, >= 0.5")):
        positive = rb[rows] >= 0.5
        for of_difference, columns in ((False, "all columns"), (True, "of the difference")):
            features = diagnostic_features(diagnostics[rows], of_difference=of_difference)
            for kind, separate in (
                ("one column", separate_by_column),
                ("classifier", separate_by_classifier),
            ):
                tries = [
                    separate(features, positive, objects[rows], seed=seed) for seed in range(1, N_SPLITS + 1)
                ]
                areas = np.array([own.area for own in tries])
                results[f"{what}: {kind}, {columns}"] = ZtfResult(tries[0], positive, areas)
    return results


PLUGINS = (
    "aperturePhotometry",
    "context",
    "dipole",
    "localNoise",
    "psfPhotometry",
    "residualModes",
    "shape",
    "trail",
)
"""Diagnostics that ZTF's alerts are separated with."""


def measure(data: Path) -> Results:
    """Measure everything."""
    rubin = read_rubin(data)
    return Results(
        fluxes={
            name: {what: compare_psf_fluxes(stamps, fit) for what, fit in FITS.items()}
            for name, stamps in rubin.items()
        },
        dipoles=vstack([compare_dipoles(rubin[name]) for name in ("HSC", "LSSTCam")]),
        differences={name: subtract(stamps) for name, stamps in rubin.items()},
        separations=separate_ztf(data),
    )


def subtract(stamps: StampSet) -> dict[str, Table]:
    """Compare the differences of each method with the recorded ones."""
    tables = {
        method: compare_differences(stamps, method, convolve=convolve)
        for method, convolve in SUBTRACTIONS.items()
    }
    flux_ratio = flux_ratio_by_visit(tables["al"])
    tables[SCALED] = compare_differences(stamps, "al", convolve=SUBTRACTIONS["al"], flux_ratio=flux_ratio)
    tables[SCALED]["fluxRatio"] = flux_ratio
    return tables


def comparable(table: Table) -> np.ndarray:
    """Return which rows of a flux comparison are to agree: well inside the cutout, and no dipoles."""
    return np.asarray(table["wellInside"]) & ~np.asarray(table["recorded_dipoleFitAttempted"])


def render(results: Results) -> str:
    """Return the page."""
    parts = [
        _INTRODUCTION,
        _FLUX_TEXT,
        _fits_table(results.fluxes),
        _VISIT_TEXT,
        _visits_table(results.fluxes),
        _FLUX_CLOSING,
        _CHI2_TEXT,
        _chi2_table(results.fluxes),
        _SIGN_TEXT,
        _sign_table(results.fluxes),
        _DIPOLE_TEXT,
        _dipole_table(results.dipoles),
        _DIPOLE_CLOSING,
        _DIFFERENCE_TEXT,
        _difference_table(results.differences),
        _RATIO_TEXT,
        _ratios(results.differences),
        _DIFFERENCE_CLOSING,
        _ZTF_TEXT,
        _separation_table(results.separations),
        _ZTF_CLOSING,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _column(table: Table, name: str) -> np.ndarray:
    return np.asarray(table[name], dtype=float)


def _fits_table(fluxes: Mapping[str, Mapping[str, Table]]) -> str:
    rows = []
    for what in FITS:
        cells: list[object] = [what]
        for by_fit in fluxes.values():
            table = by_fit[what]
            ok = comparable(table)
            ours, recorded = (
                _column(table, f"{prefix}psfFlux") / _column(table, f"{prefix}psfFluxErr")
                for prefix in ("", "recorded_")
            )
            cells.append(
                f"{np.median((ours / recorded)[ok]):.4f} / {mad_std((ours / recorded)[ok]):.4f} / "
                f"{mad_std((ours - recorded)[ok]):.3f}"
            )
        rows.append(cells)
    return _table(
        [
            "fit",
            *(f"{name} ({comparable(by_fit[next(iter(FITS))]).sum()})" for name, by_fit in fluxes.items()),
        ],
        rows,
    )


def _visits_table(fluxes: Mapping[str, Mapping[str, Table]]) -> str:
    rows = []
    for name, by_fit in fluxes.items():
        table = by_fit[next(iter(FITS))]
        ok = comparable(table)
        factor = factor_by_visit(table, "psfFluxErr", ok)
        ours, recorded, error = (
            _column(table, c) for c in ("psfFlux", "recorded_psfFlux", "recorded_psfFluxErr")
        )
        own = _column(table, "psfFluxErr") / error
        ratio, pull = ours / factor / recorded, (ours / factor - recorded) / error
        for visit in np.unique(table["visit"][ok]):
            here = ok & (np.asarray(table["visit"]) == visit)
            rows.append(
                [
                    name,
                    visit,
                    here.sum(),
                    f"{factor[here][0]:.4f}",
                    f"{mad_std(own[here]):.4f}",
                    f"{np.median(ratio[here]):.4f}",
                    f"{mad_std(pull[here]):.3f}",
                    f"{mad_std(((ours / own - recorded) / error)[here]):.3f}",
                ]
            )
    head = [
        "data",
        "visit",
        "n",
        "factor",
        "its scatter",
        "median flux ratio",
        "scatter [error]",
        "scatter, own factor [error]",
    ]
    return _table(head, rows)


def _chi2_table(fluxes: Mapping[str, Mapping[str, Table]]) -> str:
    rows = []
    for name, by_fit in fluxes.items():
        table = by_fit[next(iter(FITS))]
        ratio = _column(table, "psfChi2") / _column(table, "recorded_psfChi2")
        n, recorded_n = _column(table, "psfNdata"), _column(table, "recorded_psfNdata")
        same, ok = n == recorded_n, comparable(table)
        per_dof = ratio * recorded_n / n
        rows.append(
            [
                name,
                same.sum(),
                f"{np.median(ratio[same]):.6f} ({ratio[same].min():.4f} to {ratio[same].max():.4f})",
                (ok & ~same).sum(),
                f"{np.median(per_dof[ok & ~same]):.3f} +- {mad_std(per_dof[ok & ~same]):.3f}",
            ]
        )
    head = [
        "data",
        "n, all pixels",
        "chi-square, ours / recorded",
        "n, cut",
        "the same per degree of freedom",
    ]
    return _table(head, rows)


def _sign_table(fluxes: Mapping[str, Mapping[str, Table]]) -> str:
    rows = []
    for name, by_fit in fluxes.items():
        table = by_fit[next(iter(FITS))]
        attempted = np.asarray(table["recorded_dipoleFitAttempted"])
        negative, recorded_negative = _column(table, "psfFlux") < 0, _column(table, "recorded_psfFlux") < 0
        recorded = np.asarray(table["recorded_isNegative"])
        rows.append(
            [
                name,
                len(table),
                f"{(negative == recorded_negative)[~attempted].sum()} of {(~attempted).sum()}",
                recorded_negative.sum(),
                recorded.sum(),
                f"{((negative & ~attempted) == recorded).sum()} of {len(table)}",
            ]
        )
    head = [
        "data",
        "n",
        "sign of flux, no dipoles",
        "recorded flux < 0",
        "recorded isNegative",
        "our flux < 0 and no dipole fit = isNegative",
    ]
    return _table(head, rows)


def _dipole_table(table: Table) -> str:
    rows = []
    visit = _column(table, "visit")
    unresolved = _column(table, "recorded_dipoleLength") < MAX_UNRESOLVED
    for name, camera in (("HSC", visit < FIRST_LSSTCAM_VISIT), ("LSSTCam", visit > FIRST_LSSTCAM_VISIT)):
        here = camera & unresolved
        moment, error, recorded = (
            _column(table, c)[here] for c in ("dipoleMoment", "dipoleMomentErr", "recorded_dipoleMoment")
        )
        angle = _column(table, "angleDifference")[here]
        length, recorded_length, length_error = (
            _column(table, c)[here] for c in ("jointLength", "recorded_dipoleLength", "jointLengthErr")
        )
        flux_ratio = (_column(table, "jointMeanFlux") / _column(table, "recorded_dipoleMeanFlux"))[here]
        joint, same_flux = np.isfinite(length), np.abs(flux_ratio - 1.0) < 0.1
        joint_ratio = (length / recorded_length)[joint]
        rows += [
            [name, "dipoles with unresolved lobes", here.sum(), ""],
            [name, "ours called isDipole", np.asarray(table["isDipole"])[here].sum(), ""],
            [
                name,
                "moment, ours / recorded",
                here.sum(),
                f"{np.median(moment / recorded):.3f} +- {mad_std(moment / recorded):.3f}",
            ],
            [
                name,
                "moment, (ours - recorded) / our error",
                here.sum(),
                f"{np.median((moment - recorded) / error):+.2f} +- {mad_std((moment - recorded) / error):.2f}",
            ],
            [
                name,
                "angle, ours - recorded [deg]",
                here.sum(),
                f"{np.median(angle):+.2f} +- {mad_std(angle):.2f}",
            ],
            [
                name,
                "angle within 3 sigma or 5 deg",
                ((np.abs(angle) < 3.0 * np.degrees(error / moment)) | (np.abs(angle) < 5.0)).sum(),
                f"of {here.sum()}",
            ],
            [
                name,
                "length of the joint fit, ours / recorded",
                joint.sum(),
                f"{np.median(joint_ratio):.3f} +- {mad_std(joint_ratio):.3f}",
            ],
        ]
        if same_flux.sum() > 5:
            ratio = (length / recorded_length)[same_flux]
            pull = ((length - recorded_length) / length_error)[same_flux]
            rows += [
                [
                    name,
                    "the same where the mean fluxes agree to 10 %",
                    same_flux.sum(),
                    f"{np.median(ratio):.3f} +- {mad_std(ratio):.3f}",
                ],
                [
                    name,
                    "the same, (ours - recorded) / our error",
                    same_flux.sum(),
                    f"{np.median(pull):+.2f} +- {mad_std(pull):.2f}",
                ],
            ]
    return _table(["data", "what", "n", "median +- robust scatter"], rows)


def _difference_table(differences: Mapping[str, Mapping[str, Table]]) -> str:
    rows = []
    for name, by_method in differences.items():
        for method, table in by_method.items():
            known = np.isfinite(_column(table, "pixelScatter")) & np.isfinite(_column(table, "psfFlux"))
            isolated = np.asarray(table["isolated"])
            for kind, here in (("isolated", known & isolated), ("on static light", known & ~isolated)):
                if method == SCALED and (kind == "isolated" or np.all(table["fluxRatio"] == 1.0)):
                    continue
                scatter = _column(table, "pixelScatter")[here]
                low, high = np.quantile(scatter, (0.05, 0.95))
                offset = _column(table, "pixelMedian")[here]
                ours, recorded, error = (
                    _column(table, c)[here] for c in ("psfFlux", "recorded_psfFlux", "recorded_psfFluxErr")
                )
                pull = (ours - recorded) / error
                rows.append(
                    [
                        name,
                        method.replace("al", "AL", 1) if method == SCALED else method.upper(),
                        kind,
                        here.sum(),
                        f"{np.median(scatter):.3f} ({low:.3f} to {high:.3f})",
                        f"{np.median(offset):+.3f} +- {mad_std(offset):.3f}",
                        f"{np.median(ours / recorded):.3f}",
                        f"{np.median(pull):+.3f} +- {mad_std(pull):.3f}",
                        f"{100.0 * np.mean(np.abs(pull) < 1.0):.0f} %",
                    ]
                )
    head = [
        "data",
        "method",
        "sources",
        "n",
        "pixel scatter [sigma]",
        "pixel median [sigma]",
        "flux ratio",
        "flux pull",
        "flux within one error",
    ]
    return _table(head, rows)


def _ratios(differences: Mapping[str, Mapping[str, Table]]) -> str:
    rows = []
    for name, by_method in differences.items():
        table = by_method[SCALED]
        for visit in np.unique(table["visit"]):
            here = np.asarray(table["visit"]) == visit
            if (ratio := float(_column(table, "fluxRatio")[here][0])) != 1.0:
                rows.append([name, visit, f"{ratio:.4f}"])
    return _table(["data", "visit", "flux ratio"], rows)


def _separation_table(separations: Mapping[str, ZtfResult]) -> str:
    rows = []
    for name, result in separations.items():
        separation, positive = result.separation, result.positive
        classes, what = name.split(": ", 1)
        chosen = ", ".join(f"`{column}` ({n})" for column, n in separation.chosen.items())
        rows.append(
            [
                f"{classes} ({(~positive).sum()}, {positive.sum()})",
                what,
                f"{separation.area:.3f}",
                f"{separation.lower:.3f} to {separation.upper:.3f}",
                f"{np.median(result.areas):.3f} ({result.areas.min():.3f} to {result.areas.max():.3f})",
                chosen,
            ]
        )
    return _table(
        ["classes (n)", "scores", "ROC area", "95 %", "median of ten splits", "columns chosen (folds of 5)"],
        rows,
    )


def figures(results: Results) -> dict[str, Figure]:
    """Return the figures by file name."""
    first = next(iter(FITS))
    agreeing = {name: by_fit[first][comparable(by_fit[first])] for name, by_fit in results.fluxes.items()}
    unresolved = _column(results.dipoles, "recorded_dipoleLength") < MAX_UNRESOLVED
    return {
        "alert_psf_fluxes.png": plot_psf_fluxes(agreeing),
        "alert_dipoles.png": plot_dipoles(results.dipoles[unresolved]),
        "alert_differences.png": plot_differences(
            {
                name: {method: tables[method] for method in SUBTRACTIONS}
                for name, tables in results.differences.items()
            }
        ),
        "alert_ztf_roc.png": plot_separation(
            {name: (own.separation, own.positive) for name, own in results.separations.items()}
        ),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the page and its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="folder of the test data")
    parser.add_argument("--out", type=Path, default=DOC, help="folder to write to")
    options = parser.parse_args(arguments)
    results = measure(options.data)
    (options.out / "figures").mkdir(parents=True, exist_ok=True)
    for name, figure in figures(results).items():
        figure.savefig(options.out / "figures" / name, dpi=80, metadata={"Software": None})
    (options.out / "alert_validation.md").write_text(render(results))


_INTRODUCTION = """\
# Validation on real alerts

Our measurements of the alerts of Rubin and ZTF, against what the surveys recorded in them. Written by `python
doc/validate_alerts.py`, which reads the alerts of the test data (`DIAINSPECT_TESTDATA_DIR`) and takes a minute; do
not edit. The numbers that matter are asserted in `tests/test_alert_validation.py`.

| data | alerts | what |
| --- | --- | --- |
| HSC | 188 | g band of COSMOS, LSST AP pipeline, alert schema 9.0 |
| LSSTCam | 100 | i band of 2025-09-05, the same pipeline and schema |
| simulated | 100 | i band of the DC2 area, alert schema 7.4 |
| ZTF | 205 | 2018-06-26, public alerts with their `rb` |

Scatter is robust throughout: 1.4826 times the median absolute deviation.
"""

_FLUX_TEXT = """\
## PSF fluxes

Compared are sources that are no dipoles (no dipole fit was recorded), lie well inside (every pixel within 12 of the
source is on the cutout) and have no flag of a failed fit. What was recorded is reproduced by **equal weights on all
pixels of the cutout, at the recorded centroid**, f = sum(P d) / sum(P^2), with the variance propagated, var f =
sum(P^2 v) / sum(P^2)^2.

Flux and error are recorded with the same factor, so their ratio shows the fit by itself. S/N, ours over recorded:
median / scatter of the ratio / scatter of the difference:
"""

_VISIT_TEXT = """\
The **factor** is that of the aperture correction, which the pipeline applies to flux and error alike and the alert
does not carry: the error ratio gives it for each source without a look at the flux, and flux and error have the
same one (figure). It is not a matter of where the PSF ends: the PSF images have unit sum on the 41 x 41 pixels of
the fit. It differs by visit and detector, and across a detector. The factor of a visit here is the median of ours
over recorded *error*; the flux ratio is what is left when our fluxes are divided by it.
"""

_FLUX_CLOSING = """\
![Flux ratios and deviations](figures/alert_psf_fluxes.png)

After one factor a visit the median agrees to 1 % in every visit with more than ten sources, and the scatter is a
few hundredths of the recorded error. With each source's own factor, what is left is the corners of the 41 x 41
pixels that a cutout of 30 x 30 lacks, and the interpolation of the PSF to the source's place (ours is a sinc, the
pipeline's a Lanczos).

Where ours differs **on purpose**: `psfPhotometry` weighs pixels with their inverse variance within 12 pixels, the
best estimate of the flux of a point source. It does not change the mean of a clean source, but where there is
something else (a neighbour, the residual of a bright star, for which the variance is high) it differs from equal
weights by far more than the errors, and it is the one that is less disturbed. It carries no aperture correction:
fluxes and errors are those of the PSF image.
"""

_CHI2_TEXT = """\
## Chi-square

The recorded `psfChi2` is sum((d - f P)^2 / v) with the equally weighted flux before its correction. Where the
cutout has all pixels of the recorded fit it is the same number; otherwise the degrees of freedom differ, and the
ratio scatters by what the other pixels contribute (sqrt(2 / 900 - 2 / 1681) = 0.03 from noise alone).
"""

_SIGN_TEXT = """\
## Sign

`isNegative` is recorded True for sources with negative flux **of which no dipole was fitted**: the 30 sources of
negative flux without it all have `dipoleFitAttempted`. In schema 7.4 `is_negative` was never set: the sign of the
flux says it.
"""

_DIPOLE_TEXT = """\
## Dipoles

59 sources have `isDipole`. Their recorded fit is that of two lobes of equal flux (`dipoleFluxDiff` is always 0) to
difference, science image and template together, within the footprint. So the recorded flux is that of the static
source, and the separations are a fraction of a pixel: 5 to 300 mas for all but six. What a difference tells of such
a dipole is its moment, flux times separation, and the direction. `dipoleAngle` is the direction from the negative
to the positive lobe, **east of north** (on HSC that is within a degree or two of the angle from +x, on LSSTCam it
is 120 degrees from it). Six with recorded lengths of 1.9 arcsec and more, where the lobes lie side by side, are not
in the table.
"""

_DIPOLE_CLOSING = """\
![Dipoles](figures/alert_dipoles.png)

The length of the joint fit is the moment over the static flux. It agrees where the static flux does. Where it comes
out longer our joint fit has less flux than the recorded one; the static source is then unlike the PSF (median
chi-square per degree of freedom on the science image 7, against 1.8 where the fluxes agree; that is with the
dipole's own disk, not the pipeline's footprint): use the moment there. The four of LSSTCam are bright (40,000 to
750,000 nJy), with residuals that no pair of PSFs fits (recorded chi-squares of 1,700 to 27,000), and their angles
depend on the pixels that are fitted.
"""

_DIFFERENCE_TEXT = """\
## Differences made from the cutouts

`subtract_stamps` makes AL and ZOGY differences from science and template cutouts with their PSFs
([methods](methods.md)). They are compared with the recorded difference pixel by pixel within 8 pixels of the
source, in units of the recorded sigma; both come from the same pixels, so the noise is common and what is left is
the method. Fluxes are fitted to both with equal weights on the same pixels, above the median of the pixels beyond
12 pixels, and the pull is in units of the recorded difference's flux error. Isolated sources have no template pixel
above 5 sigma within 12 pixels.
"""

_RATIO_TEXT = """\
On static light a stamp lacks what a detector's kernel knows: the flux ratio of the images, for one. It is the
number by which the fluxes above differ from the recorded ones in proportion to the template's flux, and the rows
"flux ratio of the visit" have it taken out (visits with ten static sources at least):
"""

_DIFFERENCE_CLOSING = """\
The ratio is found from the sources that it is applied to, so the median of their pulls says nothing; that their
scatter falls does. HSC's images are both calibrated, and yet one has 2 % more flux than the other in terms of the
PSFs in the alerts: the aperture corrections of the two images differ (the forced PSF fluxes of static sources give
1.03 +- 0.01 for visit 59150 without a look at the difference; the recorded ones, which are corrected, 1.00).

![Differences](figures/alert_differences.png)

On isolated sources both methods agree with the recorded difference within noise: AL to a tenth of a sigma a pixel
and less, ZOGY to a quarter, because its noise is filtered otherwise (the recorded difference is an AL difference,
decorrelated). Differences that are expected:

- The recorded difference was made with one kernel for the detector, whose solution takes up the offset between the
  images and what the PSF models lack; a stamp's kernel comes from the two PSFs alone. On bright static light that
  is what is left: the deviation grows with it (figure). A single stamp cannot tell registration from a moving
  source.
- The simulated templates are blunter than the science images. There the recorded AL deconvolved the template, as
  `convolve="template"` does; with our default (`auto`: the sharper image is convolved) the difference has another
  PSF.
- The PSF recorded with the difference is the science image's. Decorrelation changes it by a little, which ours
  carries.
- Stamps are compared after each has lost its own sky. The recorded differences keep a local sky of +-0.06 sigma a
  pixel, which ours do not have (pixel median in the table); not taken out it would change the flux by 0.2 to 0.3 of
  its error.
- The pipeline's variance of HSC is 1.12 to 1.19 times the sum of the two variances (it is scaled to the pixels).
"""

_ZTF_TEXT = """\
## ZTF: high against low rb

ZTF's alerts have neither variances nor PSFs. `estimate_planes` makes them from the pixels, after which every
diagnostic runs. Differences of negative sources are turned over first. Scores are from five-fold cross-validation:
the split is by object (sources within 1.5 arcsec are one; here each is its own), with both classes dealt out
evenly, at random with a fixed seed. Which column and which sign is chosen on four folds and applied to the fifth.
The classifier is a logistic regression on the ranks of all columns within the training folds, with a penalty of 10
(with 1 or 100 the areas are the same to 0.03). Intervals are from a bootstrap over objects of the held-out scores of
the first split; the median over ten splits is the number to quote.
"""

_ZTF_CLOSING = """\
![ROC curves](figures/alert_ztf_roc.png)

How to read this: in this sample, seen by eye, high `rb` are variable stars and low `rb` are mostly cosmic rays and
ghosts where the template is empty, so that any column that sees a static source separates the two, and an area of 1
is **no measure of how well artefacts are told from real sources**. The rows "of the difference" use nothing of
science image and template but the width of the PSF; they are the honest ones, and the second class, all 205 alerts
divided at 0.5, is the harder one. `rb` itself is the output of a classifier, not truth.
"""


if __name__ == "__main__":
    main()

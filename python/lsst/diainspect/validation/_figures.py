"""Figures of how our measurements of alerts compare with what the surveys recorded."""

from __future__ import annotations

__all__ = ["plot_differences", "plot_dipoles", "plot_psf_fluxes", "plot_separation"]

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from ..plots import PALETTE, method_colours
from ..plots._style import NEUTRAL_COLOUR, method_name, new_figure, styled
from ._separation import Separation


@styled
def plot_psf_fluxes(tables: Mapping[str, Table]) -> Figure:
    """Draw flux ratios against error ratios, and the deviations that are left in units of the recorded error.

    Parameters
    ----------
    tables : mapping [`str`, `astropy.table.Table`]
        Rows of `compare_psf_fluxes` that are to be compared, by the name of the data.
    """
    figure = new_figure("PSF fluxes of alerts: ours against recorded", height=4.2)
    ratio_axes, pull_axes = figure.subplots(1, 2)
    for (name, table), colour in zip(tables.items(), PALETTE, strict=False):
        ours, recorded, error, recorded_error = (
            np.asarray(table[column], dtype=float)
            for column in ("psfFlux", "recorded_psfFlux", "psfFluxErr", "recorded_psfFluxErr")
        )
        flux_ratio, error_ratio = ours / recorded, error / recorded_error
        ratio_axes.plot(error_ratio, flux_ratio, ".", color=colour, alpha=0.6, label=f"{name}: {len(table)}")
        pull = (ours / error_ratio - recorded) / recorded_error
        pull_axes.hist(
            np.clip(pull, -0.3, 0.3),
            bins=np.linspace(-0.3, 0.3, 61),
            histtype="step",
            color=colour,
            linewidth=1.4,
        )
    line = np.array([0.97, 1.08])
    ratio_axes.plot(line, line, color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
    ratio_axes.set(xlim=line, ylim=line, xlabel="error, ours / recorded", ylabel="flux, ours / recorded")
    ratio_axes.set_title("Flux and error carry the same factor")
    ratio_axes.legend(loc="upper left")
    pull_axes.set(
        xlabel="(our flux / factor - recorded flux) / recorded error", ylabel="sources", yscale="log"
    )
    pull_axes.set_title("What is left, without the factor (ends: all beyond)")
    return figure


@styled
def plot_dipoles(table: Table) -> Figure:
    """Draw moments, lengths and angles of dipoles.

    Parameters
    ----------
    table : `astropy.table.Table`
        What `compare_dipoles` made.
    """
    figure = new_figure("Recorded dipoles, fitted again", height=3.9, width=12.0)
    moment_axes, length_axes, angle_axes = figure.subplots(1, 3)
    for axes, ours, recorded, what in (
        (moment_axes, "dipoleMoment", "recorded_dipoleMoment", "moment (flux x length) [nJy arcsec]"),
        (length_axes, "jointLength", "recorded_dipoleLength", "length [arcsec]"),
    ):
        x, y = (np.asarray(table[name], dtype=float) for name in (recorded, ours))
        known = np.isfinite(x) & np.isfinite(y)
        axes.errorbar(
            x[known],
            y[known],
            yerr=np.asarray(table[f"{ours}Err"], dtype=float)[known],
            fmt=".",
            color=PALETTE[0],
            elinewidth=0.7,
        )
        limits = np.array(
            [0.7 * min(x[known].min(), y[known].min()), 1.4 * max(x[known].max(), y[known].max())]
        )
        axes.plot(limits, limits, color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
        axes.set(xlabel=f"recorded {what}", ylabel=f"our {what}")
    moment_axes.set_title("Moment")
    length_axes.set_title("Length, joint fit")
    significance = np.asarray(table["dipoleMoment"], dtype=float) / np.asarray(
        table["dipoleMomentErr"], dtype=float
    )
    angle_axes.semilogx(significance, table["angleDifference"], ".", color=PALETTE[0])
    grid = np.geomspace(significance.min(), significance.max(), 50)
    for sign in (-1.0, 1.0):
        angle_axes.plot(grid, sign * np.degrees(1.0 / grid), color=NEUTRAL_COLOUR, linewidth=0.8)
    angle_axes.set(ylim=(-30.0, 30.0), xlabel="S/N of the moment", ylabel="angle, ours - recorded [deg]")
    angle_axes.set_title("Angle east of north (lines: one sigma)")
    return figure


@styled
def plot_differences(tables: Mapping[str, Mapping[str, Table]]) -> Figure:
    """Draw how far differences made from cutouts are from the recorded ones.

    Parameters
    ----------
    tables : mapping [`str`, mapping [`str`, `astropy.table.Table`]]
        What `compare_differences` made, by the name of the data and the method.
    """
    figure = new_figure("Differences made from cutouts, against the recorded ones", height=3.9, width=12.0)
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (name, by_method) in zip(panels, tables.items(), strict=True):
        colours = method_colours(by_method)
        for method, table in by_method.items():
            isolated = np.asarray(table["isolated"], dtype=bool)
            for rows, marker, alpha in ((~isolated, "x", 0.35), (isolated, "o", 0.9)):
                axes.plot(
                    np.asarray(table["peakStatic"], dtype=float)[rows],
                    np.asarray(table["pixelScatter"], dtype=float)[rows],
                    marker,
                    color=colours[method],
                    alpha=alpha,
                    markersize=4,
                    linestyle="none",
                    label=f"{method_name(method)}, {'isolated' if marker == 'o' else 'on static light'}",
                )
        axes.axhline(1.0, color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
        axes.set(xscale="log", yscale="log", title=name)
        axes.set_xlabel("brightest template pixel within 8 pixels [sigma]")
    panels[0].set_ylabel("scatter of (ours - recorded) / sigma")
    panels[0].legend(loc="upper left")
    return figure


@styled
def plot_separation(results: Mapping[str, tuple[Separation, np.ndarray]]) -> Figure:
    """Draw ROC curves of held-out scores.

    Parameters
    ----------
    results : mapping [`str`, (`Separation`, `numpy.ndarray`)]
        Separation and class of each source, by the panel's name, ": " and the curve's.
    """
    figure = new_figure("ZTF alerts: high against low rb, held-out scores", height=4.9)
    groups = list(dict.fromkeys(name.split(": ", 1)[0] for name in results))
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        own = {
            name.split(": ", 1)[1]: result
            for name, result in results.items()
            if name.startswith(f"{group}: ")
        }
        for (name, (separation, positive)), colour in zip(own.items(), PALETTE, strict=False):
            order = np.argsort(-separation.score, kind="stable")
            last_of_tie = np.append(np.diff(separation.score[order]) != 0, True)
            hits, false = (np.cumsum(kind[order])[last_of_tie] for kind in (positive, ~positive))
            axes.plot(
                np.append(0.0, false / max((~positive).sum(), 1)),
                np.append(0.0, hits / max(positive.sum(), 1)),
                color=colour,
                label=f"{name}: {separation.area:.3f}",
            )
        axes.plot([0.0, 1.0], [0.0, 1.0], color=NEUTRAL_COLOUR, linewidth=0.8, zorder=0)
        axes.set(xlabel="fraction of low rb above the threshold", title=group)
        axes.set_ylabel("fraction of high rb above the threshold")
        axes.legend(loc="lower right", title="ROC area")
    return figure

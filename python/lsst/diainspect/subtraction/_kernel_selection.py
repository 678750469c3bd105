"""Choice among models of a matching kernel by how well they predict sources that were held out of the fit.

The score of a model is the mean reduced chi-square of held-out sources (K-fold). Among all that are tried, the
simplest wins whose score is within one standard error of the best one's; the error is that of the paired
difference, source by source, in which what makes a source hard for every model cancels.
"""

from __future__ import annotations

__all__ = ["KernelCandidate", "KernelChoice", "TriedModel", "choose_kernel_model"]

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ._kernel_fit import KernelEquations, KernelModel


@dataclass(frozen=True)
class KernelCandidate:
    """A model on a basis."""

    equations: KernelEquations
    model: KernelModel

    @property
    def label(self) -> str:
        """Name that says what is tried."""
        name = f"{self.equations.basis.name}Order{self.model.orders.shape}"
        if self.equations.basis.penalty is None:
            return name
        return f"{name}Smoothing{self.model.smoothing:.0e}".replace("-", "m").replace("+", "")


@dataclass(frozen=True)
class TriedModel:
    """How a candidate did.

    Parameters
    ----------
    candidate : `KernelCandidate`
        What was tried.
    n_effective : `float`
        Coefficients that the data determine.
    held_out : `float`
        Mean reduced chi-square of held-out sources.
    excess, excess_error : `float`
        Mean difference to the best candidate over the sources, and its standard error.
    """

    candidate: KernelCandidate
    n_effective: float
    held_out: float
    excess: float
    excess_error: float


@dataclass(frozen=True)
class KernelChoice:
    """The candidate chosen, and all that were tried."""

    chosen: KernelCandidate
    tried: tuple[TriedModel, ...]

    def to_metadata(self) -> dict[str, int | float | str]:
        """Return what was tried, by names of the form ``crossValidation.LABEL.QUANTITY``."""
        metadata: dict[str, int | float | str] = {"crossValidation.chosen": self.chosen.label}
        for tried in self.tried:
            name = f"crossValidation.{tried.candidate.label}"
            metadata[f"{name}.heldOutChi2"] = tried.held_out
            metadata[f"{name}.excess"] = tried.excess
            metadata[f"{name}.excessErr"] = tried.excess_error
            metadata[f"{name}.nEffective"] = tried.n_effective
        return metadata


def choose_kernel_model(
    candidates: Sequence[KernelCandidate],
    *,
    n_folds: int,
    clip_sigma: float,
    max_iterations: int,
    min_sources: int,
) -> KernelChoice:
    """Choose a model by cross-validation.

    Parameters
    ----------
    candidates : sequence [`KernelCandidate`]
        What to try; the first is fitted to find the sources to be rejected, which no candidate is judged by.
    n_folds : `int`
        Parts of the sources that are held out in turn.
    clip_sigma, max_iterations, min_sources
        As for `KernelEquations.fit`.
    """
    first = candidates[0]
    fit = first.equations.fit(
        first.model, clip_sigma=clip_sigma, max_iterations=max_iterations, min_sources=min_sources
    )
    keep = first.equations.kept(fit)
    order: list[KernelCandidate] = []
    held_out: list[np.ndarray] = []
    n_effective: list[float] = []
    # Models that differ in smoothing only share their linear systems.
    alike = sorted(range(len(candidates)), key=lambda n: _system_key(candidates[n]))
    for _, group in groupby(alike, key=lambda n: _system_key(candidates[n])):
        members = [candidates[n] for n in group]
        equations, models = members[0].equations, [member.model for member in members]
        order += members
        held_out += list(equations.held_out_of(models, keep, n_folds))
        n_effective += list(equations.effective_parameters(models, keep))
    chi2 = np.stack(held_out)
    chi2 = chi2[:, np.isfinite(chi2).all(axis=0)]
    excess = chi2 - chi2[chi2.mean(axis=1).argmin()]
    error = excess.std(axis=1, ddof=1) / np.sqrt(chi2.shape[1])
    tried = tuple(
        TriedModel(candidate, n_effective[n], float(chi2[n].mean()), float(excess[n].mean()), float(error[n]))
        for n, candidate in enumerate(order)
    )
    good = [model for model in tried if model.excess <= model.excess_error]
    return KernelChoice(min(good, key=lambda model: model.n_effective).candidate, tried)


def _system_key(candidate: KernelCandidate) -> tuple[str, int, int, int]:
    orders = candidate.model.orders
    return (candidate.equations.basis.name, orders.shape, orders.total, orders.background)

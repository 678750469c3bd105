"""What the model learns: labels from the true signal of each mechanism."""

from __future__ import annotations

__all__ = ["LABELS", "label_truth", "main_label"]

import numpy as np
from astropy.table import Table

_MECHANISMS = {
    "real": ("real",),
    "moving": ("moving",),
    "shift": ("registration", "properMotion", "dcr"),
    "width": ("psfWidth", "brighterFatter"),
    "psfEllipticity": ("psfEllipticity",),
    "background": ("background",),
    "fluxScale": ("fluxScale",),
    "cosmicRay": ("cosmicRay",),
    "ghostOrCrosstalk": ("ghostOrCrosstalk",),
    "templateArtefact": ("templateArtefact",),
}

LABELS = (*_MECHANISMS, "noise")

_CONTRIBUTES = 3.0
"""S/N from which a mechanism contributes."""

_ABSENT = 1.5
"""S/N below which it does not; in between nobody can tell, and the source is not used for that label."""

_NOISE_PEAK = 6.5
_FAINT_STATIC = 100.0
"""S/N of a static source next to a peak up to which an unexplained peak is noise, not an error of the match."""


def signals(table: Table) -> dict[str, np.ndarray]:
    """Return the true S/N of each label but noise."""
    return {
        label: np.sqrt(np.sum([np.asarray(table[f"true_{one}"], dtype=float) ** 2 for one in ones], axis=0))
        for label, ones in _MECHANISMS.items()
    }


def label_truth(table: Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return for each label whether it is true, and whether that is known, (N,) bool each."""
    found = signals(table)
    truth = {label: (s >= _CONTRIBUTES, (s >= _CONTRIBUTES) | (s < _ABSENT)) for label, s in found.items()}
    nothing = np.max([*found.values(), np.asarray(table["true_other"], dtype=float)], axis=0) < _ABSENT
    beside_star = (np.asarray(table["true_staticSnr"]) > _FAINT_STATIC) & (
        np.asarray(table["true_staticDistance"]) < 8.0
    )
    is_noise = nothing & ~beside_star & (np.abs(np.asarray(table["snr"], dtype=float)) < _NOISE_PEAK)
    truth["noise"] = (is_noise, is_noise | ~nothing)
    return truth


def main_label(table: Table) -> np.ndarray:
    """Return the only label that is true, (N,) str; empty where none or several are, or where it is not known."""
    truth = label_truth(table)
    is_true = np.stack([truth[label][0] for label in LABELS], axis=1)
    known = np.stack([truth[label][1] for label in LABELS], axis=1).all(axis=1)
    other = np.asarray(table["true_other"], dtype=float) > 0
    single = (is_true.sum(axis=1) == 1) & known & ~other
    return np.where(single, np.array(LABELS)[is_true.argmax(axis=1)], "")

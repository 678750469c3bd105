"""Place, look and cause of sources from their evidence."""

from __future__ import annotations

__all__ = ["classification_columns", "classify_sources"]

from collections.abc import Mapping

import numpy as np
from astropy.table import Column, Table

from ..maps import DetectorMaps
from ._cause_model import CauseModel, stored_model
from ._evidence import Evidence
from ._features import is_approximate
from ._looks import LOOKS
from ._places import PLACES
from ._rule import Rule
from ._shared_causes import CAUSES, shares

_HALF = 0.5

_TOLD = 0.8
"""Share of a cause in its label's score from which the source counts as told apart."""

_CANDIDATE = 0.1
"""Share from which a cause is a candidate."""

_N_EVIDENCE = 3

_NAME_LENGTH = 64

_MAIN_EVIDENCE = "residualModes_fluxGivenArtefacts"


def classification_columns() -> dict[str, tuple[str, str]]:
    """Return every column of `classify_sources` but the identifier: type and meaning, by name."""
    columns: dict[str, tuple[str, str]] = {}
    for title, rules, otherwise in (
        ("place", PLACES, "clean where no score reaches one half"),
        ("look", LOOKS, "unclear where no score reaches one half"),
    ):
        for name, rule in rules.items():
            columns[f"{title}_{name}"] = (
                "float32",
                f"Score between 0 and 1. {rule.doc} Evidence: {', '.join(rule.columns)}.",
            )
        columns[title] = ("U32", f"The {title} of the highest score; {otherwise}.")
    for name, doc in CAUSES.items():
        columns[f"cause_{name}"] = ("float32", f"Probability that this contributes. {doc}")
    return columns | {
        "cause_real": (
            "float32",
            "Probability of a flux change of a source at rest, whatever artefacts there are besides: the sum of "
            "realUp, realDown and templateContaminated.",
        ),
        "cause": ("U32", "The likeliest cause."),
        "causeScore": (
            "float32",
            "Score of what that cause shares with those it cannot be told from; of unknown its own.",
        ),
        "causeAmbiguous": (
            "bool",
            "This source alone does not tell the cause from the others in causeCandidates.",
        ),
        "causeCandidates": (f"U{_NAME_LENGTH}", "Causes that share the score, likeliest first."),
        "causeEvidence": (
            f"U{_NAME_LENGTH}",
            "The numbers (features of the model) that speak most for the cause, strongest first.",
        ),
        "psfErrorIn": (
            "U8",
            "Whose PSF model is off at this source by more than 3 sigma in width: science, template or both.",
        ),
        "approximate": (
            "bool",
            "Judged without the filters or the maps of the detector, as alerts are.",
        ),
        "flag": (
            "bool",
            "No residual modes and no PSF flux: scores are those of sources about which nothing is known.",
        ),
    }


def classify_sources(
    diagnostics: Table,
    sources: Table | None = None,
    maps: DetectorMaps | None = None,
    model: CauseModel | None = None,
) -> Table:
    """Say where sources lie, what they look like, and what made them.

    Parameters
    ----------
    diagnostics : `astropy.table.Table`
        Diagnostics of N sources; columns may be missing.
    sources : `astropy.table.Table`, optional
        Source table, for S/N, positions and pixel flags.
    maps : `lsst.diainspect.maps.DetectorMaps`, optional
        Maps of the detector, which tell apart what one source cannot.
    model : `CauseModel`, optional
        Model of the causes; the package's own when omitted.

    Returns
    -------
    table : `astropy.table.Table`
        N rows: ``diaSourceId``, and ``visit`` and ``detector`` where known, then `classification_columns`.

    Raises
    ------
    ValueError
        If a source has no row in the source table, or several.
    """
    model = model if model is not None else stored_model()
    evidence = Evidence(diagnostics, sources)
    values: dict[str, np.ndarray] = {}
    for title, rules, otherwise in (("place", PLACES, "clean"), ("look", LOOKS, "unclear")):
        scores = _apply(rules, evidence)
        values |= {f"{title}_{name}": score for name, score in scores.items()}
        values[title] = _best(scores, otherwise)
    values |= _causes(evidence, maps, model)
    table = Table()
    for name in ("diaSourceId", "visit", "detector"):
        if name in diagnostics.colnames:
            table[name] = diagnostics[name]
    for name, (dtype, doc) in classification_columns().items():
        table[name] = Column(np.asarray(values[name]).astype(dtype), description=doc)
    return table


def _apply(rules: Mapping[str, Rule], evidence: Evidence) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: np.clip(rule.score(evidence), 0.0, 1.0) for name, rule in rules.items()}


def _best(scores: Mapping[str, np.ndarray], otherwise: str) -> np.ndarray:
    names = np.array([*scores, otherwise])
    stacked = np.stack([*scores.values(), np.full(len(next(iter(scores.values()))), _HALF)], axis=1)
    # Of equal scores the first counts, so that a score of one half is not reached by the last column alone.
    return names[np.argmax(stacked, axis=1)]


def _causes(evidence: Evidence, maps: DetectorMaps | None, model: CauseModel) -> dict[str, np.ndarray]:
    """Score the causes and say what is told apart."""
    n = len(evidence)
    scores, contributions = model.scores(evidence)
    x, y = evidence.column("x"), evidence.column("y")
    labels = list(scores)
    values: dict[str, np.ndarray] = {f"cause_{name}": np.zeros(n) for name in CAUSES}
    share = {label: shares(label, evidence, maps, x, y) for label in labels}
    for label in labels:
        for name, part in share[label].items():
            values[f"cause_{name}"] = scores[label] * part
    values["cause_real"] = scores["real"]
    stacked = np.stack([scores[label] for label in labels], axis=1)
    best = np.argmax(stacked, axis=1) if n else np.zeros(0, dtype=int)
    highest = stacked[np.arange(n), best]
    values["cause_unknown"] = 1.0 - highest
    unknown = highest < _HALF
    cause = np.full(n, "unknown", dtype="U32")
    candidates = np.full(n, "", dtype=f"U{_NAME_LENGTH}")
    evidence_names = np.full(n, "", dtype=f"U{_NAME_LENGTH}")
    ambiguous = np.zeros(n, dtype=bool)
    for j, label in enumerate(labels):
        rows = np.flatnonzero((best == j) & ~unknown)
        if len(rows) == 0:
            continue
        names = np.array(list(share[label]))
        parts = np.stack([share[label][name][rows] for name in names], axis=1)
        order = np.argsort(-parts, axis=1, kind="stable")
        cause[rows] = names[order[:, 0]]
        ambiguous[rows] = parts.max(axis=1) < _TOLD
        candidates[rows] = _joined(names[order], np.take_along_axis(parts, order, axis=1) >= _CANDIDATE)
        evidence_names[rows] = _strongest(contributions[label][rows], model.labels[label].features)
    values |= {
        "cause": cause,
        "causeScore": np.where(unknown, 1.0 - highest, highest),
        "causeAmbiguous": ambiguous,
        "causeCandidates": candidates,
        "causeEvidence": evidence_names,
        "psfErrorIn": _psf_error_in(evidence),
        "approximate": is_approximate(evidence),
        "flag": ~evidence.any_known([_MAIN_EVIDENCE, "psfPhotometry_psfFlux"]),
    }
    return values


def _joined(names: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Join the wanted names of each row."""
    joined = np.full(len(names), "", dtype=f"U{_NAME_LENGTH}")
    for j in range(names.shape[1]):
        separator = np.where((joined != "") & wanted[:, j], ",", "")
        joined = np.char.add(np.char.add(joined, separator), np.where(wanted[:, j], names[:, j], ""))
    return joined


def _strongest(contributions: np.ndarray, features: tuple[str, ...]) -> np.ndarray:
    """Name the features that raise the score most."""
    order = np.argsort(-contributions, axis=1, kind="stable")[:, :_N_EVIDENCE]
    return _joined(np.array(features)[order], np.take_along_axis(contributions, order, axis=1) > 0)


def _psf_error_in(evidence: Evidence) -> np.ndarray:
    off = {}
    for side in ("science", "template"):
        with np.errstate(invalid="ignore", divide="ignore"):
            width = evidence.column(f"residualModes_{side}Width") / evidence.column(
                f"residualModes_{side}WidthErr"
            )
        off[side] = np.abs(width) > 3.0
    # The static source of a galaxy is wider than the PSF for another reason.
    galaxy = np.nan_to_num(evidence.column("residualModes_isExtended")) > 0.5
    science, template = (off[side] & ~galaxy for side in ("science", "template"))
    return np.select([science & template, science, template], ["both", "science", "template"], default="")

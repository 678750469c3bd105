"""Names that columns of the DiaSource table had in earlier versions of the DPDD, and have today."""

from __future__ import annotations

__all__ = ["CURRENT_NAMES", "current_name"]

import re

CURRENT_NAMES: dict[str, str] = {
    "decl": "dec",
    "declErr": "decErr",
    "ra_decl_Cov": "ra_dec_Cov",
    "midPointTai": "midpointMjdTai",
    "midPointMjdTai": "midpointMjdTai",
    "midpointTai": "midpointMjdTai",
    "filterName": "band",
    "is_negative": "isNegative",
    "totFlux": "scienceFlux",
    "totFluxErr": "scienceFluxErr",
    "diffFlux": "snapDiffFlux",
    "diffFluxErr": "snapDiffFluxErr",
    "xcentroid": "x",
    "ycentroid": "y",
}
"""Old names of single columns. ``spuriousness`` is not among them: it is not the reliability of today."""

_WORDS = (
    (re.compile(r"(?<![A-Za-z])ps(?=Flux|Ra|Dec|Chi2|LnL|Ndata)"), "psf"),
    (re.compile(r"(?<![A-Za-z])dip(?=MeanFlux|FluxDiff|Ra|Dec|Length|Angle|Chi2|LnL|Ndata)"), "dipole"),
    (re.compile(r"(?<=[a-z])Decl(?![a-z])"), "Dec"),
)
"""Parts of names that changed wherever they occur: psFlux, dipRa_dipDecl_Cov, trailDeclErr, ..."""


def current_name(name: str) -> str:
    """Return what a column is called today; names that did not change, or are not known, come back as they are."""
    if name in CURRENT_NAMES:
        return CURRENT_NAMES[name]
    for pattern, word in _WORDS:
        name = pattern.sub(word, name)
    return name

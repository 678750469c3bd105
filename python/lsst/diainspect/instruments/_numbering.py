"""Limits on visit and detector numbers, so that a packed (visit, detector) leaves room for source identifiers.

diaSourceId = packed << 37 | counter has to be a positive int64, which leaves 26 bits for visit and detector.
"""

from __future__ import annotations

__all__ = ["DETECTOR_LIMIT", "VISIT_LIMIT", "check_numbers"]

DETECTOR_LIMIT = 1 << 8
"""Detector numbers are below this."""

VISIT_LIMIT = 1 << 18
"""Visit numbers are below this."""


def check_numbers(visit: int, detector: int) -> None:
    """Refuse visit and detector numbers that cannot be packed.

    Raises
    ------
    ValueError
        If either is negative or too large.
    """
    if not 0 <= visit < VISIT_LIMIT:
        raise ValueError(f"Visit number must be in 0..{VISIT_LIMIT - 1}, got {visit}.")
    if not 0 <= detector < DETECTOR_LIMIT:
        raise ValueError(f"Detector number must be in 0..{DETECTOR_LIMIT - 1}, got {detector}.")

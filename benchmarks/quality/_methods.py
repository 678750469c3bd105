"""The methods: ours with any configuration, the ideal, and the peers of `benchmarks.quality._peers`."""

from __future__ import annotations

__all__ = ["OWN_METHODS", "MethodSpec", "run_own"]

from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
import sep
from astropy.table import Table
from lsst.images import Box, Image, Mask, MaskedImage
from scipy.spatial import cKDTree

from lsst.diainspect.masks import make_mask_schema
from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.subtraction import ImagePair, SubtractionResult, subtractor_registry

from ._cost import Cost, least_cost, measure_cost
from ._ideal import subtract_ideal
from ._output import MethodOutput
from ._scenes import BenchmarkScene

OWN_METHODS = ("al", "zogy")

_SMALL = 300
"""Side of the images on which compiled code is loaded [pixel]."""

_HELD_OUT_RADIUS = 6.0
"""A candidate this near to a held-out star is that star [pixel]."""


@dataclass(frozen=True)
class MethodSpec:
    """A method and how it is configured.

    Parameters
    ----------
    name : `str`
        Name in the registry, "ideal", or a peer's.
    overrides : `tuple` [`tuple` [`str`, `str`], ...]
        Fields of its configuration and their values, as Python literals or strings.
    label : `str`, optional
        What results are stored and shown under; made from the overrides when empty.
    """

    name: str
    overrides: tuple[tuple[str, str], ...] = ()
    label: str = ""

    @property
    def title(self) -> str:
        """The label, also a file name."""
        if self.label:
            return self.label
        return self.name + "".join(f"+{field}={value}" for field, value in self.overrides).replace("/", "_")


def run_own(scene: BenchmarkScene, method: MethodSpec) -> tuple[MethodOutput, dict[str, Cost]]:
    """Run one of our methods, or the ideal; return the output and the cost of its steps."""
    if method.name == "ideal":
        with measure_cost() as cost:
            output = subtract_ideal(scene)
        return output, {"subtract": cost}
    algorithm = subtractor_registry[method.name]
    config = algorithm.ConfigClass()
    for field, value in method.overrides:
        setattr(config, field, _literal(value))
    config.validate()
    subtractor = algorithm(config)
    with measure_cost() as start_up:
        _subtract_small_pair()
    science, template = _masked_image(scene, "science"), _masked_image(scene, "template")
    with measure_cost() as candidates_cost:
        candidates = _candidates(scene)

    def subtract() -> SubtractionResult:
        pair = ImagePair.from_images(science, template, scene.science_psf, scene.template_psf)
        return subtractor.subtract(pair, candidates)

    result, cost = least_cost(subtract)
    output = MethodOutput(result.score, result.difference, result.variance, result.psf, dict(result.metadata))
    return output, {"startUp": start_up, "candidates": candidates_cost, "subtract": cost}


def _subtract_small_pair() -> None:
    """Subtract stars on a grid, after which a process has loaded all modules and compiled code that it needs."""
    bounds = Box.from_shape((_SMALL, _SMALL))
    y, x = np.mgrid[:_SMALL, :_SMALL]
    v, u_ = np.mgrid[-12:13, -12:13]
    psf_image = np.exp(-0.5 * (u_**2 + v**2) / 1.5**2)
    psf = PixelBasisPsf.from_callable(lambda x, y: psf_image / psf_image.sum(), bounds, order=0)
    stars = sum(
        np.exp(-0.5 * ((x - column) ** 2 + (y - row) ** 2) / 1.5**2)
        for row in range(32, _SMALL, 32)
        for column in range(32, _SMALL, 32)
    )
    rng = np.random.default_rng(1)
    images = [
        MaskedImage(
            Image((1e3 * stars + rng.normal(size=stars.shape)).astype(np.float32), bbox=bounds, unit=u.nJy),
            mask=Mask(schema=make_mask_schema(), bbox=bounds),
            variance=Image(np.ones(stars.shape, dtype=np.float32), bbox=bounds, unit=u.nJy**2),
        )
        for _ in range(2)
    ]
    pair = ImagePair.from_images(*images, psf, psf)
    for name in OWN_METHODS:
        algorithm = subtractor_registry[name]
        algorithm(algorithm.ConfigClass()).subtract(pair)


def _literal(text: str) -> Any:
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _masked_image(scene: BenchmarkScene, role: str) -> MaskedImage:
    mask = Mask(schema=make_mask_schema(), bbox=scene.bounds)
    mask.set("SATURATED", getattr(scene, f"{role}_bad"))
    return MaskedImage(
        Image(getattr(scene, role), bbox=scene.bounds, unit=u.nJy),
        mask=mask,
        variance=Image(getattr(scene, f"{role}_variance"), bbox=scene.bounds, unit=u.nJy**2),
    )


def _candidates(scene: BenchmarkScene) -> Table:
    """Detect what a method may match the images on, as it would itself, and leave the held-out stars out."""
    background = sep.Background(scene.science, mask=scene.science_bad)
    found = sep.extract(
        scene.science - background.back(),
        10.0,
        err=np.sqrt(scene.science_variance),
        mask=scene.science_bad,
        minarea=5,
        deblend_cont=0.005,
    )
    held_out = scene.truth[np.asarray(scene.truth["heldOut"])]
    keep = np.ones(len(found), dtype=bool)
    if len(held_out) and len(found):
        tree = cKDTree(np.column_stack([held_out["x"], held_out["y"]]))
        distance, _ = tree.query(np.column_stack([found["x"], found["y"]]))
        keep = distance > _HELD_OUT_RADIUS
    return Table({"x": found["x"][keep], "y": found["y"][keep]})

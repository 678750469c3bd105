"""Scenes with truth for the benchmark, made once and kept on disk as plain arrays."""

from __future__ import annotations

__all__ = ["FLUX_SCALE", "PIXEL_SCALE", "BenchmarkScene", "SceneSpec", "load_scene", "make_scene"]

import dataclasses
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from astropy.table import Table
from lsst.images import Box

from lsst.diainspect.masks import PLANES_BAD_FOR_SUBTRACTION, masked_by
from lsst.diainspect.psf import PixelBasisPsf, PolynomialField, measure_psf
from lsst.diainspect.simulation import (
    Coma,
    ObservingConditions,
    SceneConfig,
    SkyGradient,
    WarpedCoadd,
    simulate_pair,
)

PIXEL_SCALE = 0.2
"""Arcseconds a pixel."""

FLUX_SCALE = 1.03
"""Science over template zero point: a 3 % error of the calibration."""

SHIFT = (0.23, -0.17)
"""Displacement of the whole science image from the template [pixel]."""

_SEEING = {"f": (0.9, 0.7), "r": (0.7, 0.9)}
"""Seeing of science image and template [arcsec]: f, the science image is blunter; r, it is sharper."""

_TEMPLATE_VISITS = 5
_TRANSIENTS_PER_MPIX = 100
_VARIABLES_PER_MPIX = 20
_TRANSIENT_SNR = (3.0, 1000.0)
_STAR_DENSITY, _GALAXY_DENSITY = 10.0, 26.0
"""Per square arcminute, stars of 15 to 25 mag and galaxies of 18 to 25 mag: DC2's galaxies, and the stars of moderate
galactic latitude, of which enough remain when the variables are taken out."""

_HELD_OUT_FRACTION = 1.0 / 3.0
"""Part of the bright stars that no method may fit on."""

_HELD_OUT_MAGNITUDES = (15.0, 20.5)

_FORMAT = 3
"""Raised whenever scenes change, so that old ones are made anew."""


@dataclass(frozen=True)
class SceneSpec:
    """What a scene is.

    Parameters
    ----------
    size : `int`
        Side of the images [pixel].
    order : {'f', 'r'}
        Seeing order: science image blunter (0.9 arcsec against 0.7) or sharper than the template.
    psf : {'exact', 'measured'}
        PSFs that methods are given: those the images were drawn with, or what Piff makes of their stars.
    template : {'white', 'warped'}
        Template's noise: white, or correlated by the Lanczos-3 resampling of its exposures.
    jitter : `float`
        Root mean square, in each coordinate, of a displacement of each source on its own [pixel].
    index : `int`
        Number among the scenes of its kind.
    blank : `bool`
        Noise only.
    """

    size: int
    order: Literal["f", "r"] = "f"
    psf: Literal["exact", "measured"] = "exact"
    template: Literal["white", "warped"] = "white"
    jitter: float = 0.05
    index: int = 1
    blank: bool = False

    @property
    def group(self) -> str:
        """Name shared by the scenes that are pooled."""
        blank = "-blank" if self.blank else ""
        return f"{self.size}-{self.order}-{self.psf}-{self.template}-j{self.jitter:g}{blank}"

    @property
    def name(self) -> str:
        """Name of the scene's folder."""
        return f"{self.group}-{self.index}"

    @property
    def seed(self) -> int:
        """Seed of its randomness; the pixels do not depend on which PSFs are handed out."""
        return 2 * self.index + (self.order == "r")

    def conditions(self) -> ObservingConditions:
        """Return the conditions of the simulated visit."""
        science, template = _SEEING[self.order]
        warped = WarpedCoadd(n_epochs=_TEMPLATE_VISITS, n_edges=0, n_rejected=0.0, seeing_scatter=0.05)
        return ObservingConditions(
            science_seeing=science,
            template_seeing=template,
            ellipticity_variation=0.02,
            fwhm_variation=0.03,
            template_epochs=_TEMPLATE_VISITS,
            flux_scale=FLUX_SCALE,
            shift_x=SHIFT[0],
            shift_y=SHIFT[1],
            position_jitter=self.jitter,
            coma=Coma(x=0.06, y=0.03, gradient=0.02),
            sky_gradient=SkyGradient(x=10.0, y=5.0),
            warped_coadd=warped if self.template == "warped" else None,
        )

    def sky(self) -> SceneConfig:
        """Return what the sky holds."""
        mpix = (self.size / 1024) ** 2
        return SceneConfig(
            blank=self.blank,
            star_density=_STAR_DENSITY,
            galaxy_density=_GALAXY_DENSITY,
            galaxy_slope=0.31,
            n_transients=round(_TRANSIENTS_PER_MPIX * mpix),
            transient_snr=_TRANSIENT_SNR,
            host_fraction=0.5,
            fading_fraction=0.25,
            n_variables=round(_VARIABLES_PER_MPIX * mpix),
        )


@dataclass(frozen=True)
class BenchmarkScene:
    """A scene in memory.

    Parameters
    ----------
    spec : `SceneSpec`
        What it is.
    science, template, science_variance, template_variance : `numpy.ndarray`, (size, size), float32
        Pixels [nJy] and their expected variances [nJy^2], the light of the sources included.
    science_bad, template_bad : `numpy.ndarray`, (size, size), bool
        Saturated pixels.
    science_psf, template_psf : `PixelBasisPsf`
        The PSFs that methods are given.
    true_science_psf, true_template_psf : `PixelBasisPsf`
        The PSFs that the images were drawn with.
    truth : `astropy.table.Table`
        Every object, with ``heldOut``: stars that no method may fit on; and ``dx``, ``dy``: where its change appears
        in the difference, x and y in the science image's pixels.
    """

    spec: SceneSpec
    science: np.ndarray
    template: np.ndarray
    science_variance: np.ndarray
    template_variance: np.ndarray
    science_bad: np.ndarray
    template_bad: np.ndarray
    science_psf: PixelBasisPsf
    template_psf: PixelBasisPsf
    true_science_psf: PixelBasisPsf
    true_template_psf: PixelBasisPsf
    truth: Table
    info: dict

    @property
    def bounds(self) -> Box:
        """The pixels."""
        return Box.from_shape(self.science.shape)

    @property
    def bad(self) -> np.ndarray:
        """Pixels saturated in either image."""
        return self.science_bad | self.template_bad

    @property
    def sky_left(self) -> np.ndarray:
        """The slope of the sky that is left in the science image [nJy]."""
        gradient = self.spec.conditions().sky_gradient
        assert gradient is not None
        electrons = gradient.electrons(self.bounds)
        return (electrons * (self.info["njyPerElectron"] * FLUX_SCALE)).astype(np.float32)

    @property
    def science_light(self) -> np.ndarray:
        """Noiseless light of the sources in the science image in units of the sky's sigma."""
        sky = self.info["scienceSkyVariance"]
        scale = self.info["njyPerElectron"] * FLUX_SCALE
        return ((self.science_variance - sky) / scale - self.sky_left) / np.sqrt(sky)


_PLANES = ("science", "template", "science_variance", "template_variance", "science_bad", "template_bad")
_PSFS = ("science_psf", "template_psf", "true_science_psf", "true_template_psf")


def make_scene(spec: SceneSpec, directory: Path) -> Path:
    """Make a scene on disk unless it is there; return its folder.

    Planes are .npy files, PSFs are their polynomial's images, the truth is a table in ECSV.
    """
    folder = directory / "scenes" / spec.name
    expected = {"format": _FORMAT, **dataclasses.asdict(spec)}
    info_file = folder / "info.json"
    if info_file.exists():
        stored = json.loads(info_file.read_text())
        if {name: stored.get(name) for name in expected} == expected:
            return folder
    conditions = spec.conditions()
    start = time.process_time()
    if spec.psf == "exact":
        planes, psfs, truth = _simulate(spec)
    else:
        # The same pixels, whatever PSFs are handed out.
        exact = make_scene(dataclasses.replace(spec, psf="exact"), directory)
        planes, psfs, truth = _with_measured_psfs(load_scene(exact))
    taken = time.process_time() - start
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, plane in planes.items():
        np.save(partial / f"{name}.npy", plane)
    for name, psf in psfs.items():
        np.savez(partial / f"{name}.npz", basis=psf.basis, order=psf.field.order)
    truth.write(partial / "truth.ecsv")
    info = {
        **expected,
        "scienceSkyVariance": conditions.science_sky_variance,
        "templateSkyVariance": conditions.template_sky_variance,
        "njyPerElectron": conditions.njy_per_electron,
        "fluxScale": conditions.flux_scale,
        "simulationCpu" if spec.psf == "exact" else "psfCpu": taken,
    }
    (partial / "info.json").write_text(json.dumps(info, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return folder


_Parts = tuple[dict[str, np.ndarray], dict[str, PixelBasisPsf], Table]
"""Planes, PSFs and truth of a scene, as they are stored."""


def _simulate(spec: SceneSpec) -> _Parts:
    pair = simulate_pair(spec.conditions(), spec.sky(), spec.seed, size=spec.size, visit=spec.index)
    planes = {
        "science": pair.science.image.array,
        "template": pair.template.image.array,
        "science_variance": pair.science.variance.array,
        "template_variance": pair.template.variance.array,
        "science_bad": masked_by(pair.science.mask, PLANES_BAD_FOR_SUBTRACTION),
        "template_bad": masked_by(pair.template.mask, PLANES_BAD_FOR_SUBTRACTION),
    }
    psfs = {
        "science_psf": pair.science_psf,
        "template_psf": pair.template_psf,
        "true_science_psf": pair.true_science_psf,
        "true_template_psf": pair.true_template_psf,
    }
    truth = _with_positions(pair.truth)
    truth["heldOut"] = _held_out(truth, spec)
    return planes, psfs, truth


def _with_measured_psfs(scene: BenchmarkScene) -> _Parts:
    """Return a scene's parts with the PSFs that Piff measures in its images."""
    planes = {name: getattr(scene, name) for name in _PLANES}
    psfs = {name: getattr(scene, name) for name in _PSFS}
    for role in ("science", "template"):
        psfs[f"{role}_psf"] = measure_psf(
            planes[role],
            planes[f"{role}_variance"],
            planes[f"{role}_bad"],
            scene.bounds,
            order=None,
            size=psfs[f"{role}_psf"].size,
            name=role,
        ).psf
    return planes, psfs, scene.truth


def load_scene(folder: Path) -> BenchmarkScene:
    """Read a scene made by `make_scene`."""
    info = json.loads((folder / "info.json").read_text())
    spec = SceneSpec(**{entry.name: info[entry.name] for entry in dataclasses.fields(SceneSpec)})
    planes = {name: np.load(folder / f"{name}.npy") for name in _PLANES}
    bounds = Box.from_shape(planes["science"].shape)
    psfs = {}
    for name in _PSFS:
        with np.load(folder / f"{name}.npz") as stored:
            psfs[name] = PixelBasisPsf(stored["basis"], PolynomialField(bounds, int(stored["order"])))
    return BenchmarkScene(spec=spec, truth=Table.read(folder / "truth.ecsv"), info=info, **planes, **psfs)


def _with_positions(truth: Table) -> Table:
    """Add where each change appears in the difference.

    What is gone from the science image appears where the template has it, moved by what the images have in common;
    its own jitter is that of a source that is not there.
    """
    truth = Table(truth, copy=True)
    gone = np.asarray(truth["scienceFlux"]) == 0
    for axis, shift in (("x", SHIFT[0]), ("y", SHIFT[1])):
        moved = np.asarray(truth[f"template{axis.upper()}"], dtype=float) + shift
        truth[f"d{axis}"] = np.where(gone, moved, np.asarray(truth[axis], dtype=float))
    return truth


def _held_out(truth: Table, spec: SceneSpec) -> np.ndarray:
    magnitude = np.asarray(truth["mag"])
    bright = (truth["kind"] == "star") & (magnitude > _HELD_OUT_MAGNITUDES[0])
    bright &= magnitude < _HELD_OUT_MAGNITUDES[1]
    chance = np.random.default_rng(spec.seed + 7).uniform(size=len(truth))
    return np.asarray(bright) & (chance < _HELD_OUT_FRACTION)

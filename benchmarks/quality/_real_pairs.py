"""Real image pairs, and pairs that others have subtracted, with the difference images that come with them."""

from __future__ import annotations

__all__ = ["REAL_PAIRS", "RealPair", "ReferenceDifference", "data_folder"]

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from lsst.daf.butler.formatters.parquet import arrow_to_astropy
from lsst.images import DifferenceImage, Image, MaskedImage, VisitImage

from lsst.diainspect.ingest import FitsImageSource, FitsPair, NoiseSettings, PixelUnit, read_fits_pair
from lsst.diainspect.subtraction import ImagePair


@dataclass(frozen=True)
class ReferenceDifference:
    """A difference that somebody else made of the same pair.

    Parameters
    ----------
    name : `str`
        What made it.
    difference : `numpy.ndarray`, (height, width)
        Difference, or difference over its sigma; NaN where there is none.
    sigma : `numpy.ndarray`, (height, width), or `None`
        Its sigma in the same unit; `None` where its author does not say.
    psf : `str` or `numpy.ndarray`
        Its PSF, or the method of ours whose difference has the same.
    """

    name: str
    difference: np.ndarray
    sigma: np.ndarray | None
    psf: str | np.ndarray


@dataclass(frozen=True)
class RealPair:
    """A pair of images.

    Parameters
    ----------
    name : `str`
        What the tables call it.
    pair : `ImagePair`
        The images for a subtractor.
    reference : `ReferenceDifference` or `None`
        Difference that comes with it, if there is one.
    changes : `numpy.ndarray`, (N, 2)
        Where changes are known, x and y [pixel].
    images : `tuple` [`VisitImage`, `MaskedImage`]
        Science image and template in nJy.
    """

    name: str
    pair: ImagePair
    reference: ReferenceDifference | None
    changes: np.ndarray
    images: tuple[VisitImage, MaskedImage]


def data_folder() -> Path:
    """Return the folder of the test data; FileNotFoundError where there is none."""
    folder = Path(os.environ.get("DIAINSPECT_TESTDATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no test data in {folder}; set DIAINSPECT_TESTDATA_DIR.")
    return folder


def _as_pair(pair: FitsPair) -> ImagePair:
    return ImagePair.from_images(pair.science, pair.template, pair.science.psf, pair.template.psf)


def _jwst(folder: Path) -> RealPair:
    folder = folder / "pair_jwst_nircam_sfft"

    def only(pattern: str) -> Path:
        (path,) = folder.glob(pattern)
        return path

    science, template = (
        FitsImageSource(
            only(f"input_data__{program}*_stamp.fits.gz"),
            psf=only(f"auxiliary__{program}*WebbPSF.fits.gz"),
            noise=only(f"auxiliary__{program}*noise.fits.gz"),
        )
        for program in ("jw02561", "jw01324")
    )
    reference = np.asarray(fits.getdata(only("4check*SNR.fits.gz")), dtype=float)
    reference[reference == 0] = np.nan
    pair = read_fits_pair(science, template, band="f200w")
    return RealPair(
        "JWST NIRCam F200W",
        _as_pair(pair),
        # Both images were convolved with the other's PSF and the noise made white: ZOGY's difference has that PSF too.
        ReferenceDifference("sfft, cross-convolved", reference, np.ones_like(reference), psf="zogy"),
        np.zeros((0, 2)),
        (pair.science, pair.template),
    )


def _decam(folder: Path) -> RealPair:
    folder = folder / "pair_decam_sfft_decorrelation" / "4check"
    # Five exposures of gain 4 were averaged; the zero point is arbitrary.
    science, template = (
        FitsImageSource(
            folder / f"Stack-DEC-OBS{night}.fits.gz",
            pixel_unit=PixelUnit(zero_point=30.0),
            noise_settings=NoiseSettings(gain=20.0),
        )
        for night in ("04", "18")
    )
    reference = np.asarray(fits.getdata(folder / "FinalDifference.DeCorr.fits.gz"), dtype=float)
    pair = read_fits_pair(science, template, band="i", physical_filter="i_decam")
    return RealPair(
        "DECam i",
        _as_pair(pair),
        ReferenceDifference("sfft, decorrelated", reference, None, psf="al"),
        np.array([[128.6, 127.6]]),
        (pair.science, pair.template),
    )


def _goto(folder: Path) -> RealPair:
    science, template = (
        FitsImageSource(
            folder / "pair_goto_zogyp" / f"{number}.fits.xz",
            pixel_unit=PixelUnit(zero_point=27.149),
            noise_settings=NoiseSettings(gain="sky", saturation=40000.0),
            psf_order=2,
        )
        for number in (1, 2)
    )
    pair = read_fits_pair(science, template)
    return RealPair("GOTO L", _as_pair(pair), None, np.zeros((0, 2)), (pair.science, pair.template))


def _ip_diffim(scene: str) -> Callable[[Path], RealPair]:
    def in_njy(image: VisitImage | DifferenceImage) -> dict:
        # The zero points of the reference are placeholders: its electrons are called nJy.
        return {
            "image": Image(
                image.image.array, bbox=image.bbox, unit=u.nJy, sky_projection=image.sky_projection
            ),
            "mask": image.mask,
            "variance": Image(image.variance.array, bbox=image.bbox, unit=u.nJy**2),
        }

    def read(folder: Path) -> RealPair:
        folder = folder / "ip_diffim_reference" / scene
        science = VisitImage.read(folder / "science.fits")
        template = DifferenceImage.read(folder / "template.fits")
        difference = DifferenceImage.read(folder / "difference_measured.fits")
        science = VisitImage(
            **in_njy(science),
            psf=science.psf,
            obs_info=science.obs_info,
            detector=science.detector,
            band=science.band,
            summary_stats=science.summary_stats,
        )
        psfs = science.psf, template.psf
        template = MaskedImage(**in_njy(template))
        truth = arrow_to_astropy(pq.read_table(folder / "truth.parquet"))
        truth = truth[
            np.asarray(truth["is_variable"]) | (np.asarray(truth["kind"]).astype(str) == "transient")
        ]
        # Positions in the science image are not known for all; the template's are within half a pixel.
        where = [
            np.where(
                np.isfinite(np.asarray(truth[f"{axis}_science"], dtype=float)),
                truth[f"{axis}_science"],
                truth[axis],
            )
            for axis in ("x", "y")
        ]
        return RealPair(
            f"ip_diffim {scene}",
            ImagePair.from_images(science, template, *psfs),
            ReferenceDifference(
                "ip_diffim",
                np.asarray(difference.image.array, dtype=float),
                np.sqrt(np.asarray(difference.variance.array, dtype=float)),
                psf=np.load(folder / "extras.npz")["psf_difference_center"],
            ),
            np.column_stack(where).astype(float),
            (science, template),
        )

    return read


REAL_PAIRS: dict[str, Callable[[Path], RealPair]] = {
    "goto": _goto,
    "jwst": _jwst,
    "decam": _decam,
    "ip_diffim_f1k_1": _ip_diffim("f1k_1"),
    "ip_diffim_r1k_1": _ip_diffim("r1k_1"),
}
"""Readers of the pairs by short name; each takes the folder of the test data."""

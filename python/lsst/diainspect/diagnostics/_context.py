"""What is around a source: neighbours, host, depth of the template, edges, stars, and the local match."""

from __future__ import annotations

__all__ = ["ContextConfig", "ContextDiagnostic"]

from typing import ClassVar

import astropy.units as u
import lsst.pex.config as pexConfig
import numpy as np
import scipy.spatial
from astropy.table import Table

from ..compiled import compiled
from ..psf import noise_equivalent_area
from ..stamps import StampModel, StampSet
from ._diagnostic import Diagnostic, DiagnosticColumn, DiagnosticConfig, diagnostic_registry

_AB_ZERO = 31.4
"""AB magnitude of 1 nJy."""

_KERNEL_SIGMAS = 6.0
"""Reach of the Gaussian for neighbours: beyond, single precision does not see it at its peak."""

_ROWS = 16
"""Rows that are smoothed along their columns together."""


class ContextConfig(DiagnosticConfig):
    """Configuration of `ContextDiagnostic`."""

    minNeighbourSnr = pexConfig.RangeField[float](
        doc="Least signal-to-noise ratio of a neighbour's peak, smoothed with a Gaussian of the PSF's width.",
        default=10.0,
        min=1.0,
    )
    neighbourRadius = pexConfig.RangeField[float](
        doc="Largest distance of a neighbour [pixel]; one farther than the stamp reaches is not seen.",
        default=20.0,
        min=2.0,
    )
    brightStarFlux = pexConfig.RangeField[float](
        doc="Least flux of a bright star [nJy]; the default is magnitude 18.", default=2.3e5, min=0.0
    )
    depthSnr = pexConfig.RangeField[float](
        doc="Signal-to-noise ratio at which the template's limiting magnitude is stated.",
        default=5.0,
        min=0.1,
    )


class ContextDiagnostic(Diagnostic):
    """Surroundings of a source, from its stamps and, where they are known, from its detector.

    Neighbours are the local maxima (of 3 x 3 pixels) of science image and template smoothed with a Gaussian of their
    PSF's width, above minNeighbourSnr of the smoothed noise; their flux is that of a point source with the smoothed
    peak. The nearest to the source, the source itself included if it is seen there, is reported with its distance;
    on the template it is the host or the static source.

    templateLimitingMagnitude = 31.4 - 2.5 log10(depthSnr sqrt(v A)) with the median variance v of the template's
    pixels and the noise area A of its PSF. hostSurfaceBrightness is the template's mean in 3 x 3 pixels about the
    source over the area of a pixel on the sky.

    kernelSum = sum(h_t) / sum(h_s) and the kernel's centroid, that of h_t minus that of h_s, follow from the filters
    that the difference applies to template and science image; a kernel that convolves the science image shows as its
    inverse.

    Limits: no background is taken off, so that neighbours are missed or made up where one was left; blends
    within a PSF's width are one neighbour. Distances to edge, star and kernel source are NaN where the bounds or
    tables are not known.
    """

    ConfigClass: ClassVar[type[DiagnosticConfig]] = ContextConfig
    needs: ClassVar[frozenset[str]] = frozenset({"difference", "science", "template"})
    config: ContextConfig

    @property
    def columns(self) -> dict[str, DiagnosticColumn]:
        """Neighbours, ratios, depth, distances and the local match."""
        columns: dict[str, DiagnosticColumn] = {}
        for side, where in (("science", "science image"), ("template", "template")):
            columns |= {
                f"{side}NeighbourDistance": DiagnosticColumn(
                    "float32", u.arcsec, f"Distance of the nearest source on the {where}, within the stamp."
                ),
                f"{side}NeighbourDistancePixels": DiagnosticColumn(
                    "float32", u.pix, f"Distance of the nearest source on the {where}, within the stamp."
                ),
                f"{side}NeighbourFlux": DiagnosticColumn(
                    "float32", u.nJy, f"Flux of the nearest source on the {where}, taken as a point source."
                ),
            }
        return columns | {
            "differenceOverScience": DiagnosticColumn(
                "float32", None, "|difference| over science: both summed with the Gaussian at the source."
            ),
            "templateLimitingMagnitude": DiagnosticColumn(
                "float32", u.mag, "AB magnitude of a point source at depthSnr on the template."
            ),
            "hostSurfaceBrightness": DiagnosticColumn(
                "float32", u.nJy / u.arcsec**2, "Surface brightness of the template at the source."
            ),
            "edgeDistance": DiagnosticColumn("float32", u.pix, "Distance to the nearest edge of the image."),
            "brightStarDistance": DiagnosticColumn("float32", u.pix, "Distance to the nearest bright star."),
            "brightStarFlux": DiagnosticColumn("float32", u.nJy, "Flux of the nearest bright star."),
            "kernelSourceDistance": DiagnosticColumn(
                "float32", u.pix, "Distance to the nearest source on which the images were matched."
            ),
            "kernelSum": DiagnosticColumn("float32", None, "Sum of the kernel that matches the template."),
            "kernelCentroidX": DiagnosticColumn("float32", u.pix, "Centroid of that kernel."),
            "kernelCentroidY": DiagnosticColumn("float32", u.pix, "Centroid of that kernel."),
        }

    def measure(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Measure; see `Diagnostic.measure`."""
        values = {}
        area = _pixel_area(stamps)
        for side in ("science", "template"):
            distance, flux = self._nearest_neighbour(stamps, side)
            values[f"{side}NeighbourDistancePixels"] = distance
            values[f"{side}NeighbourDistance"] = distance * np.sqrt(area)
            values[f"{side}NeighbourFlux"] = flux
        sums = [_central_sum(stamps, plane, reach=2) for plane in ("difference", "science")]
        with np.errstate(invalid="ignore", divide="ignore"):
            values["differenceOverScience"] = np.abs(sums[0]) / sums[1]
            values["hostSurfaceBrightness"] = _central_sum(stamps, "template", reach=1) / 9.0 / area
        values["templateLimitingMagnitude"] = self._limiting_magnitude(stamps)
        return values | self._distances(stamps) | _local_match(stamps)

    def _nearest_neighbour(self, stamps: StampSet, side: str) -> tuple[np.ndarray, np.ndarray]:
        """Return distance [pixel] and flux of the nearest source on one image; NaN without."""
        n = len(stamps)
        size = min(2 * int(self.config.neighbourRadius) + 3, stamps.size)
        sigma = _psf_sigma(stamps, side)
        kernel = np.exp(-0.5 * (np.arange(np.ceil(_KERNEL_SIGMAS * sigma) + 1) / sigma) ** 2)
        if f"{side}Variance" in stamps.planes:
            noise = np.empty(n)
            _estimate_noise(stamps.weight(side), size, max(1, size // 8), noise)
        else:
            pixels = stamps.cropped(size).good_pixels(side)
            sample = np.sort(pixels.reshape(n, -1)[:, ::7], axis=1)
            noise = sample[:, sample.shape[1] // 2] - sample[:, int(0.159 * sample.shape[1])]
        # Noise of a sum with weights exp(-r^2 / 2 s^2), whose squares add up to pi s^2.
        threshold = self.config.minNeighbourSnr * noise * np.sqrt(np.pi) * sigma
        distance, peak = np.full(n, np.nan), np.full(n, np.nan)
        _find_nearest_peaks(
            stamps.good_pixels(side),
            size,
            kernel.astype(np.float32),
            threshold.astype(np.float32),
            np.ascontiguousarray(stamps.dx),
            np.ascontiguousarray(stamps.dy),
            self.config.neighbourRadius,
            distance,
            peak,
        )
        # The smoothed peak of a Gaussian of unit flux and the same width is 1 / 2.
        return distance, 2.0 * peak

    def _limiting_magnitude(self, stamps: StampSet) -> np.ndarray:
        n = len(stamps)
        if not {"templateVariance", "templatePsf"} <= stamps.provides:
            return np.full(n, np.nan)
        weight = stamps.weight("template").reshape(n, -1)[:, ::5]
        # Of the pixels that are good, the median of the inverse variance.
        ordered = np.sort(weight, axis=1)
        n_good = (weight > 0).sum(axis=1)
        middle = np.minimum(weight.shape[1] - n_good + n_good // 2, weight.shape[1] - 1)
        inverse = ordered[np.arange(n), middle]
        area = 4.0 * np.pi * _psf_sigma(stamps, "template") ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            limit = self.config.depthSnr * np.sqrt(area / inverse)
            return np.where(n_good > 0, _AB_ZERO - 2.5 * np.log10(limit), np.nan)

    def _distances(self, stamps: StampSet) -> dict[str, np.ndarray]:
        """Return distances to what lies beyond the stamps."""
        context = stamps.context
        x, y = (np.asarray(stamps.sources[name], dtype=float) for name in ("x", "y"))
        unknown = np.full(len(stamps), np.nan)
        values = dict.fromkeys(
            ("edgeDistance", "brightStarDistance", "brightStarFlux", "kernelSourceDistance"), unknown
        )
        if context.bounds is not None:
            box = context.bounds
            values["edgeDistance"] = np.minimum.reduce(
                [
                    x - (box.x.start - 0.5),
                    box.x.stop - 0.5 - x,
                    y - (box.y.start - 0.5),
                    box.y.stop - 0.5 - y,
                ]
            )
        stars = context.stars
        table = context.kernel_sources
        if stars is None and table is not None:
            stars = Table({"x": table["x"], "y": table["y"], "flux": table["scienceFlux"]})
        if stars is not None:
            flux = np.asarray(stars["flux"], dtype=float)
            bright = flux >= self.config.brightStarFlux
            distance, index = _nearest(x, y, stars[bright])
            values["brightStarDistance"] = distance
            if bright.any():
                values["brightStarFlux"] = np.where(
                    np.isfinite(distance), flux[bright][np.minimum(index, bright.sum() - 1)], np.nan
                )
        if table is not None:
            values["kernelSourceDistance"] = _nearest(x, y, table[np.asarray(table["used"])])[0]
        return values


@compiled
def _estimate_noise(weight: np.ndarray, size: int, step: int, noise: np.ndarray) -> None:
    """Fill the root of the harmonic mean variance of every so many of the inner pixels; NaN without good ones."""
    low = weight.shape[1] // 2 - size // 2
    for n in range(len(weight)):
        total, used = 0.0, 0
        first = 0
        for i in range(size):
            row = weight[n, low + i, low : low + size]
            for j in range(first, size, step):
                total += row[j]
                used += row[j] > np.float32(0.0)
            # The rows count as one long one.
            first = (first - size) % step
        noise[n] = np.sqrt(used / total)


@compiled
def _find_nearest_peaks(
    pixels: np.ndarray,
    size: int,
    kernel: np.ndarray,
    threshold: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    radius: float,
    distance: np.ndarray,
    peak: np.ndarray,
) -> None:
    """Fill distance and height of the local maximum above the threshold that is nearest to each source.

    Maxima are those of the inner ``size`` pixels smoothed along both axes with a kernel, which is given from its
    centre outwards. Those at the rim have no neighbours to compare with and are none.
    """
    low = pixels.shape[1] // 2 - size // 2
    reach = len(kernel) - 1
    # Rows with zeros at both ends, below one another and with rows of zeros around, so that a loop is one long one.
    width = size + 2 * reach
    padded = np.zeros((size + 2 * reach) * width, np.float32)
    columns = np.empty((size, width), np.float32)
    smooth = np.empty((size, size), np.float32)
    columns_done, row_done = np.empty(size // _ROWS + 1, np.bool_), np.empty(size, np.bool_)
    kernel_sum = kernel[0]
    for k in range(1, reach + 1):
        kernel_sum += np.float32(2.0) * kernel[k]
    for n in range(len(pixels)):
        limit = threshold[n]
        least = np.float32(0.9999) * limit / kernel_sum
        for i in range(size):
            start = (i + reach) * width + reach
            source, target = pixels[n, low + i, low : low + size], padded[start : start + size]
            for j in range(size):
                target[j] = source[j]
        columns_done[:], row_done[:] = False, False
        nearest = np.inf
        # From the source's row outwards, because most of those that have a neighbour have it close by.
        own_y = size // 2 + dy[n]
        up = max(int(np.ceil(own_y)), 1) if np.isfinite(own_y) else size
        down = min(up - 1, size - 2)
        while up < size - 1 or down > 0:
            upwards = down <= 0 or (up < size - 1 and up - own_y < own_y - down)
            y = up if upwards else down
            if upwards:
                up += 1
            else:
                down -= 1
            if abs(y - own_y) > min(radius, nearest):
                break
            # A call takes as long as some rows.
            if not columns_done[y // _ROWS]:
                _smooth_columns_about(padded, y, width, kernel, columns, columns_done)
            # Most rows have nothing, and most of those cannot: the largest pixel all over the kernel is not enough.
            # Not the largest is looked for, but any: the compiler makes vectors of that loop and not of the other.
            possible, row = False, columns[y]
            for x in range(width):
                possible |= row[x] > least
            if not possible:
                continue
            _smooth_row(columns, y, kernel, smooth, row_done)
            above, row = False, smooth[y]
            for x in range(1, size - 1):
                above |= row[x] > limit
            if not above:
                continue
            for other in (y - 1, y + 1):
                _smooth_columns_about(padded, other, width, kernel, columns, columns_done)
                _smooth_row(columns, other, kernel, smooth, row_done)
            for x in range(1, size - 1):
                value = smooth[y, x]
                if not value > limit:
                    continue
                highest = True
                for step_y in range(-1, 2):
                    for step_x in range(-1, 2):
                        highest &= value >= smooth[y + step_y, x + step_x]
                away = np.hypot(x - size // 2 - dx[n], y - size // 2 - dy[n])
                if highest and away <= radius and away < nearest:
                    nearest = away
                    distance[n], peak[n] = away, value


@compiled
def _smooth_columns_about(
    padded: np.ndarray, y: int, width: int, kernel: np.ndarray, columns: np.ndarray, done: np.ndarray
) -> None:
    """Fill a row smoothed along the columns, and the others of its group, unless that was done."""
    group = y // _ROWS
    if done[group]:
        return
    done[group] = True
    first = group * _ROWS
    _smooth_columns(padded[first * width :], width, kernel, columns[first : first + _ROWS].reshape(-1))


@compiled
def _smooth_columns(padded: np.ndarray, width: int, kernel: np.ndarray, columns: np.ndarray) -> None:
    """Fill the rows of an image smoothed along its columns."""
    reach = len(kernel) - 1
    centre = padded[reach * width :]
    for i in range(len(columns)):
        columns[i] = kernel[0] * centre[i]
    for k in range(1, reach + 1, 2):
        # Two steps at once, for the sums are read and written each time.
        first = kernel[k]
        second = kernel[k + 1] if k < reach else np.float32(0.0)
        next_k = min(k + 1, reach)
        above, below = padded[(reach - k) * width :], padded[(reach + k) * width :]
        above_2, below_2 = padded[(reach - next_k) * width :], padded[(reach + next_k) * width :]
        for i in range(len(columns)):
            columns[i] += first * (above[i] + below[i]) + second * (above_2[i] + below_2[i])


@compiled
def _smooth_row(
    columns: np.ndarray, y: int, kernel: np.ndarray, smooth: np.ndarray, done: np.ndarray
) -> None:
    """Fill one row smoothed along it too, unless that was done."""
    if done[y]:
        return
    done[y] = True
    reach, size = len(kernel) - 1, smooth.shape[1]
    row, target = columns[y], smooth[y]
    centre = row[reach:]
    for j in range(size):
        target[j] = kernel[0] * centre[j]
    for k in range(1, reach + 1):
        left, right = row[reach - k :], row[reach + k :]
        for j in range(size):
            target[j] += kernel[k] * (left[j] + right[j])


def _pixel_area(stamps: StampSet) -> np.ndarray:
    """Return the area of a pixel on the sky [arcsec^2]; NaN where stamps do not tell."""
    if "pixelToSky" not in stamps.sources.colnames:
        return np.full(len(stamps), np.nan)
    derivatives = np.asarray(stamps.sources["pixelToSky"], dtype=float) * 3600.0
    return np.abs(derivatives[:, 0, 0] * derivatives[:, 1, 1] - derivatives[:, 0, 1] * derivatives[:, 1, 0])


def _central_sum(stamps: StampSet, plane: str, reach: int) -> np.ndarray:
    """Return the sum of the pixels of a small square about the central pixel; NaN if one of them is."""
    centre = stamps.size // 2
    inner = slice(max(centre - reach, 0), centre + reach + 1)
    return stamps.planes[plane][:, inner, inner].sum(axis=(1, 2), dtype=float)


def _psf_sigma(stamps: StampSet, side: str) -> float:
    """Return the width of the Gaussian with the noise area of the stamps' median PSF [pixel]; 1.5 without PSFs."""
    name = f"{side}Psf"
    if name not in stamps.models or len(stamps) == 0:
        return 1.5
    # A PSF changes little over the sources of a chunk.
    few = stamps.models[name][:: max(1, len(stamps) // 16)].images()
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.nanmedian(noise_equivalent_area(few[np.abs(few).max(axis=(1, 2)) > 0]))
    return float(np.sqrt(area / (4.0 * np.pi))) if np.isfinite(area) else 1.5


def _nearest(x: np.ndarray, y: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return distances to the nearest row of a table [pixel], NaN if it has none, and the rows."""
    places = np.stack([np.asarray(table[name], dtype=float) for name in ("x", "y")], axis=-1)
    finite = np.flatnonzero(np.isfinite(places).all(axis=1))
    located = np.isfinite(x) & np.isfinite(y)
    distance, index = np.full(len(x), np.nan), np.zeros(len(x), dtype=int)
    if len(finite) and located.any():
        tree = scipy.spatial.cKDTree(places[finite])
        distance[located], nearest = tree.query(np.stack([x, y], axis=-1)[located])
        index[located] = finite[nearest]
    return distance, index


def _local_match(stamps: StampSet) -> dict[str, np.ndarray]:
    """Return sum and centroid of the kernel that the filters amount to."""
    n = len(stamps)
    if not {"scienceFilter", "templateFilter"} <= stamps.provides:
        return {name: np.full(n, np.nan) for name in ("kernelSum", "kernelCentroidX", "kernelCentroidY")}
    (s_sum, s_x, s_y), (t_sum, t_x, t_y) = (
        _moments(stamps.models[f"{side}Filter"]) for side in ("science", "template")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "kernelSum": t_sum / s_sum,
            "kernelCentroidX": t_x / t_sum - s_x / s_sum,
            "kernelCentroidY": t_y / t_sum - s_y / s_sum,
        }


def _moments(model: StampModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sums of images, and of images times x and y from the central pixel: linear, so those of a basis."""
    images = np.asarray(model.basis, dtype=float)
    grid = np.arange(images.shape[-1]) - images.shape[-1] // 2
    moments = np.stack(
        [
            images.sum(axis=(1, 2)),
            (images.sum(axis=1) * grid).sum(axis=1),
            (images.sum(axis=2) * grid).sum(axis=1),
        ]
    )
    if model.coefficients is not None:
        moments = moments @ np.asarray(model.coefficients, dtype=float).T
    return moments[0], moments[1], moments[2]


diagnostic_registry.register("context", ContextDiagnostic)

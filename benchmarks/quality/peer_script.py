"""Runs one peer on one scene, in the peer's own environment: numpy, scipy and the peer are all that is there.

``python peer_script.py PEER SCENE_FOLDER OUTPUT_FOLDER KNOWN``, the last as JSON: what is known of the scene, and
how many runs there are, of which the one with the least CPU time counts.
Writes difference.npy, score.npy, and cost.json.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BLANKED = 14
"""Pixels around saturated ones that are blanked: 20 are not counted, and ois's kernel reaches 5, sfft's 9 of which the
outer ones are faint."""

WARM_UP = 384
"""Side of the part of a scene with which what is compiled is compiled [pixel]."""


def main(peer: str, folder: Path, output: Path, known: dict) -> None:
    """Load a scene, run the peer, and write what it makes and costs."""
    names = ("science", "template", "science_variance", "template_variance", "science_bad", "template_bad")
    scene = {name: np.load(folder / f"{name}.npy") for name in names}
    for name in ("science_psf", "template_psf"):
        with np.load(folder / f"{name}.npz") as stored:
            scene[name] = stored["basis"][0] / stored["basis"][0].sum()
    info = {**json.loads((folder / "info.json").read_text()), **known}
    function = {"sfft": run_sfft, "ois": run_ois, "zogyp": run_zogyp}[peer]
    prepare(scene)
    fft_pair = fft_pair_seconds(scene["science"].shape)
    # Compilation and imports are paid once a process, not once an image: a run on a part is not counted.
    if peer == "sfft":
        function(
            {**scene, **{name: scene[name][:WARM_UP, :WARM_UP].copy() for name in (*names, "bad")}}, info
        )
    costs = []
    for _ in range(info["nRuns"]):
        result: dict = {}
        own_scene = {name: np.copy(array) for name, array in scene.items()}
        start, wall, resident = cpu(), time.perf_counter(), reset_peak()
        result = function(own_scene, info)
        costs.append(
            {
                "cpu": cpu() - start,
                "wall": time.perf_counter() - wall,
                "memory": max(status("VmHWM:") - resident, 0) / 1024.0**2,
            }
        )
    cost = {**min(costs, key=lambda own: own["cpu"]), "memory": max(own["memory"] for own in costs)}
    for name, array in result.items():
        np.save(output / f"{name}.npy", np.asarray(array, dtype=np.float32))
    (output / "cost.json").write_text(json.dumps({"cost": cost, "fftPair": fft_pair}))


def prepare(scene: dict) -> None:
    """Take the sky off and blank saturated stars, for no peer takes a mask for them.

    Cores are blanked in both images out to where a kernel's reach stays inside what the benchmark does not count, so
    that they neither dominate a fit nor leave rims.
    """
    from scipy.ndimage import binary_dilation

    bad = scene["science_bad"] | scene["template_bad"]
    scene["bad"] = binary_dilation(bad, structure=np.ones((3, 3)), iterations=BLANKED)
    for name in ("science", "template"):
        image = scene[name].astype(np.float64)
        scene[name] = np.where(scene["bad"], 0.0, image - sky(image, ~scene["bad"]))


def cpu() -> float:
    """Return the CPU time of this process and its children [s]."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(entry.ru_utime + entry.ru_stime for entry in used)


def status(name: str) -> int:
    """Return a line of /proc/self/status [KiB]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}.")


def reset_peak() -> int:
    """Begin to count the peak memory anew; return what is resident now [KiB]."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS:")


def fft_pair_seconds(shape: tuple) -> float:
    """Return the CPU time of a float32 rfft2 and irfft2, the best of ten [s]."""
    import scipy.fft

    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    best = np.inf
    for _ in range(10):
        start = time.process_time()
        scipy.fft.irfft2(scipy.fft.rfft2(image), s=shape)
        best = min(best, time.process_time() - start)
    return best


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve an image with a small kernel."""
    from scipy.signal import fftconvolve

    return fftconvolve(image, kernel, mode="same")


def matched(difference: np.ndarray, psf: np.ndarray, scene: dict) -> np.ndarray:
    """Correlate a difference with its PSF, over what the noise of sky and sources makes of it up to a factor.

    The factor does not matter: scores are measured in units of their sigma in blank sky.
    """
    variance = scene["science_variance"] + scene["template_variance"].astype(np.float64)
    mirrored = psf[::-1, ::-1]
    return convolve(difference, mirrored) / np.sqrt(convolve(variance, mirrored**2))


def sky(image: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return a quadratic sky, fitted to pixels that are not sources."""
    height, width = image.shape
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    model = np.full(image.shape, np.median(image))
    for _ in range(4):
        residual = image - model
        sigma = 1.4826 * np.median(np.abs(residual[usable]))
        blank = usable & (np.abs(residual) < 2.5 * sigma)
        model = terms @ np.linalg.lstsq(terms[blank], image[blank], rcond=None)[0]
    return model


def steady_sources(scene: dict, info: dict) -> np.ndarray:
    """Return the pixels of sources that both images show equally bright, bool: what sfft's sparse mode fits.

    As there sources are matched, and those that deviate by 0.12 mag and by 5 of its errors are variable; sep finds them
    in place of SExtractor.
    """
    import sep
    from scipy.ndimage import binary_dilation
    from scipy.spatial import cKDTree

    sep.set_extract_pixstack(1_000_000)
    catalogues, labels, flux, error = {}, {}, {}, {}
    for role in ("science", "template"):
        image = np.ascontiguousarray(scene[role])
        sigma = float(np.sqrt(info[f"{role}SkyVariance"]))
        catalogues[role], labels[role] = sep.extract(
            image, 3.0, err=sigma, mask=scene["bad"], minarea=5, segmentation_map=True
        )
        found = catalogues[role]
        flux[role], error[role], _ = sep.sum_circle(image, found["x"], found["y"], 8.0, err=sigma)
    science, template = catalogues["science"], catalogues["template"]
    distance, match = cKDTree(np.column_stack([template["x"], template["y"]])).query(
        np.column_stack([science["x"], science["y"]])
    )
    ratio = flux["science"] / np.where(flux["template"][match] > 0, flux["template"][match], np.nan)
    snr = np.minimum(flux["science"] / error["science"], (flux["template"] / error["template"])[match])
    paired = (distance < 1.5) & (snr > 10.0) & (ratio > 0) & (science["flag"] == 0)
    magnitudes = -2.5 * np.log10(np.where(paired, ratio, 1.0))
    deviation = np.abs(magnitudes - np.median(magnitudes[paired]))
    kept = np.flatnonzero(paired & (deviation < np.minimum(0.12, np.maximum(0.04, 5.0 * 1.54 / snr))))
    sources = np.isin(labels["science"], kept + 1) | np.isin(labels["template"], match[kept] + 1)
    return binary_dilation(sources, iterations=3) & ~binary_dilation(scene["bad"], iterations=15)


def run_sfft(scene: dict, info: dict) -> dict:
    """SFFT on the CPU, fitted to steady sources alone, and its decorrelation for the middle of the image."""
    from astropy.io import fits
    from sfft.CustomizedPacket import Customized_Packet
    from sfft.utils.DeCorrelationCalculator import DeCorrelation_Calculator
    from sfft.utils.SFFTSolutionReader import Realize_MatchingKernel

    sigma = np.sqrt(info["scienceSkyVariance"])
    keep = steady_sources(scene, info)
    sharper = info["order"] == "f"
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            name: os.path.join(folder, f"{name}.fits") for name in ("r", "s", "mr", "ms", "d", "solution")
        }
        for name, role in (("s", "science"), ("r", "template")):
            fits.writeto(paths[name], scene[role])
            fits.writeto(paths[f"m{name}"], np.where(keep, scene[role], 0.0))
        Customized_Packet.CP(
            FITS_REF=paths["r"],
            FITS_SCI=paths["s"],
            FITS_mREF=paths["mr"],
            FITS_mSCI=paths["ms"],
            ForceConv="REF" if sharper else "SCI",
            GKerHW=9,
            # The sky is off already, as in its sparse mode.
            BGPolyOrder=0,
            FITS_DIFF=paths["d"],
            FITS_Solution=paths["solution"],
            BACKEND_4SUBTRACT="Numpy",
            NUM_CPU_THREADS_4SUBTRACT=2,
            VERBOSE_LEVEL=0,
        )
        difference = fits.getdata(paths["d"]).astype(float)
        middle = 0.5 * np.array(difference.shape[::-1]) + 0.5
        kernel = Realize_MatchingKernel(np.array([middle])).FromFITS(paths["solution"])[0]
    noise = {"science": sigma, "template": np.sqrt(info["templateSkyVariance"])}
    still, convolved = ("science", "template") if sharper else ("template", "science")
    decorrelation = DeCorrelation_Calculator.DCC(
        MK_JLst=[None],
        SkySig_JLst=[noise[still]],
        MK_ILst=[kernel],
        SkySig_ILst=[noise[convolved]],
        VERBOSE_LEVEL=0,
    )
    # SFFT's arrays are transposed.
    decorrelation = decorrelation.T
    psf = convolve(np.pad(scene[f"{still}_psf"], decorrelation.shape[0] // 2), decorrelation)
    difference = convolve(difference, decorrelation)
    return {"difference": difference, "score": matched(difference, psf, scene)}


def run_ois(scene: dict, info: dict) -> dict:
    """Bramich's pixel kernel of 11 x 11, the template convolved.

    The sky is off already: fitted with equal weights for all pixels, as ois does it, bright stars would decide it.
    """
    import ois

    difference = ois.optimal_system(
        scene["science"], scene["template"], kernelshape=(11, 11), bkgdegree=None, method="Bramich"
    )[0]
    difference = np.asarray(difference)
    return {"difference": difference, "score": matched(difference, scene["science_psf"], scene)}


def run_zogyp(scene: dict, info: dict) -> dict:
    """zogyp's core on the whole image, its default, given what it would get from SExtractor, PSFEx and its alignment.

    That is the mean PSFs, flux ratio, noise, and rms offset; and the template moved by the common shift of the images.
    """
    from scipy.ndimage import fourier_shift
    from zogyp.zip import ZOGY

    shape = scene["science"].shape
    psfs = []
    for role in ("template", "science"):
        psf = scene[f"{role}_psf"]
        canvas = np.zeros(shape)
        canvas[: psf.shape[0], : psf.shape[1]] = psf
        half = psf.shape[0] // 2
        psfs.append(np.roll(canvas, (-half, -half), axis=(0, 1)))
    science_sigma, template_sigma = np.sqrt(info["scienceSkyVariance"]), np.sqrt(info["templateSkyVariance"])
    x, y = info["shift"]
    template = np.fft.ifft2(fourier_shift(np.fft.fft2(scene["template"]), (y, x))).real
    difference, _, score, _, _ = ZOGY(
        template,
        scene["science"],
        *psfs,
        template_sigma,
        science_sigma,
        1.0,
        info["fluxScale"],
        scene["template_variance"].astype(float),
        scene["science_variance"].astype(float),
        info["jitter"],
        info["jitter"],
    )
    return {"difference": difference, "score": score}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))

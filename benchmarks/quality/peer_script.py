"""Runs one peer on one scene, in the peer's own environment: numpy, scipy and the peer are all that is there.

``python peer_script.py PEER SCENE_FOLDER OUTPUT_FOLDER``. Writes difference.npy or score.npy, and cost.json.
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


def main(peer: str, folder: Path, output: Path) -> None:
    """Load a scene, run the peer, and write what it makes and costs."""
    names = ("science", "template", "science_variance", "template_variance", "science_bad", "template_bad")
    scene = {name: np.load(folder / f"{name}.npy") for name in names}
    for name in ("science_psf", "template_psf"):
        with np.load(folder / f"{name}.npz") as stored:
            scene[name] = stored["basis"][0] / stored["basis"][0].sum()
    info = json.loads((folder / "info.json").read_text())
    function = {"sfft": run_sfft, "ois": run_ois, "zogyp": run_zogyp}[peer]
    fill(scene)
    fft_pair = fft_pair_seconds(scene["science"].shape)
    # Compilation and imports are paid once a process, not once an image: the second run is what counts.
    if peer == "sfft":
        function(scene, info)
    start, wall, resident = cpu(), time.perf_counter(), reset_peak()
    result = function(scene, info)
    cost = {
        "cpu": cpu() - start,
        "wall": time.perf_counter() - wall,
        "memory": max(status("VmHWM:") - resident, 0) / 1024.0**2,
    }
    for name, array in result.items():
        np.save(output / f"{name}.npy", np.asarray(array, dtype=np.float32))
    (output / "cost.json").write_text(json.dumps({"cost": cost, "fftPair": fft_pair}))


def fill(scene: dict) -> None:
    """Replace saturated pixels by the median of the sky: no peer takes a mask for them."""
    bad = scene["science_bad"] | scene["template_bad"]
    scene["bad"] = bad
    for name in ("science", "template"):
        scene[name] = np.where(bad, np.median(scene[name]), scene[name]).astype(np.float64)


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


def matched(difference: np.ndarray, psf: np.ndarray, variance: float) -> np.ndarray:
    """Correlate a difference with its PSF, in units of the sigma that white noise of a variance would have."""
    return convolve(difference, psf[::-1, ::-1]) / np.sqrt(variance * (psf**2).sum())


def without_sky(image: np.ndarray) -> np.ndarray:
    """Take a quadratic sky off, fitted to pixels that are not sources: sfft and zogyp's core want images without it."""
    height, width = image.shape
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    model = np.full(image.shape, np.median(image))
    for _ in range(4):
        residual = image - model
        sigma = 1.4826 * np.median(np.abs(residual))
        sky = np.abs(residual) < 2.5 * sigma
        model = terms @ np.linalg.lstsq(terms[sky], image[sky], rcond=None)[0]
    return image - model


def run_sfft(scene: dict, info: dict) -> dict:
    """SFFT on the CPU with masks around bright sources, and its decorrelation for the middle of the image."""
    from astropy.io import fits
    from scipy.ndimage import binary_dilation
    from sfft.CustomizedPacket import Customized_Packet
    from sfft.utils.DeCorrelationCalculator import DeCorrelation_Calculator
    from sfft.utils.SFFTSolutionReader import Realize_MatchingKernel

    sigma = np.sqrt(info["scienceSkyVariance"])
    bright = (scene["science"] > 10 * sigma) & ~binary_dilation(scene["bad"], iterations=30)
    # Lone pixels of noise do not help; the surroundings of sources do.
    keep = binary_dilation(bright, iterations=10) & ~binary_dilation(scene["bad"], iterations=30)
    sharper = info["order"] == "f"
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            name: os.path.join(folder, f"{name}.fits") for name in ("r", "s", "mr", "ms", "d", "solution")
        }
        for name, role in (("s", "science"), ("r", "template")):
            image = without_sky(scene[role])
            fits.writeto(paths[name], image)
            fits.writeto(paths[f"m{name}"], np.where(keep, image, 0.0))
        Customized_Packet.CP(
            FITS_REF=paths["r"],
            FITS_SCI=paths["s"],
            FITS_mREF=paths["mr"],
            FITS_mSCI=paths["ms"],
            ForceConv="REF" if sharper else "SCI",
            GKerHW=9,
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
    both = convolve(np.pad(kernel.T, decorrelation.shape[0] // 2), decorrelation)
    variance = noise[still] ** 2 * (decorrelation**2).sum() + noise[convolved] ** 2 * (both**2).sum()
    return {"difference": difference, "score": matched(difference, psf, variance)}


def run_ois(scene: dict, info: dict) -> dict:
    """Bramich's pixel kernel of 11 x 11, the template convolved, the background a polynomial."""
    import ois

    difference = ois.optimal_system(
        scene["science"], scene["template"], kernelshape=(11, 11), bkgdegree=2, method="Bramich"
    )[0]
    difference = np.asarray(difference)
    variance = info["scienceSkyVariance"] + info["templateSkyVariance"]
    return {"difference": difference, "score": matched(difference, scene["science_psf"], variance)}


def run_zogyp(scene: dict, info: dict) -> dict:
    """zogyp's core, given the mean PSFs, the flux ratio and the noise, which it would get from its other programs."""
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
    difference, _, score, _, _ = ZOGY(
        without_sky(scene["template"]),
        without_sky(scene["science"]),
        *psfs,
        template_sigma,
        science_sigma,
        1.0,
        info.get("fluxScale", 1.03),
        scene["template_variance"].astype(float),
        scene["science_variance"].astype(float),
        info["jitter"],
        info["jitter"],
    )
    return {"difference": difference, "score": score}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

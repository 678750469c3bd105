"""An existing difference image as one more method: of a simulated repository, and ip_diffim's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.ndimage
import scipy.spatial
import yaml
from astropy.stats import mad_std
from astropy.table import Table
from lsst.daf.butler import Butler
from lsst.daf.butler.formatters.parquet import arrow_to_astropy
from lsst.images import Box, DifferenceImage, Image, MaskedImage, VisitImage
from lsst.pipe.base import Pipeline

from commands import run_pipeline
from lsst.diainspect.comparison import join_sources
from lsst.diainspect.detection import DetectionSettings, detect_dia_sources
from lsst.diainspect.masks import mask_to_words
from lsst.diainspect.psf import PixelBasisPsf
from lsst.diainspect.simulation import SimulatedPair
from lsst.diainspect.subtraction import (
    AlConfig,
    AlSubtractor,
    ImagePair,
    NoOverlapError,
    SubtractionResult,
    UnitMismatchError,
    ZogyConfig,
    ZogySubtractor,
    adopt_difference,
    convolve_varying,
    make_difference_image,
)

DATA = (
    Path(os.environ.get("DIAINSPECT_TESTDATA_DIR", Path(__file__).parents[2] / "shared" / "data"))
    / "ip_diffim_reference"
)
MATCH_RADIUS = 3.0


def pair_of(simulated: SimulatedPair) -> ImagePair:
    return ImagePair.from_images(
        simulated.science, simulated.template, simulated.science_psf, simulated.template_psf
    )


@pytest.fixture(scope="module")
def subtracted(small_pair: SimulatedPair) -> tuple[ImagePair, SubtractionResult, DifferenceImage]:
    pair = pair_of(small_pair)
    config = AlConfig()
    config.backgroundCellSize = 0
    result = AlSubtractor(config).subtract(pair)
    return pair, result, make_difference_image(result, pair, small_pair.science, small_pair.template)


def test_pixels_are_taken_over_and_the_score_has_unit_sigma(
    subtracted: tuple[ImagePair, SubtractionResult, DifferenceImage],
) -> None:
    pair, original, difference = subtracted
    adopted = adopt_difference(pair, difference, difference.psf)
    good = ~(original.bad | original.spread | original.edge)
    np.testing.assert_array_equal(adopted.difference[good], original.difference[good])
    # The original score knows of jitter and of the error of the match next to stars, this one does not.
    assert mad_std((adopted.score - original.score)[good]) < 0.05
    assert np.array_equal(adopted.edge, original.edge)


def test_filters_of_the_psfs_are_nearly_those_that_made_the_difference(
    subtracted: tuple[ImagePair, SubtractionResult, DifferenceImage],
) -> None:
    pair, original, difference = subtracted
    adopted = adopt_difference(pair, difference, difference.psf, psf_from="filters")
    filtered = convolve_varying(pair.science, adopted.science_filter)
    filtered -= convolve_varying(pair.template, adopted.template_filter)
    good = ~(original.bad | original.spread | original.edge)
    residual = (filtered - original.difference) / np.sqrt(original.variance)
    # The fitted kernel is free at frequencies that no source has; what is as wide as a source agrees.
    assert mad_std(scipy.ndimage.uniform_filter(residual, 3)[good]) < 0.08
    # Without decorrelation it would be 0.018.
    assert np.abs(adopted.psf.centre() - original.psf.centre()).max() < 0.002 * original.psf.centre().max()


def test_a_difference_that_was_not_decorrelated_has_the_plain_filters(
    subtracted: tuple[ImagePair, SubtractionResult, DifferenceImage],
) -> None:
    pair, _, difference = subtracted
    adopted = adopt_difference(pair, difference, difference.psf, is_decorrelated=False, psf_from="filters")
    centre = adopted.science_filter.size // 2
    image = adopted.science_filter.centre()
    assert image[centre, centre] == pytest.approx(1.0)
    assert np.abs(np.delete(image.ravel(), image.size // 2)).max() < 1e-9
    np.testing.assert_allclose(adopted.psf.centre(), pair.science_psf.centre(), atol=1e-6)


def test_difference_must_cover_the_images(
    subtracted: tuple[ImagePair, SubtractionResult, DifferenceImage],
) -> None:
    pair, _, difference = subtracted
    part = difference[Box.factory[50:200, 50:200]]
    with pytest.raises(NoOverlapError, match="does not cover"):
        adopt_difference(pair, part, difference.psf)


def test_difference_must_have_a_flux_unit(
    subtracted: tuple[ImagePair, SubtractionResult, DifferenceImage],
) -> None:
    pair, _, difference = subtracted
    counts = MaskedImage(
        Image(difference.image.array, bbox=difference.bbox, unit=u.electron),
        mask=difference.mask,
        variance=Image(difference.variance.array, bbox=difference.bbox, unit=u.electron**2),
    )
    with pytest.raises(UnitMismatchError, match="electron"):
        adopt_difference(pair, counts, difference.psf)


# --- in a repository -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def butler(simulate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Butler]:
    """Three methods, of which the third is the first one's difference image under another name."""
    repo = simulate(
        size=320,
        seed=8,
        detectors=[0],
        visits=[{"visit": 1, "science_seeing": 0.9, "template_seeing": 0.75}],
    )
    ingredients = "resource://lsst.diainspect/pipelines/_ingredients/"
    content = {
        "description": "An existing difference beside two of ours.",
        "instrument": "lsst.diainspect.instruments.DiaSim",
        "imports": [
            f"{ingredients}{name}.yaml"
            for name in ("subtractAl", "subtractZogy", "adoptDifference", "compare")
        ],
        "parameters": {"methods": ["al", "zogy", "ipdiffim"], "differenceName": "al_difference_image"},
    }
    pipeline = tmp_path_factory.mktemp("pipeline") / "adopt.yaml"
    pipeline.write_text(yaml.safe_dump(content, sort_keys=False))
    run_pipeline(repo, "u/test/adopt", pipeline=str(pipeline)).check()
    with Butler.from_config(str(repo), collections="u/test/adopt", instrument="DiaSim") as butler:
        yield butler


def test_it_joins_the_comparison(butler: Butler) -> None:
    comparison = butler.get("subtraction_comparison", visit=1, detector=0)
    bright = np.asarray(comparison["al_snr"]) > 7
    assert bright.sum() >= 5
    # The same pixels give the same sources.
    assert np.asarray(comparison["ipdiffim_found"])[bright].mean() > 0.8
    both = bright & np.asarray(comparison["ipdiffim_found"])
    ratio = np.asarray(comparison["ipdiffim_psfFlux"])[both] / np.asarray(comparison["al_psfFlux"])[both]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "kind",
    ["dia_source", "dia_stamps", "dia_diagnostics", "difference_metrics", "detector_maps", "calibration"],
)
def test_every_step_ran_on_it(butler: Butler, kind: str) -> None:
    assert len(butler.get(f"ipdiffim_{kind}", visit=1, detector=0)) > 0


def test_its_metadata_say_that_the_filters_are_approximate(butler: Butler) -> None:
    assert butler.get("adoptIpdiffim_metadata", visit=1, detector=0)["adoptIpdiffim"]["filtersAreApproximate"]


def test_quality_of_the_kernel_is_there_for_methods_that_have_one(butler: Butler) -> None:
    quality = butler.get("al_kernel_quality", visit=1, detector=0)
    assert len(quality) == 81
    assert str(quality["centroidX"].unit) == "pix"
    assert quality["chi2HeldOut"][0] > quality["chi2Fitted"][0] > 0
    assert not list(butler.registry.queryDatasetTypes("zogy_kernel_quality"))


@pytest.mark.parametrize("name", ["LSSTCam/inspect-drp-ipdiffim", "LSSTCam-imSim/inspect-ipdiffim"])
def test_pipelines_with_it_feed_the_same_inputs_to_all_methods(name: str) -> None:
    graph = Pipeline.from_uri(f"resource://lsst.diainspect/pipelines/{name}.yaml").to_graph()
    configs = [node.config for node in graph.tasks.values()]
    assert {config.templateAs for config in configs if hasattr(config, "templateAs")} == {"components"}
    adopted, subtracted = (graph.tasks[label].config for label in ("adoptIpdiffim", "subtractAl"))
    assert adopted.connections.scienceName == subtracted.connections.scienceName
    assert adopted.connections.templateName == subtracted.connections.templateName
    assert list(graph.tasks["compareSubtractions"].config.methods) == ["al", "zogy", "ipdiffim"]


# --- ip_diffim's own -------------------------------------------------------------------------------------------


def as_njy(image: VisitImage) -> MaskedImage:
    """Call the electrons of the reference nJy: its zero points are placeholders."""
    return MaskedImage(
        Image(image.image.array, bbox=image.bbox, unit=u.nJy, sky_projection=image.sky_projection),
        mask=image.mask,
        variance=Image(image.variance.array, bbox=image.bbox, unit=u.nJy**2),
    )


type Reference = tuple[Table, dict[str, tuple[SubtractionResult, Table]]]


@pytest.fixture(scope="module", params=["f1k_1", "r1k_1"])
def reference(request: pytest.FixtureRequest) -> Reference:
    """The truth, and by method the result and its sources."""
    if not DATA.is_dir():
        pytest.skip(f"The ip_diffim reference is not there ({DATA}); set DIAINSPECT_TESTDATA_DIR.")
    directory = DATA / request.param
    science = VisitImage.read(directory / "science.fits")
    template = DifferenceImage.read(directory / "template.fits")
    stored = DifferenceImage.read(directory / "difference.fits")
    pair = ImagePair.from_images(as_njy(science), as_njy(template), science.psf, template.psf)
    truth = arrow_to_astropy(pq.read_table(directory / "truth.parquet"))
    psf = PixelBasisPsf.from_point_spread_function(stored.psf, pair.bounds, order=3)
    results = {
        "al": AlSubtractor(AlConfig()).subtract(pair),
        "zogy": ZogySubtractor(ZogyConfig()).subtract(pair),
        "ipdiffim": adopt_difference(pair, as_njy(stored), psf),
        "ipdiffimFilters": adopt_difference(pair, as_njy(stored), psf, psf_from="filters"),
    }
    found = {}
    for method, result in results.items():
        observation = stored if method.startswith("ipdiffim") else science
        image = make_difference_image(result, pair, observation, template)
        sources = detect_dia_sources(
            result.score,
            result.difference,
            result.variance,
            mask_to_words(image.mask),
            result.psf,
            science.sky_projection,
            DetectionSettings(),
        )
        found[method] = (result, sources)
    return truth, found


def positions(truth: Table) -> np.ndarray:
    x, y = np.asarray(truth["x_science"], dtype=float), np.asarray(truth["y_science"], dtype=float)
    known = np.isfinite(x)
    return np.stack([np.where(known, x, truth["x"]), np.where(known, y, truth["y"])], axis=-1)


def separation(sources: Table, places: np.ndarray) -> np.ndarray:
    tree = scipy.spatial.cKDTree(np.stack([sources["x"], sources["y"]], axis=-1))
    return tree.query(places)[0]


def test_transients_are_found_in_ip_diffims_difference(reference: Reference) -> None:
    truth, found = reference
    result, sources = found["ipdiffim"]
    transients = truth[np.asarray(truth["kind"]).astype(str) == "transient"]
    places = positions(transients)
    column, row = np.rint(places.T).astype(int)
    usable = ~(result.edge | result.bad)[row, column] & (np.asarray(transients["snr"]) > 10)
    assert usable.sum() > 50
    assert (separation(sources, places[usable]) < MATCH_RADIUS).mean() > 0.97


def test_sky_of_ip_diffims_score_has_unit_sigma(reference: Reference) -> None:
    _, found = reference
    for method in ("ipdiffim", "ipdiffimFilters"):
        result, _ = found[method]
        good = ~(result.edge | result.bad)
        assert mad_std(result.score[good]) == pytest.approx(1.0, abs=0.06)


def test_three_methods_are_compared_on_the_reference(reference: Reference) -> None:
    truth, found = reference
    methods = ("al", "zogy", "ipdiffim")
    joined = join_sources({method: found[method][1] for method in methods}, {}, MATCH_RADIUS)
    common = joined[np.asarray(joined["nMethods"]) == 3]
    assert len(common) > 90
    changing = truth[
        np.asarray(truth["is_variable"]) | (np.asarray(truth["kind"]).astype(str) == "transient")
    ]
    tree = scipy.spatial.cKDTree(positions(changing))
    false = {}
    for method in methods:
        sources = found[method][1]
        distance, _ = tree.query(np.stack([sources["x"], sources["y"]], axis=-1))
        false[method] = int((distance > MATCH_RADIUS).sum())
    # Residuals of bright stars, which ip_diffim's difference has and whose error its variance does not know.
    assert false["al"] < false["ipdiffim"]
    assert false["zogy"] < false["ipdiffim"]

"""Detection: injected point sources come back, noise is counted as theory says, columns are those of the DPDD."""

from __future__ import annotations

import pickle
from importlib import resources

import astropy.units as u
import numpy as np
import pytest
import scipy.ndimage
import yaml

from detection_field import (
    PIXEL_SCALES,
    POSITION_ANGLE,
    PSF_SIGMA,
    X_FIRST,
    Y_FIRST,
    Field,
    grid_field,
    match,
    projection,
)
from lsst.diainspect.detection import (
    DIA_SOURCE_COLUMNS,
    OWN_COLUMNS,
    PIXEL_FLAGS,
    DetectionSettings,
    TooManyDetectionsError,
    empty_dia_sources,
    find_peaks,
    measure_pixel_flags,
)
from lsst.diainspect.detection._peaks import recentre_peaks
from lsst.diainspect.masks import MASK_BITS


@pytest.fixture(scope="module", params=[20.0, 200.0])
def recovered(request):
    field = grid_field(request.param)
    sources = field.detect()
    return field, sources, sources[match(field, sources)]


def test_injected_sources_of_both_signs_are_found_and_nothing_else(recovered):
    field, sources, matched = recovered
    # False detections: 512^2 pixels at 5 sigma give 0.0005.
    assert len(sources) == 144
    np.testing.assert_array_equal(matched["isNegative"], field.snr < 0)
    assert (np.diff(sources["snr"]) <= 0).all()
    assert not matched["centroid_flag"].any()
    assert not matched["psfFlux_flag"].any()


def test_scores_of_sources_are_their_signal_to_noise(recovered):
    field, _, matched = recovered
    # The maximum over two coordinates lies above the truth by 1 / (S/N) on average; the parabola takes off 0.1 %.
    snr = np.abs(field.snr).mean()
    assert matched["snr"].mean() == pytest.approx(snr + 1.0 / snr, abs=4.0 / 12 + 0.001 * snr)


def test_flux_is_unbiased_and_its_pulls_have_unit_width(recovered):
    field, _, matched = recovered
    np.testing.assert_allclose(matched["psfFluxErr"], field.flux_error, rtol=1e-3)
    sign = np.sign(field.flux)
    # The likelihood's maximum over two coordinates lies above the truth by sigma^2 / flux on average.
    expected = np.abs(field.flux) + field.flux_error**2 / np.abs(field.flux)
    pull = (sign * matched["psfFlux"] - expected) / matched["psfFluxErr"]
    assert abs(pull.mean()) < 4.0 / np.sqrt(144)
    assert abs(pull.std() - 1.0) < 4.0 / np.sqrt(2 * 144)


def test_chi_square_of_point_sources_is_that_of_noise(recovered):
    _, _, matched = recovered
    n = matched["psfNdata"][0]
    assert (matched["psfNdata"] == n).all()
    assert matched["psfChi2"].mean() == pytest.approx(n - 3, abs=4.0 * np.sqrt(2.0 * n / 144))


def test_position_pulls_have_unit_width(recovered):
    field, _, matched = recovered
    for name in ("x", "y"):
        pull = (matched[name] - getattr(field, name)) / matched[f"{name}Err"]
        assert abs(pull.mean()) < 4.0 / np.sqrt(144)
        assert abs(pull.std() - 1.0) < 4.0 / np.sqrt(2 * 144)
    # The error of a centroid is at least sigma sqrt(2) / (S/N) for a Gaussian in white noise.
    least = PSF_SIGMA * np.sqrt(2.0) / abs(field.snr[1])
    assert least < matched["xErr"].mean() < 1.3 * least


def test_sky_position_and_its_pulls_agree_with_the_projection(recovered):
    field, _, matched = recovered
    truth = projection().pixel_to_sky(x=field.x, y=field.y)
    found = projection().pixel_to_sky(x=np.asarray(matched["x"]), y=np.asarray(matched["y"]))
    np.testing.assert_allclose(matched["ra"], found.ra.deg, rtol=1e-14)
    np.testing.assert_allclose(matched["dec"], found.dec.deg, rtol=1e-14)
    east = (matched["ra"] - truth.ra.deg) * np.cos(truth.dec.rad) / matched["raErr"]
    north = (matched["dec"] - truth.dec.deg) / matched["decErr"]
    for pull in (east, north):
        assert abs(pull.mean()) < 4.0 / np.sqrt(144)
        assert abs(pull.std() - 1.0) < 4.0 / np.sqrt(2 * 144)
    cos, sin = np.cos(POSITION_ANGLE), np.sin(POSITION_ANGLE)
    x_error, y_error = (matched[f"{v}Err"] * s / 3600 for v, s in zip("xy", PIXEL_SCALES, strict=True))
    # Errors of x and y of a round PSF are uncorrelated up to the noise's cut of the core at whole pixels.
    np.testing.assert_allclose(matched["raErr"], np.hypot(cos * x_error, sin * y_error), rtol=0.02)
    np.testing.assert_allclose(matched["decErr"], np.hypot(sin * x_error, cos * y_error), rtol=0.02)


def test_many_chunks_of_sources_are_measured_like_one(monkeypatch):
    field = grid_field(20.0)
    whole = field.detect()
    monkeypatch.setattr("lsst.diainspect.detection._measure._CHUNK", 10)
    chunked = field.detect()
    for name in whole.colnames:
        np.testing.assert_array_equal(chunked[name], whole[name])


def test_columns_have_the_declared_types_and_units():
    for sources in (grid_field(20.0).detect(), Field([], [], []).detect(), empty_dia_sources(3)):
        assert sources.colnames == list(DIA_SOURCE_COLUMNS)
        for name, column in DIA_SOURCE_COLUMNS.items():
            assert sources[name].dtype == np.dtype(column.dtype), name
            assert sources[name].unit == column.unit, name
            assert sources[name].description == column.doc
            assert column.doc


def test_columns_are_those_of_the_dpdd():
    schemas = pytest.importorskip("lsst.sdm.schemas")
    text = resources.files(schemas).joinpath("apdb.yaml").read_text()
    (table,) = [table for table in yaml.safe_load(text)["tables"] if table["name"] == "DiaSource"]
    dpdd = {column["name"]: column for column in table["columns"]}
    types = {
        "long": "int64",
        "int": "int32",
        "short": "int16",
        "double": "float64",
        "float": "float32",
        "boolean": "bool",
    }
    assert set(DIA_SOURCE_COLUMNS) - set(dpdd) == set(OWN_COLUMNS)
    for name, column in DIA_SOURCE_COLUMNS.items():
        if name in OWN_COLUMNS:
            continue
        # Pixel coordinates are float64 on purpose: float32 is good to 0.0002 pixel at column 4000 only.
        if name in ("x", "y"):
            assert column.dtype == "float64"
        elif dpdd[name]["datatype"] in ("char", "string"):
            assert np.dtype(column.dtype).kind == "U"
        else:
            assert column.dtype == types[dpdd[name]["datatype"]], name
        unit = dpdd[name].get("fits:tunit")
        assert (column.unit or u.dimensionless_unscaled) == u.Unit(unit or ""), name


def test_peaks_of_smooth_noise_are_as_many_as_theory_says():
    width, threshold, n = 2.0, 3.5, 2048
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(n, n)).astype(np.float32)
    score = scipy.ndimage.gaussian_filter(noise, width, mode="wrap") * np.sqrt(4.0 * np.pi) * width
    peaks = find_peaks(score, np.ones((n, n), dtype=bool), threshold, 1.5)
    # Density of maxima above nu of a smoothed Gaussian field, whose gradient has variance 1 / (2 s^2) an axis.
    expected = n**2 * threshold * np.exp(-0.5 * threshold**2) / (2.0**2.5 * np.pi**1.5 * width**2)
    for found in (peaks.score > 0, peaks.score < 0):
        assert found.sum() == pytest.approx(expected, abs=4.0 * np.sqrt(expected))


def test_peaks_agree_with_a_maximum_filter():
    rng = np.random.default_rng(8)
    score = scipy.ndimage.gaussian_filter(rng.normal(size=(200, 300)), 1.0)
    score /= score.std()
    valid = rng.random(score.shape) > 0.02
    separation = 3.3
    y, x = np.mgrid[-4:5, -4:5]
    disk = x**2 + y**2 <= separation**2
    certain, possible = set(), set()
    for sign in (1, -1):
        signed = np.where(valid, sign * score, -np.inf)
        highest = scipy.ndimage.maximum_filter(signed, footprint=disk, mode="constant", cval=-np.inf)
        for pixels, least in ((certain, 2.0), (possible, 1.7)):
            y, x = np.nonzero((signed >= least) & (signed == highest))
            pixels |= {(sign, yi, xi) for yi, xi in zip(y, x, strict=True)}
    peaks = find_peaks(score, valid, 2.0, separation)
    found = list(zip(np.sign(peaks.score), peaks.y, peaks.x, strict=True))

    def at(peak, pixel):
        return peak[0] == pixel[0] and all(
            abs(a - b) <= 0.5 for a, b in zip(peak[1:], pixel[1:], strict=True)
        )

    # A peak between the pixels can be above the threshold when no pixel is.
    assert all(sum(at(peak, pixel) for peak in found) == 1 for pixel in certain)
    assert all(any(at(peak, pixel) for pixel in possible) for peak in found)
    assert len(certain) < len(found) < len(possible)
    assert np.abs(peaks.score).min() >= 2.0
    assert (np.diff(np.abs(peaks.score)) <= 0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_peak_of_a_tilted_gaussian_is_found_exactly(sign):
    y, x = np.mgrid[:21, :31]
    dx, dy = x - 15.3, y - 9.6
    score = sign * 100.0 * np.exp(-0.05 * dx**2 - 0.09 * dy**2 - 0.03 * dx * dy)
    peaks = find_peaks(score, np.ones(score.shape, dtype=bool), 90.0, 1.5)
    assert (peaks.x[0], peaks.y[0]) == pytest.approx((15.3, 9.6), abs=1e-12)
    assert peaks.score[0] == pytest.approx(sign * 100.0, rel=1e-12)


def test_peak_with_negative_neighbours_is_that_of_a_parabola():
    y, x = np.mgrid[:9, :9]
    score = 10.0 - 8.0 * (x - 4.25) ** 2 - 6.0 * (y - 3.8) ** 2
    peaks = find_peaks(score, score > -50.0, 9.0, 1.5)
    (peak,) = np.flatnonzero(peaks.score > 0)
    assert (peaks.x[peak], peaks.y[peak], peaks.score[peak]) == pytest.approx((4.25, 3.8, 10.0), abs=1e-12)


def test_a_plateau_is_one_peak():
    score = np.zeros((30, 30))
    score[10:12, 10:12] = 7.0
    score[20, 5:8] = -7.0
    peaks = find_peaks(score, np.ones(score.shape, dtype=bool), 5.0, 3.0)
    assert len(peaks.x) == 2


def test_peaks_beside_masked_pixels_do_not_use_their_values():
    score = np.zeros((9, 9))
    score[4, 4], score[4, 5], score[4, 3] = 6.0, np.nan, 5.0
    score[3, 4] = 1e6
    valid = np.isfinite(score)
    valid[3, 4] = False
    peaks = find_peaks(score, valid, 5.5, 2.0)
    assert (peaks.x[0], peaks.y[0]) == (4.0, 4.0)


def test_peaks_closer_than_the_separation_are_one_source():
    for distance, n in ((3.0, 1), (12.0, 2)):
        field = Field(
            [X_FIRST + 100.0, X_FIRST + 100.0 + distance], [Y_FIRST + 100.0] * 2, [50.0, 40.0], noise=0.0
        )
        assert len(field.detect()) == n


@pytest.mark.parametrize("plane", DetectionSettings().exclude_planes)
def test_nothing_is_detected_in_excluded_pixels(plane):
    field = Field(
        [X_FIRST + 100.3, X_FIRST + 200.0], [Y_FIRST + 100.0, Y_FIRST + 200.0], [50.0, 50.0], noise=0.0
    )
    field.mask(plane, slice(90, 111), slice(90, 111))
    sources = field.detect()
    assert len(sources) == 1
    assert sources["x"][0] == pytest.approx(X_FIRST + 200.0, abs=1e-3)
    assert len(field.detect(exclude_planes=())) == 2


def test_flux_does_not_depend_on_values_of_bad_pixels():
    field = Field([X_FIRST + 100.3], [Y_FIRST + 100.0], [50.0], noise=0.0)
    field.mask("COSMIC_RAY", slice(97, 99), slice(98, 105))
    field.difference[97:99, 98:105] = 1e7
    field.variance[103, 100] = 0.0
    field.difference[104, 100] = np.nan
    (source,) = field.detect()
    assert source["psfFlux"] == pytest.approx(field.flux[0], rel=1e-3)
    assert source["x"] == pytest.approx(field.x[0], abs=1e-3)
    assert source["psfFluxErr"] > 1.05 * field.flux_error
    assert source["pixelFlags_cr"]
    assert not source["pixelFlags_crCenter"]


def test_source_with_no_good_pixels_is_flagged():
    field = Field([X_FIRST + 100.0], [Y_FIRST + 100.0], [50.0], noise=0.0)
    field.difference[:] = np.nan
    (source,) = field.detect()
    assert source["centroid_flag"]
    assert source["psfFlux_flag"]
    assert source["psfFlux_flag_noGoodPixels"]
    assert np.isnan(source["psfFlux"])
    assert np.isnan(source["xErr"])
    assert np.isnan(source["raErr"])
    assert (source["x"], source["y"]) == pytest.approx((field.x[0], field.y[0]), abs=0.01)


def test_source_at_the_edge_is_measured_and_flagged():
    field = Field(
        [X_FIRST + 1.0, X_FIRST + 510.0, X_FIRST + 256.0],
        [Y_FIRST + 256.0, Y_FIRST + 510.0, Y_FIRST + 256.0],
        [60.0] * 3,
    )
    sources = field.detect()
    matched = sources[match(field, sources)]
    np.testing.assert_array_equal(matched["psfFlux_flag_edge"], [True, True, False])
    np.testing.assert_array_equal(matched["pixelFlags_edge"], [True, True, False])
    assert (np.abs(matched["psfFlux"] - field.flux) < 5.0 * matched["psfFluxErr"]).all()


def test_centroid_that_runs_away_is_flagged_and_the_peak_kept():
    field = Field([X_FIRST + 100.0], [Y_FIRST + 100.0], [50.0], noise=0.0)
    # The score has a peak where the difference has only the flank of another source.
    field.score[:] = 0.0
    field.score[100, 104] = 8.0
    (source,) = field.detect()
    assert source["centroid_flag"]
    assert (source["x"], source["y"]) == (X_FIRST + 104.0, Y_FIRST + 100.0)
    assert np.isnan(source["xErr"])
    assert np.isfinite(source["psfFlux"])


def test_pixel_flags_are_raised_by_their_planes_within_their_radius():
    size, radius = 21, 4.0
    for name, flag in PIXEL_FLAGS.items():
        for plane in flag.planes:
            words = np.zeros((3, size, size), dtype=np.uint32)
            bit = np.uint32(1 << MASK_BITS[plane])
            words[0, 11, 11] = bit
            words[1, 10, 14] = bit
            words[2, 13, 13] = bit
            flags = measure_pixel_flags(words, radius)
            np.testing.assert_array_equal(flags[name], [True, not flag.center, False], err_msg=name)
    assert not any(
        values.any() for values in measure_pixel_flags(np.zeros((2, 9, 9), np.uint32), 3.0).values()
    )


def test_too_many_detections_fail_with_the_numbers():
    field = grid_field(20.0)
    with pytest.raises(TooManyDetectionsError, match=r"144 peaks .* at most 26 .* maxPerMegapixel") as raised:
        field.detect(max_per_megapixel=100.0)
    assert raised.value.metadata == {"nPeaks": 144, "nAllowed": 26}
    again = pickle.loads(pickle.dumps(raised.value))
    assert again.metadata == raised.value.metadata
    assert str(again) == str(raised.value)


def test_the_limit_is_per_area_in_which_something_can_be_detected():
    field = grid_field(20.0)
    assert len(field.detect(max_per_megapixel=600.0)) == 144
    field.mask("NO_DATA", slice(0, 160), slice(None))
    kept = int((field.y - Y_FIRST > 165).sum())
    allowed = int(400.0 * 352 * 512 * 1e-6)
    with pytest.raises(TooManyDetectionsError, match=rf"peaks .* at most {allowed} ") as raised:
        field.detect(max_per_megapixel=400.0)
    assert raised.value.metadata["nPeaks"] >= kept


def test_blank_and_fully_masked_images_have_no_sources():
    field = Field([], [], [], noise=0.0)
    assert len(field.detect()) == 0
    field = grid_field(20.0)
    field.mask("NO_DATA", slice(None), slice(None))
    assert len(field.detect()) == 0
    field = grid_field(20.0)
    field.score[:] = np.nan
    assert len(field.detect()) == 0


def test_a_bright_source_on_a_flat_topped_score_is_found_once_at_its_peak():
    y, x = np.mgrid[:101, :101]
    source = 1000.0 * np.exp(-0.5 * ((x - 50.3) ** 2 + (y - 49.6) ** 2) / 2.0**2)
    plateau = np.minimum(source, 22.0)
    rng = np.random.default_rng(5)
    plateau += 0.3 * rng.normal(size=plateau.shape)
    peaks = find_peaks(plateau, np.ones(plateau.shape, dtype=bool), 5.0, 2.0)
    moved = recentre_peaks(peaks, source, np.ones(source.shape, dtype=bool), 0.5, 10.0, 6.0, 2.0)
    near = np.hypot(moved.x - 50.3, moved.y - 49.6) < 1.0
    assert np.count_nonzero(near & (moved.score > 15)) == 1
    # The vertex of a parabola through a Gaussian is within a few per cent of a pixel of its centre.
    assert np.hypot(moved.x[near][0] - 50.3, moved.y[near][0] - 49.6) < 0.05

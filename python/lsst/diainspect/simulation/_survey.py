"""A simulated survey in a butler repository: visits times detectors of science images, templates and truth."""

from __future__ import annotations

__all__ = ["BrokenDetector", "SurveyConfig", "VisitPlan", "default_survey", "read_survey", "write_survey"]

import dataclasses
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml  # type: ignore[import-untyped]
from astropy.coordinates import SkyCoord
from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType
from lsst.daf.butler.progress import Progress
from lsst.images import VisitImage

from lsst.diainspect.instruments import (
    DiaSim,
    insert_exposure_records,
    make_tangent_projection,
    pixel_region,
)

from ._conditions import EFFECTS, ObservingConditions
from ._scene import SceneConfig
from ._simulated_pair import SimulatedPair, exposure_record, simulate_pair

_LOG = logging.getLogger(__name__)

type Breakage = Literal["template_no_data", "science_no_data", "nan_block", "no_template"]
_BREAKAGES = ("template_no_data", "science_no_data", "nan_block", "no_template")

_DATASET_TYPES = {
    "visit_image": "VisitImage",
    "template_detector": "DifferenceImage",
    "dia_truth": "ArrowAstropy",
    "dia_truth_artefact": "ArrowAstropy",
}


@dataclass(frozen=True)
class VisitPlan:
    """One visit of a survey.

    Parameters
    ----------
    visit : `int`
        Visit number.
    conditions : `ObservingConditions`
        Its conditions.
    """

    visit: int
    conditions: ObservingConditions = field(default_factory=ObservingConditions)


@dataclass(frozen=True)
class BrokenDetector:
    """A detector whose data are spoilt on purpose, to see that the others do not suffer.

    Parameters
    ----------
    detector : `int`
        Detector number.
    how : {'template_no_data', 'science_no_data', 'nan_block', 'no_template'}
        The template or the science image is all NaN and NO_DATA; a quarter of the science image is NaN without
        a flag; the template is not written.
    visit : `int`, optional
        Visit; all visits when omitted.
    """

    detector: int
    how: Breakage = "template_no_data"
    visit: int | None = None

    def __post_init__(self) -> None:
        if self.how not in _BREAKAGES:
            raise ValueError(f"how must be one of {_BREAKAGES}, got {self.how!r}.")


@dataclass(frozen=True)
class SurveyConfig:
    """A survey to simulate.

    Parameters
    ----------
    visits : `tuple` [`VisitPlan`, ...]
        Visits, all of one pointing.
    detectors : `tuple` [`int`, ...]
        Detectors of `lsst.diainspect.instruments.DiaSim`, 0 to 3.
    size : `int`
        Side of a detector [pixel].
    seed : `int`
        Seed of all randomness.
    scene : `SceneConfig`
        What the sky holds.
    boresight : `tuple` [`float`, `float`]
        Pointing, ICRS right ascension and declination [deg].
    broken : `tuple` [`BrokenDetector`, ...]
        Detectors to spoil.
    """

    visits: tuple[VisitPlan, ...]
    detectors: tuple[int, ...] = (0, 1)
    size: int = DiaSim.DEFAULT_SIZE
    seed: int = 1
    scene: SceneConfig = field(default_factory=SceneConfig)
    boresight: tuple[float, float] = (62.0, -37.0)
    broken: tuple[BrokenDetector, ...] = ()

    def __post_init__(self) -> None:
        if not self.visits:
            raise ValueError("A survey needs at least one visit.")
        numbers = [plan.visit for plan in self.visits]
        if len(set(numbers)) != len(numbers):
            raise ValueError(f"Visit numbers of a survey must differ, got {numbers}.")
        known = [layout.id for layout in DiaSim.camera().detectors]
        for detector in self.detectors:
            if detector not in known:
                raise ValueError(f"{DiaSim.getName()} has detectors {known}, got {detector}.")
        if not self.detectors or len(set(self.detectors)) != len(self.detectors):
            raise ValueError(f"detectors must be at least one, each once, got {list(self.detectors)}.")
        for entry in self.broken:
            if entry.detector not in self.detectors or entry.visit not in (None, *numbers):
                raise ValueError(
                    f"Visit {entry.visit}, detector {entry.detector} is to be spoilt but not in the survey "
                    f"(visits {numbers}, detectors {list(self.detectors)})."
                )
        if self.size < 64:
            raise ValueError(f"size must be at least 64 pixels, got {self.size}.")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}.")


def default_survey(
    n_visits: int = 2,
    n_detectors: int = 2,
    *,
    size: int = DiaSim.DEFAULT_SIZE,
    seed: int = 1,
    scene: SceneConfig | None = None,
) -> SurveyConfig:
    """Return a survey that takes turns between a science image blunter and one sharper than its template.

    Parameters
    ----------
    n_visits, n_detectors : `int`, optional
        Visits, numbered from 1, and detectors, numbered from 0.
    size : `int`, optional
        Side of a detector [pixel].
    seed : `int`, optional
        Seed of all randomness.
    scene : `SceneConfig`, optional
        What the sky holds.
    """
    if n_visits < 1 or n_detectors < 1:
        raise ValueError(f"A survey needs visits and detectors, got {n_visits} and {n_detectors}.")
    seeings = ((1.0, 0.8), (0.75, 0.95))
    visits = []
    for index in range(n_visits):
        science, template = seeings[index % len(seeings)]
        conditions = ObservingConditions(science_seeing=science, template_seeing=template)
        visits.append(VisitPlan(index + 1, conditions))
    return SurveyConfig(
        visits=tuple(visits),
        detectors=tuple(range(n_detectors)),
        size=size,
        seed=seed,
        scene=scene if scene is not None else SceneConfig(),
    )


def read_survey(path: str | os.PathLike[str]) -> SurveyConfig:
    """Read a survey from a YAML file.

    The file holds the fields of `SurveyConfig`; ``conditions`` are those common to all visits, and each entry
    of ``visits`` is a visit number and what differs. An effect is a mapping with those of its fields that differ
    from its defaults; a visit changes single fields of a common effect, or switches it off with null::

        seed: 7
        size: 1024
        detectors: [0, 1]
        conditions:
          sky_level: 900.0
          cosmic_rays: {}
          chromatic_refraction: {airmass: 1.1, parallactic_angle: 30.0}
        visits:
          - {visit: 1, science_seeing: 1.1, chromatic_refraction: {airmass: 1.5}}
          - {visit: 2, science_seeing: 0.7, template_seeing: 0.9, cosmic_rays: null}
        scene: {n_transients: 50}
        broken:
          - {detector: 1, visit: 2, how: template_no_data}

    Fields left out have the values of `default_survey`. ``config/DiaSim/survey.yaml`` of the package names all.

    Parameters
    ----------
    path : `str` or path-like
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not YAML, or has a field that is not known or a value that is not valid.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Survey file {path} does not exist.")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"Survey file {path} is not valid YAML: {error}") from error
    try:
        return _survey_from_mapping(content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Survey file {path}: {error}") from error


def _survey_from_mapping(content: Any) -> SurveyConfig:
    content = dict(_check_mapping(content, "the file"))
    default = default_survey()
    common = _check_mapping(content.pop("conditions", {}), "conditions")
    _check_fields(common, ObservingConditions, "conditions")
    if "visits" in content:
        visits = []
        for entry in _check_list(content.pop("visits"), "visits"):
            entry = dict(_check_mapping(entry, "an entry of visits"))
            if "visit" not in entry:
                raise ValueError(f"an entry of visits has no visit number: {entry}.")
            number = int(entry.pop("visit"))
            visits.append(VisitPlan(number, _make_conditions(common, entry, f"visit {number}")))
    else:
        visits = [
            dataclasses.replace(
                plan,
                conditions=dataclasses.replace(plan.conditions, **_make_effects(common, {}, "conditions")),
            )
            for plan in default.visits
        ]
    scene = _make(SceneConfig, _check_mapping(content.pop("scene", {}), "scene"), "scene")
    broken = [
        _make(BrokenDetector, _check_mapping(entry, "an entry of broken"), "broken")
        for entry in _check_list(content.pop("broken", []), "broken")
    ]
    return _make(
        SurveyConfig,
        {**content, "visits": tuple(visits), "scene": scene, "broken": tuple(broken)},
        "the file",
    )


def _make_conditions(common: Mapping[str, Any], own: Mapping[str, Any], where: str) -> ObservingConditions:
    """Make the conditions of a visit from the common ones and its own."""
    return _make(ObservingConditions, _make_effects(common, own, where), where)


def _make_effects(common: Mapping[str, Any], own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Join common and own fields, and turn mappings of effects into the effects."""
    values = {**common, **own}
    for name, effect in EFFECTS.items():
        if name not in values or values[name] is None:
            continue
        fields = dict(_check_mapping(common.get(name) or {}, name))
        fields.update(_check_mapping(values[name], f"{name} of {where}"))
        values[name] = _make(effect, fields, f"{name} of {where}")
    return values


def _make[T](cls: type[T], values: Mapping[str, Any], where: str) -> T:
    _check_fields(values, cls, where)
    # YAML has lists where the dataclasses have tuples.
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _check_fields(values: Mapping[str, Any], cls: type, where: str) -> None:
    known = [entry.name for entry in dataclasses.fields(cls)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"unknown fields {unknown} in {where}; known are {known}.")


def _check_mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must hold names with values, got {value!r}.")
    return value


def _check_list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, got {value!r}.")
    return value


def write_survey(
    repo: str | os.PathLike[str],
    config: SurveyConfig | None = None,
    *,
    run: str = "DiaSim/input",
    report: Callable[[str], None] | None = None,
    processes: int = 1,
) -> list[DatasetRef]:
    """Simulate a survey into a butler repository, which is created when missing.

    Parameters
    ----------
    repo : `str` or path-like
        Root of the repository.
    config : `SurveyConfig`, optional
        The survey; that of `default_survey` when omitted.
    run : `str`, optional
        RUN collection to write.
    report : callable, optional
        Called with a line of text as each detector is done; progress is also logged.
    processes : `int`, optional
        Detectors simulated at a time, each in its own process; the pixels do not depend on it. With more than one,
        a script must do this below ``if __name__ == "__main__":``, as the processes import it.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        Datasets written: ``visit_image``, ``template_detector``, ``dia_truth`` and ``dia_truth_artefact`` for each
        visit and detector.

    Raises
    ------
    ValueError
        If the collection holds these datasets already, or the repository has these visits with other values.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}.")
    config = config if config is not None else default_survey()
    repo = os.fspath(repo)
    if not Butler.has_repo_config(repo):
        _LOG.info("Creating the repository %s.", repo)
        Butler.makeRepo(repo)
    with Butler.from_config(repo, writeable=True) as butler:
        _prepare(butler, config, run)
        jobs = [(plan, detector) for plan in config.visits for detector in config.detectors]
        refs: list[DatasetRef] = []
        report = report if report is not None else _LOG.info
        done = Progress(__name__).wrap(
            _write_all(butler, repo, config, run, jobs, processes), desc="Simulating", total=len(jobs)
        )
        for index, (written, line) in enumerate(done, start=1):
            refs += written
            report(f"[{index}/{len(jobs)}] {line}")
    return refs


def _prepare(butler: Butler, config: SurveyConfig, run: str) -> None:
    """Register what the datasets need: instrument, collection, dataset types and visits."""
    DiaSim().register(butler.registry)
    butler.collections.register(run, CollectionType.RUN)
    for name, storage_class in _DATASET_TYPES.items():
        butler.registry.registerDatasetType(
            DatasetType(name, ("instrument", "visit", "detector"), storage_class, universe=butler.dimensions)
        )
    _refuse_existing(butler, config, run)
    camera = DiaSim.camera(config.size)
    boresight = SkyCoord(*config.boresight, unit="deg")
    for plan in config.visits:
        regions = {
            detector: pixel_region(
                make_tangent_projection(camera, detector, boresight, plan.visit), camera[detector].bbox
            )
            for detector in config.detectors
        }
        record = exposure_record(camera, plan.visit, plan.conditions, boresight)
        insert_exposure_records(butler, dataclasses.replace(record, regions=regions))


def _write_all(
    butler: Butler,
    repo: str,
    config: SurveyConfig,
    run: str,
    jobs: list[tuple[VisitPlan, int]],
    processes: int,
) -> Iterator[tuple[list[DatasetRef], str]]:
    """Simulate and write the detectors, here or in processes, and return what was written in order."""
    if processes == 1:
        for plan, detector in jobs:
            yield _write_detector(butler, config, run, plan, detector)
        return
    # Spawned processes share nothing with this one: its threads and connections would not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(processes, len(jobs)), mp_context=context, initializer=_end_with_parent
    ) as pool:
        futures = [pool.submit(_write_detector_alone, repo, config, run, *job) for job in jobs]
        try:
            for future in futures:
                data_ids, line = future.result()
                yield [_find(butler, run, *data_id) for data_id in data_ids], line
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_detector_alone(
    repo: str, config: SurveyConfig, run: str, plan: VisitPlan, detector: int
) -> tuple[list[tuple[str, int, int]], str]:
    """Simulate and write one detector in a process of its own; return name, visit and detector of each dataset."""
    with Butler.from_config(repo, writeable=True) as butler:
        refs, line = _write_detector(butler, config, run, plan, detector)
    return [(ref.datasetType.name, plan.visit, detector) for ref in refs], line


def _find(butler: Butler, run: str, name: str, visit: int, detector: int) -> DatasetRef:
    ref = butler.find_dataset(
        name, instrument=DiaSim.getName(), visit=visit, detector=detector, collections=run
    )
    assert ref is not None
    return ref


def _write_detector(
    butler: Butler, config: SurveyConfig, run: str, plan: VisitPlan, detector: int
) -> tuple[list[DatasetRef], str]:
    """Simulate and write one detector; return what was written and a line about it."""
    pair = simulate_pair(
        plan.conditions,
        config.scene,
        config.seed,
        size=config.size,
        visit=plan.visit,
        detector=detector,
        boresight=SkyCoord(*config.boresight, unit="deg"),
    )
    data_id = {"instrument": DiaSim.getName(), "visit": plan.visit, "detector": detector}
    refs = [
        butler.put(dataset, name, data_id, run=run)
        for name, dataset in _spoil(pair, config, plan.visit, detector).items()
    ]
    return refs, (
        f"visit {plan.visit} detector {detector}: {len(pair.truth)} objects, "
        f"{int(pair.truth['isTransient'].sum())} transients"
    )


def _refuse_existing(butler: Butler, config: SurveyConfig, run: str) -> None:
    for name in _DATASET_TYPES:
        existing = butler.query_datasets(name, collections=run, find_first=False, explain=False, limit=None)
        taken = {(ref.dataId["visit"], ref.dataId["detector"]) for ref in existing}
        for plan in config.visits:
            for detector in config.detectors:
                if (plan.visit, detector) in taken:
                    raise ValueError(
                        f"Collection {run} already has {name} for visit {plan.visit}, detector {detector}: "
                        f"use another run, another repository or other visit numbers."
                    )


def _spoil(pair: SimulatedPair, config: SurveyConfig, visit: int, detector: int) -> dict[str, Any]:
    """Return the datasets to write, spoilt where the survey says so."""
    datasets: dict[str, Any] = {
        "visit_image": pair.science,
        "template_detector": pair.template,
        "dia_truth": pair.truth,
        "dia_truth_artefact": pair.artefacts,
    }
    for entry in config.broken:
        if entry.detector != detector or entry.visit not in (None, visit):
            continue
        match entry.how:
            case "template_no_data":
                _clear(pair.template)
            case "science_no_data":
                _clear(pair.science)
            case "nan_block":
                height, width = pair.science.image.array.shape
                pair.science.image.array[: height // 2, : width // 2] = np.nan
            case "no_template":
                datasets.pop("template_detector", None)
    return datasets


def _clear(image: VisitImage) -> None:
    image.image.array[...] = np.nan
    image.variance.array[...] = np.nan
    image.mask.set("NO_DATA")

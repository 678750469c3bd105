"""Runs one method on one scene and measures what it made: the work of one process."""

from __future__ import annotations

__all__ = ["is_current", "read_result", "result_path", "run_one", "store_failure"]

import dataclasses
import json
import os
import platform
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from ._cost import fft_pair_seconds, measure_cost
from ._measure import measure
from ._methods import OWN_METHODS, MethodSpec, run_own
from ._peers import PeerUnavailableError, run_peer
from ._scenes import SceneSpec, load_scene

RESULT_FORMAT = 1
"""Raised whenever what is measured changes, so that old results are made anew."""


def result_path(directory: Path, scene: str, method: MethodSpec) -> Path:
    """Return where the result of a method for a scene is stored."""
    return directory / "results" / scene / f"{method.title}.json"


def run_one(directory: Path, scene_name: str, method: MethodSpec, *, keep: bool = False) -> dict[str, Any]:
    """Run, measure, store and return the result; failures are results too.

    Parameters
    ----------
    directory : `pathlib.Path`
        The benchmark's directory.
    scene_name : `str`
        Name of a scene that has been made.
    method : `MethodSpec`
        The method.
    keep : `bool`, optional
        Keep the images, beside the result.
    """
    scene = load_scene(directory / "scenes" / scene_name)
    result: dict[str, Any] = {
        "format": RESULT_FORMAT,
        "scene": scene_name,
        "group": scene.spec.group,
        "index": scene.spec.index,
        "method": method.title,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    path = result_path(directory, scene_name, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if method.name in (*OWN_METHODS, "ideal"):
            result["fftPair"] = fft_pair_seconds(scene.spec.size)
            output, costs = run_own(scene, method)
            # The lesser of the two: what disturbs only ever slows down.
            result["fftPair"] = min(result["fftPair"], fft_pair_seconds(scene.spec.size))
            result["cost"] = {name: dataclasses.asdict(cost) for name, cost in costs.items()}
        else:
            output, peer = run_peer(directory, directory / "scenes" / scene_name, scene.spec.size, method)
            result.update(peer)
        result["metadata"] = {
            name: value if isinstance(value, str) else float(value) for name, value in output.metadata.items()
        }
        with measure_cost() as cost:
            result["measured"] = measure(scene, output)
        result["measuringCpu"] = cost.cpu
        if keep:
            for name in ("score", "difference", "variance"):
                plane = getattr(output, name)
                if plane is not None:
                    np.save(path.with_name(f"{method.title}-{name}.npy"), plane)
    except PeerUnavailableError as error:
        result["unavailable"] = str(error)
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
        result["traceback"] = traceback.format_exc()
    _store(path, result)
    return result


def read_result(path: Path) -> dict[str, Any]:
    """Read a stored result."""
    return json.loads(path.read_text())


def is_current(path: Path, directory: Path) -> bool:
    """Return whether a result is there, of this format, and younger than its scene."""
    scene = directory / "scenes" / path.parent.name / "info.json"
    if not path.exists() or path.stat().st_mtime < scene.stat().st_mtime:
        return False
    return read_result(path).get("format") == RESULT_FORMAT


def store_failure(directory: Path, spec: SceneSpec, method: MethodSpec, message: str) -> None:
    """Store that a process ended without a result."""
    path = result_path(directory, spec.name, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    _store(
        path,
        {
            "format": RESULT_FORMAT,
            "scene": spec.name,
            "group": spec.group,
            "index": spec.index,
            "method": method.title,
            "error": message,
        },
    )


def _store(path: Path, result: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, default=_plain))
    partial.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not fit into JSON.")

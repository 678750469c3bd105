"""Peers: other packages' subtractions, each in a Python environment of its own."""

from __future__ import annotations

__all__ = ["PEERS", "Peer", "PeerUnavailableError", "make_environment", "run_peer"]

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._cost import N_RUNS
from ._methods import MethodSpec
from ._output import MethodOutput
from ._scenes import FLUX_SCALE, SHIFT

_SECONDS = 1800
"""Longest run of a peer, and of an installation [s]."""


@dataclass(frozen=True)
class Peer:
    """How a peer is installed.

    Parameters
    ----------
    python : `str`
        Version of Python that it runs with.
    steps : `tuple` [`tuple` [`str`, ...], ...]
        Arguments of ``pip install``, one step after the other.
    module : `str`
        What must be importable in the end.
    stand_ins : `tuple` [`str`, ...], optional
        Programs that it starts when imported and that what is called here has no use for: empty ones are made.
    """

    python: str
    steps: tuple[tuple[str, ...], ...]
    module: str
    stand_ins: tuple[str, ...] = ()


PEERS: dict[str, Peer] = {
    # 1.7.3 uses np.in1d, which numpy 2.4 no longer has.
    "sfft": Peer("3.12", (("sfft==1.7.3", "numpy<2.3"),), "sfft.CustomizedPacket"),
    "properimage": Peer("3.11", (("properimage", "numpy<2"),), "properimage.operations"),
    # Its setup imports numpy without saying so.
    "ois": Peer(
        "3.12", (("numpy<2.3", "scipy", "setuptools", "wheel"), ("--no-build-isolation", "ois")), "ois"
    ),
    # It imports what it does not declare, and uses np.float.
    "zogyp": Peer(
        "3.11",
        (("zogyp", "numpy<1.24", "scipy", "astropy<6", "sep<1.4", "matplotlib<3.9"),),
        "zogyp.zip",
        # Its programs measure PSFs and offsets with SExtractor; the core is given the true ones.
        stand_ins=("sex",),
    ),
}


class PeerUnavailableError(Exception):
    """A peer cannot be installed here; the message says why."""


def make_environment(directory: Path, name: str) -> Path:
    """Make a peer's environment unless it is there; return its Python.

    Raises
    ------
    PeerUnavailableError
        If it does not install; the reason is kept, so that it is not tried again.
    """
    if name not in PEERS:
        raise PeerUnavailableError(f"{name} is neither a method of ours nor one of {sorted(PEERS)}.")
    peer = PEERS[name]
    environment = directory / "environments" / name
    python, state = environment / "bin" / "python", environment / "state.json"
    if state.exists():
        problem = json.loads(state.read_text())["problem"]
        if problem:
            raise PeerUnavailableError(problem)
        return python
    problem = _install(peer, environment, python)
    environment.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps({"problem": problem}))
    if problem:
        raise PeerUnavailableError(problem)
    return python


def _install(peer: Peer, environment: Path, python: Path) -> str:
    """Install a peer; return what went wrong, empty for nothing."""
    base = _find_python(peer.python)
    if base is None:
        return f"there is no Python {peer.python}"
    shutil.rmtree(environment, ignore_errors=True)
    commands = [[base, "-m", "venv", str(environment)]]
    commands += [[str(python), "-m", "pip", "install", "-q", *step] for step in peer.steps]
    commands += [[str(python), "-c", f"import {peer.module}"]]
    for command in commands:
        if command == commands[-1]:
            _make_stand_ins(peer, environment)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
                env=_variables(environment),
            )
        except subprocess.TimeoutExpired:
            return _without_folders(f"{' '.join(command[1:])} took longer than {_SECONDS} s")
        if done.returncode:
            return f"{_without_folders(' '.join(command[2:]))}: {_reason(done.stderr)}"
    return ""


def _make_stand_ins(peer: Peer, environment: Path) -> None:
    for name in peer.stand_ins:
        program = environment / "bin" / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)


def _variables(environment: Path) -> dict[str, str]:
    """Return the environment variables of a peer's process, its own programs first on the path."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", "")]),
        "PYTHONPATH": "",
    }


def _find_python(version: str) -> str | None:
    """Return a Python of a version, of pyenv or on the path."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in sorted(root.glob(f"{version}.*"), reverse=True):
        if (candidate / "bin" / "python").exists():
            return str(candidate / "bin" / "python")
    return shutil.which(f"python{version}")


def _reason(stderr: str) -> str:
    """Return the line of an installation's complaints that says most."""
    lines = [line.strip(" │╰─>") for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line and "subprocess-exited" not in line]
    return _without_folders((telling or lines or ["no message"])[-1])[:200]


def _without_folders(message: str) -> str:
    """Return a message with files named without their folders, which are those of one machine; addresses stay."""
    return re.sub(r"(?<![\w:/.<])/(?:[^\s'\",:/]+/)*([^\s'\",:/]*)", r"\1", message)


def run_peer(
    directory: Path, folder: Path, size: int, method: MethodSpec
) -> tuple[MethodOutput, dict[str, Any]]:
    """Run a peer on a scene in its environment.

    Parameters
    ----------
    directory : `pathlib.Path`
        The benchmark's directory.
    folder : `pathlib.Path`
        The scene's folder.
    size : `int`
        Side of the scene [pixel].
    method : `MethodSpec`
        The peer.

    Returns
    -------
    output : `MethodOutput`
        Difference and score. Where the peer has no score, its difference correlated with the PSF that it should have.
    costs : `dict`
        Its cost and the time of an FFT pair in the same process.
    """
    python = make_environment(directory, method.name)
    script = Path(__file__).with_name("peer_script.py")
    known = json.dumps({"fluxScale": FLUX_SCALE, "shift": SHIFT, "nRuns": N_RUNS})
    with tempfile.TemporaryDirectory(dir=directory) as output:
        done = subprocess.run(
            [str(python), str(script), method.name, str(folder.resolve()), output, known],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            cwd=output,
            env=_variables(python.parents[1]),
        )
        if done.returncode:
            raise RuntimeError(f"{method.name} ended with {done.returncode}: {_reason(done.stderr)}")
        cost = json.loads((Path(output) / "cost.json").read_text())
        score = np.load(Path(output) / "score.npy")
        difference = np.load(Path(output) / "difference.npy")
    if score.shape != (size, size):
        raise RuntimeError(f"{method.name} made a score of shape {score.shape} for {size} x {size} pixels.")
    return (
        MethodOutput(score, difference, variance=None, psf=None),
        {"cost": {"subtract": cost["cost"]}, "fftPair": cost["fftPair"]},
    )

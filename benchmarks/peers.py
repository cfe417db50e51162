"""The peers, pinned, each in a virtual environment of its own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.paths import environment_of, site_packages_of

_DONE = ".installed"


@dataclass(frozen=True, slots=True)
class Peer:
    """A package to install.

    Attributes:
        package: whose version is shown.
        requirements: for pip; ONNX Runtime comes on top, in the version that headrace itself has here, and numpy.
    """

    name: str
    package: str
    requirements: tuple[str, ...]


PEERS = (
    Peer("triton", "nvidia-pytriton", ("nvidia-pytriton==0.7.0", "numpy==1.26.4")),
    Peer("mosec", "mosec", ("mosec==0.9.8", "numpy==2.4.6")),
    Peer("mlserver", "mlserver", ("mlserver==1.7.1", "numpy==2.4.6")),
    Peer("ray", "ray", ("ray[serve]==2.60.*", "numpy==2.4.6")),
    Peer("litserve", "litserve", ("litserve==0.2.19", "numpy==2.4.6")),
    Peer("bentoml", "bentoml", ("bentoml==1.4.40", "numpy==2.4.6")),
)


def install(names: list[str]) -> dict[str, str]:
    """Installs what is not installed yet; why it could not be, by peer."""
    failures = {}
    for peer in PEERS:
        if peer.name not in names:
            continue
        problem = _install(peer)
        print(f"install {peer.name}: {problem or 'ok'}", flush=True)
        if problem:
            failures[peer.name] = problem
    return failures


def installed_version(peer: str, package: str) -> str:
    """As its metadata says; "not installed" otherwise."""
    try:
        paths = [str(site_packages_of(peer))]
    except FileNotFoundError:
        return "not installed"
    found = next(iter(importlib.metadata.distributions(name=package, path=paths)), None)
    return found.version if found else "not installed"


def _install(peer: Peer) -> str:
    folder = environment_of(peer.name)
    wanted = [*peer.requirements, *_same_as_here()]
    stamp = folder / _DONE
    if stamp.exists() and stamp.read_text().split() == wanted:
        return ""
    if not (folder / "bin" / "python").exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True, check=False)
        if made.returncode:
            return f"cannot make {folder}: {' '.join(made.stdout.split())[-300:]}"
    # A peer's numbers must not hang on this machine's own constraints, nor ours on a peer's.
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
        return f"pip could not install {' '.join(wanted)}: {' '.join(errors[-2:])}"
    stamp.write_text("\n".join(wanted))
    return ""


def _same_as_here() -> list[str]:
    """ONNX Runtime is the engine in every system, so it is one version in all of them."""
    return [f"onnxruntime=={importlib.metadata.version('onnxruntime')}"]

"""Where a number came from: versions, device, memory, the state of the working folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

from tlbench.errors import UsageError, listed

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "opencv-python-headless",
    "foolbox",
)


@cache
def packages() -> str:
    """Return the versions of Python and of the packages that numbers depend on, as JSON."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return json.dumps(found, sort_keys=True)


def tlbench_version() -> str:
    """Return the version of tlbench."""
    from tlbench import __version__

    return __version__


def git_state() -> str:
    """Return the commit of the current folder, with ``+changes`` where it was not clean; empty outside git.

    Asked once a folder and process: what was imported does not change when a file does.
    """
    return _git_state(Path.cwd())


@cache
def _git_state(folder: Path) -> str:
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.strip() + ("+changes" if changes.strip() else "")


def device_name(device: str) -> str:
    """Return ``cpu`` or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def peak_memory_bytes(device: str) -> int:
    """Return the largest allocation (GPU) or resident size (CPU) of this process so far."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def choose_device(device: str | None) -> str:
    """Return the device to use: the one named, or a GPU where one is at hand.

    Raises
    ------
    UsageError
        If the name means nothing to PyTorch, or no such device is at hand.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    # A name without a meaning, a build without CUDA, and a device without this build's support: one error each.
    except (RuntimeError, AssertionError, NotImplementedError):
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        at_hand = listed(["cpu", *gpus])
        raise UsageError(f"--device {device}: no such device is at hand; here there is {at_hand}") from None
    return device


def exact_arithmetic() -> None:
    """Turn off whatever makes a float32 less than one, or a result depend on the clock.

    Asked for again after every fit: a plug-in may have turned TF32 on for its training.
    """
    torch.set_float32_matmul_precision("highest")  # on some CPUs the others mean bfloat16
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Searching for the fastest algorithm finds another one on a busy machine; some add in no fixed order.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def set_exact_arithmetic(threads: int | None) -> int:
    """Ask for exact arithmetic, fix the number of threads, and return it."""
    exact_arithmetic()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or cores)
    return torch.get_num_threads()

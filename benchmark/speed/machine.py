"""The kind of machine and the packages that the numbers belong to; nothing that names the machine itself."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from speed.peers import version

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "opencv-python-headless", "pillow", "numba", "timm")


def facts() -> dict[str, str]:
    """Return what a reader needs to compare the times with another machine's."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "GPU": gpu,
        "Python": platform.python_version(),
        **{package: version(package) or "not installed" for package in PACKAGES},
    }


def _processor() -> str:
    """Return the model of the processor, with the widest vector instructions, on which most of the times hang."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {name.strip(): value.strip() for name, value in known.items()}
    model = names.get("model name", platform.machine())
    flags = names.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "")
    return f"{model} ({vectors})" if vectors else model

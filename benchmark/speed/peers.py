"""The peers: which of them are installed, and in which version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable

MODULES = {"autoattack": "autoattack"}
"""Packages that are known by a module, because their authors publish no distribution under that name."""


def version(package: str) -> str | None:
    """Return the version of an installed package, ``""`` where it has none, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = MODULES.get(package)
        return "" if module is not None and importlib.util.find_spec(module) is not None else None


def missing(packages: Iterable[str]) -> str:
    """Return why a row cannot be measured, or an empty string."""
    absent = [package for package in packages if version(package) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


def versions(packages: Iterable[str]) -> str:
    """Return packages and their versions, as the table shows them."""
    return ", ".join(f"{package} {version(package) or ''}".strip() for package in packages)

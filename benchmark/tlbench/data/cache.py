"""Resized images as memory maps on disk, built once, shared by every process.

::

    <cache>/images/<key>/      images.npy    (n, S, S, 3) uint8, in the listing's order
                               hashes.npy    (n, 32) uint8: SHA-256 of every resized image
                               entry.json    what the two files must be
    <cache>/images/.<key>.partial/   the entry while it is being built; a killed builder's is gone on with
    <cache>/images/<key>.lock  held by whoever builds the entry
    <cache>/digests/           remembered content hashes of files

The key is a hash of content: the listing's fingerprint, the size, the rule and the version of this
code. An entry appears by one rename, once it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_dir

from tlbench.data.digests import FileDigests, NotRememberedError, only_remembered
from tlbench.data.domain import Listing
from tlbench.data.images import MappedImages
from tlbench.data.partial import PartialEntry
from tlbench.data.resize import Rule, resize
from tlbench.data.sizes import in_gigabytes
from tlbench.errors import DataError, StoreError
from tlbench.seeds import digest

# Raised whenever decoding or resizing changes a pixel.
CACHE_VERSION = 1

_WHOLE_CHECK_BYTES = 32 * 2**20
_SPOT_CHECKS = 32
_IN_FLIGHT_BYTES = 256 * 2**20

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class CachedImages:
    """The resized images of a whole listing.

    Attributes
    ----------
    images : uint8 memory map, shape (n, S, S, 3)
    hashes : uint8 array, shape (n, 32)
        SHA-256 of every resized image.
    """

    images: NDArray[np.uint8]
    hashes: NDArray[np.uint8]

    def at(self, places: NDArray[np.int64]) -> MappedImages:
        """Return some of the images without reading them."""
        return MappedImages([self.images], places)

    def pixel_hash(self, places: NDArray[np.int64]) -> str:
        """Return the SHA-256 over the hashes of some of the images, in their order; reads no pixel."""
        return hashlib.sha256(np.ascontiguousarray(self.hashes[places]).tobytes()).hexdigest()


class ImageCache:
    """A folder of resized images.

    Parameters
    ----------
    folder : Path, optional
        By default ``TLBENCH_CACHE``, else the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(os.environ.get("TLBENCH_CACHE") or user_cache_dir("tlbench"))

    @property
    def digests(self) -> FileDigests:
        """Content hashes of files, remembered in this folder."""
        return self.digests_told("", None)

    def digests_told(self, label: str, progress: Progress | None) -> FileDigests:
        """Return the same, which tell by a label how far the reading is."""
        told = None if progress is None else functools.partial(progress, label)
        return FileDigests(self.folder / "digests", told)

    def bytes_of(self, n: int, size: int) -> int:
        """Return the bytes that the entry of ``n`` images takes, but for a few kilobytes."""
        return n * (size * size * 3 + 32)

    def free_bytes(self) -> int:
        """Return the free bytes of the disk that this folder is on, or will be."""
        folder = self.folder.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def done(self, listing: Listing, size: int, rule: Rule) -> int:
        """Return how many images of a listing are in the folder: all, or as far as a builder came."""
        entry = self._entry(listing, size, rule)
        if _opened(entry, len(listing), size) is not None:
            return len(listing)
        # One short of all is told until the entry is whole: it still has to be finished.
        return min(_partial(entry, listing, size).done, max(0, len(listing) - 1))

    def _entry(self, listing: Listing, size: int, rule: Rule) -> Path:
        return self.folder / "images" / digest(CACHE_VERSION, listing.fingerprint(), size, rule)

    def resized(
        self, listing: Listing, size: int, rule: Rule, *, label: str, progress: Progress | None = None
    ) -> CachedImages:
        """Return the resized images of a listing, from the folder or built into it.

        Parameters
        ----------
        listing : Listing
        size : int
        rule : {"squash", "center-crop"}
        label : str
            What to call the images in progress and errors.
        progress : callable, optional
            Given the label, how many images are done, and how many there are; only while building.

        Raises
        ------
        DataError
            If an image cannot be decoded.
        StoreError
            If the folder cannot be written, or the disk is full; the images that are done are kept.
        NotRememberedError
            If the entry would have to be built inside ``remembered_only``.
        """
        entry = self._entry(listing, size, rule)
        # A whole entry is read without the lock: a cache that another user filled may be read-only.
        cached = _opened(entry, len(listing), size)
        if cached is not None:
            return cached
        if only_remembered():
            raise NotRememberedError(f"the images of {label} are not in {self.folder} yet")
        with _explained(self.folder, label), _locked(entry):
            cached = _opened(entry, len(listing), size)
            if cached is None:
                shutil.rmtree(entry, ignore_errors=True)
                _build(entry, listing, size, rule, label, progress)
                cached = _opened(entry, len(listing), size)
        if cached is None:
            raise StoreError(f"{entry}: does not read back as it was written; check this disk, or set TLBENCH_CACHE")
        return cached


def _build(entry: Path, listing: Listing, size: int, rule: Rule, label: str, progress: Progress | None) -> None:
    partial = _partial(entry, listing, size)
    for left in entry.parent.glob(f".{entry.name}.*"):
        if left != partial.folder:
            shutil.rmtree(left, ignore_errors=True)
    if _opened(partial.folder, len(listing), size) is None:
        done = partial.resume()
        needed, free = (len(listing) - done) * size * size * 3, shutil.disk_usage(entry.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{in_gigabytes(needed)} are needed, {in_gigabytes(free)} are free")
        try:
            with partial.appending() as append:
                for place, pixels in enumerate(_decoded(listing, size, rule, done), done):
                    append(pixels.tobytes())
                    if progress is not None:
                        progress(label, place + 1, len(listing))
        except DataError as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno is not None):
                # Another file in its place makes another entry; a disk that would not answer may answer later.
                partial.remove()
            raise DataError(f"{error}; `tlbench data verify` lists every such image") from error
        partial.finish({"version": CACHE_VERSION, "label": label})
    partial.tidy()
    partial.folder.rename(entry)


def _partial(entry: Path, listing: Listing, size: int) -> PartialEntry:
    shape = (len(listing), size, size, 3)
    return PartialEntry(entry.with_name(f".{entry.name}.partial"), shape, digest(list(listing.names)))


def _decoded(listing: Listing, size: int, rule: Rule, first: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the resized images in order, decoded by every core, a bounded number ahead of the writer."""
    ahead = max(os.cpu_count() or 1, min(1024, _IN_FLIGHT_BYTES // (size * size * 3)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(first, len(listing), ahead):
            places = range(start, min(start + ahead, len(listing)))
            yield from pool.map(lambda place: _resized(listing, place, size, rule), places)


def _resized(listing: Listing, place: int, size: int, rule: Rule) -> NDArray[np.uint8]:
    if place in listing.unreadable:
        return np.zeros((size, size, 3), dtype=np.uint8)  # keeps the places of the others; no split shows it
    return resize(listing.load(place), size, rule)


def _opened(entry: Path, n: int, size: int) -> CachedImages | None:
    """Return an entry that is whole, None where there is none or it is damaged."""
    try:
        facts = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        hashes = np.load(entry / "hashes.npy", allow_pickle=False)
        if (entry / "images.npy").stat().st_size != facts["images_bytes"]:
            return None
        # An empty file cannot be mapped.
        images = np.load(entry / "images.npy", mmap_mode="r" if n else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    if images.shape != (n, size, size, 3) or hashes.shape != (n, 32):
        return None
    if hashlib.sha256(np.ascontiguousarray(hashes).tobytes()).hexdigest() != facts["hashes"]:
        return None
    # Small entries are checked whole, large ones by images spread over the file: reading 26 GB at every start
    # would cost more than the damage that it might find.
    count = n if images.nbytes <= _WHOLE_CHECK_BYTES else _SPOT_CHECKS
    for place in np.unique(np.linspace(0, n - 1, count).astype(np.int64)) if n else ():
        if hashlib.sha256(images[place].tobytes()).digest() != hashes[place].tobytes():
            return None
    return CachedImages(images, hashes)


@contextlib.contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """Hold an entry's lock, which the kernel frees when its process ends."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(entry.with_name(f"{entry.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _explained(folder: Path, label: str) -> Iterator[None]:
    """Turn what the operating system says while building an entry into one line."""
    way_out = "set TLBENCH_CACHE to another folder"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            detail = f" ({error.strerror})" if "needed" in str(error.strerror) else ""
            raise StoreError(
                f"{folder}: no room for the images of {label}{detail}; free some space, and the same command goes on "
                f"where it stopped, or {way_out}"
            ) from error
        raise StoreError(
            f"{folder}: the images of {label} cannot be cached here ({error.strerror or error}); {way_out}"
        ) from error

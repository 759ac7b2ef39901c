"""Resized images as memory maps on disk, built once, shared by every process.

::

    <cache>/images/<key>/      images.npy    (n, S, S, 3) uint8, in the listing's order
                               hashes.npy    (n, 32) uint8: SHA-256 of every resized image
                               entry.json    what the two files must be
    <cache>/images/<key>.lock  held by whoever builds the entry
    <cache>/digests/           remembered content hashes of files

The key is a hash of content: the listing's fingerprint, the size, the rule and the version of this
code. An entry appears by one rename, once it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_dir

from tlbench.data.digests import FileDigests
from tlbench.data.domain import Listing
from tlbench.data.images import MappedImages
from tlbench.data.resize import Rule, resize
from tlbench.errors import StoreError
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
        return FileDigests(self.folder / "digests")

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
            If the folder cannot be written, or the disk is full.
        """
        entry = self.folder / "images" / digest(CACHE_VERSION, listing.fingerprint(), size, rule)
        # A whole entry is read without the lock: a cache that another user filled may be read-only.
        cached = _opened(entry, len(listing), size)
        if cached is not None:
            return cached
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
    for left in entry.parent.glob(f".{entry.name}.*"):
        shutil.rmtree(left, ignore_errors=True)  # a killed builder's: nobody else builds while we hold the lock
    shape = (len(listing), size, size, 3)
    needed, free = int(np.prod(shape)), shutil.disk_usage(entry.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free")
    folder = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        hashes = np.empty((len(listing), 32), dtype=np.uint8)
        # Written, not mapped: on a full disk a write is an error, a store into a map kills the process.
        with (folder / "images.npy").open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for place, pixels in enumerate(_decoded(listing, size, rule)):
                stored = pixels.tobytes()
                hashes[place] = np.frombuffer(hashlib.sha256(stored).digest(), dtype=np.uint8)
                stream.write(stored)
                if progress is not None:
                    progress(label, place + 1, len(listing))
            stream.flush()
            os.fsync(stream.fileno())
        np.save(folder / "hashes.npy", hashes)
        facts = {
            "version": CACHE_VERSION,
            "label": label,
            "names": digest(list(listing.names)),
            "images_bytes": (folder / "images.npy").stat().st_size,
            "hashes": hashlib.sha256(hashes.tobytes()).hexdigest(),
        }
        (folder / "entry.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        folder.chmod(0o755)
        folder.rename(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _decoded(listing: Listing, size: int, rule: Rule) -> Iterator[NDArray[np.uint8]]:
    """Yield the resized images in order, decoded by every core, a bounded number ahead of the writer."""
    ahead = max(os.cpu_count() or 1, min(1024, _IN_FLIGHT_BYTES // (size * size * 3)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(listing), ahead):
            places = range(start, min(start + ahead, len(listing)))
            yield from pool.map(lambda place: resize(listing.load(place), size, rule), places)


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
                f"{folder}: no room for the images of {label}{detail}; free some space, or {way_out}"
            ) from error
        raise StoreError(
            f"{folder}: the images of {label} cannot be cached here ({error.strerror or error}); {way_out}"
        ) from error

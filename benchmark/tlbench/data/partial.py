"""An entry of the image cache while it is being built: it grows image by image, and survives its builder.

::

    .<key>.partial/   images.npy     header of the whole array, then the images that are done
                      hashes.raw     32 bytes for each of them
                      partial.json   what is being built

Whoever holds the entry's lock goes on after the last image that is whole and fits its hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_HASH_BYTES = 32
# After a power cut the end of a file may be there in length and not in content.
_LAST = 64
_SPREAD = 32


class PartialEntry:
    """The part of an entry that is on disk.

    Parameters
    ----------
    folder : Path
    shape : tuple of int
        ``(n, S, S, 3)`` of the whole.
    names : str
        Hash of the images' names, in their order.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int], names: str) -> None:
        self.folder = folder
        self._shape, self._names = shape, names
        self._image_bytes = int(np.prod(shape[1:]))
        self._header = _header(shape)
        self._images, self._hashes = folder / "images.npy", folder / "hashes.raw"
        self._facts = folder / "partial.json"

    @property
    def done(self) -> int:
        """Images that seem to be there, by the files' lengths alone."""
        if not self._is_of_this():
            return 0
        whole = (_length(self._images) - len(self._header)) // self._image_bytes
        return max(0, min(whole, _length(self._hashes) // _HASH_BYTES, self._shape[0]))

    def resume(self) -> int:
        """Cut off what is not whole or does not fit its hash, and return how many images are left."""
        done = self._checked(self.done)
        if not done:
            self.remove()
            self.folder.mkdir()
            self._images.write_bytes(self._header)
            self._hashes.touch()
            self._facts.write_text(json.dumps({"names": self._names, "shape": self._shape}), encoding="utf-8")
            return 0
        os.truncate(self._images, len(self._header) + done * self._image_bytes)
        os.truncate(self._hashes, done * _HASH_BYTES)
        return done

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that adds an image; what it has added is safe from a kill of this process."""
        # Written, not mapped: on a full disk a write is an error, a store into a map kills the process.
        with self._images.open("ab") as images, self._hashes.open("ab") as hashes:

            def append(pixels: bytes) -> None:
                images.write(pixels)
                images.flush()
                hashes.write(hashlib.sha256(pixels).digest())
                hashes.flush()

            yield append
            os.fsync(images.fileno())

    def finish(self, facts: Mapping[str, object]) -> None:
        """Write what makes a whole entry of it."""
        hashes = np.fromfile(self._hashes, dtype=np.uint8).reshape(-1, _HASH_BYTES)
        np.save(self.folder / "hashes.npy", hashes)
        whole = {
            **facts,
            "names": self._names,
            "images_bytes": _length(self._images),
            "hashes": hashlib.sha256(hashes.tobytes()).hexdigest(),
        }
        (self.folder / "entry.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")

    def tidy(self) -> None:
        """Take away what is no part of a whole entry."""
        self._facts.unlink(missing_ok=True)
        self._hashes.unlink(missing_ok=True)
        self.folder.chmod(0o755)

    def remove(self) -> None:
        """Forget all that is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_of_this(self) -> bool:
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
            with self._images.open("rb") as stream:
                header = stream.read(len(self._header))
        except (OSError, ValueError):
            return False
        return facts == {"names": self._names, "shape": list(self._shape)} and header == self._header

    def _checked(self, done: int) -> int:
        """Return how many images from the start fit their hashes, as far as a look at some of them tells."""
        if not done:
            return 0
        hashes = np.fromfile(self._hashes, dtype=np.uint8)[: done * _HASH_BYTES].reshape(-1, _HASH_BYTES)
        with self._images.open("rb") as images:

            def fits(place: int) -> bool:
                images.seek(len(self._header) + place * self._image_bytes)
                return bool(hashlib.sha256(images.read(self._image_bytes)).digest() == hashes[place].tobytes())

            while done:
                looked_at = {*range(max(0, done - _LAST), done), *_spread(done)}
                wrong = next((place for place in sorted(looked_at) if not fits(place)), None)
                if wrong is None:
                    break
                done = wrong
        return done


def _spread(done: int) -> list[int]:
    return [int(place) for place in np.unique(np.linspace(0, done - 1, _SPREAD).astype(np.int64))]


def _header(shape: tuple[int, int, int, int]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

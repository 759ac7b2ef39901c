"""Content hashes of files, remembered, so that an unchanged data set is read once and not at every start.

What is remembered of a folder is a file of lines, one a hash, that only grows: a reader that is killed keeps what it
has read, and two domains that share a folder keep each other's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

from tlbench.seeds import digest

# A kill loses at most this much reading.
_KEPT_EVERY_FILES = 5_000
_KEPT_EVERY_SECONDS = 30.0
_AT_ONCE = 512
_ENTRY = 5  # size, two times, number and digest; lines of other lengths are of older versions

_remembered_only: ContextVar[bool] = ContextVar("remembered_only", default=False)


class NotRememberedError(LookupError):
    """A file would have to be read, and ``remembered_only`` forbids it."""


class UndecidedError(NotRememberedError):
    """Files would have to be decoded to tell which of them are images, and ``remembered_only`` forbids it.

    Attributes
    ----------
    images : int
        Files that were found.
    allowed : int
        So many of them the suite lets be dropped.
    """

    def __init__(self, where: str, images: int, allowed: int) -> None:
        super().__init__(f"{where}: nobody has looked yet which of {images} files can be decoded")
        self.images, self.allowed = images, allowed


def only_remembered() -> bool:
    """Return whether this is within ``remembered_only``."""
    return _remembered_only.get()


@contextlib.contextmanager
def remembered_only() -> Iterator[None]:
    """Raise ``NotRememberedError`` instead of reading a file, decoding one, or building a cache.

    For questions that must stay cheap.
    """
    token = _remembered_only.set(True)
    try:
        yield
    finally:
        _remembered_only.reset(token)


class FileDigests:
    """SHA-256 of files; a file whose path, size, times of change and number on its disk are known is not read again.

    Parameters
    ----------
    folder : Path or None
        Where to remember, one file a data folder; None remembers nothing. Kept as an attribute.
    progress : callable, optional
        Given how many files have been read, and how many there are to read.
    """

    def __init__(self, folder: Path | None, progress: Callable[[int, int], None] | None = None) -> None:
        self.folder = folder
        self._progress = progress

    def of(self, root: Path, paths: Sequence[Path]) -> list[str]:
        """Return the SHA-256 hex digest of every file.

        Parameters
        ----------
        root : Path
            The data folder under whose name the digests are remembered.
        paths : sequence of Path

        Raises
        ------
        OSError
            If a file cannot be read.
        NotRememberedError
            If one would have to be read inside ``remembered_only``.
        """
        start = f"{root.absolute()}{os.sep}"
        keys = [str(path.absolute()).removeprefix(start) for path in paths]
        known = self._known(root)
        states = [_state(path) for path in paths]
        found: dict[int, str] = {}
        for i, (key, state) in enumerate(zip(keys, states, strict=True)):
            entry = known.get(key)
            if entry is not None and entry[:-1] == state:
                found[i] = str(entry[-1])
        unknown = [i for i in range(len(paths)) if i not in found]
        if unknown and _remembered_only.get():
            raise NotRememberedError(f"{len(unknown)} files below {root} have not been read yet")
        unkept: list[int] = []
        kept_at = time.monotonic()
        try:
            for done, (i, content) in enumerate(_read([(i, paths[i]) for i in unknown]), 1):
                found[i] = content
                unkept.append(i)
                if len(unkept) >= _KEPT_EVERY_FILES or time.monotonic() - kept_at > _KEPT_EVERY_SECONDS:
                    self._remember(root, [(keys[i], [*states[i], found[i]]) for i in unkept])
                    unkept, kept_at = [], time.monotonic()
                if self._progress is not None:
                    self._progress(done, len(unknown))
        finally:
            self._remember(root, [(keys[i], [*states[i], found[i]]) for i in unkept])
        return [found[i] for i in range(len(paths))]

    def _file(self, root: Path) -> Path | None:
        return None if self.folder is None else self.folder / f"{digest(str(root.absolute()))[:24]}.lines"

    def _known(self, root: Path) -> dict[str, list[object]]:
        file = self._file(root)
        known: dict[str, list[object]] = {}
        if file is None:
            return known
        # Nothing remembered, or a damaged line: reading those files again is always right.
        with contextlib.suppress(OSError), file.open("rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError, TypeError):
                    name, *entry = json.loads(line)
                    if isinstance(name, str) and len(entry) == _ENTRY:
                        known[name] = entry
        return known

    def _remember(self, root: Path, entries: Sequence[tuple[str, list[object]]]) -> None:
        file = self._file(root)
        if file is None or not entries:
            return
        lines = "".join(json.dumps([name, *entry]) + "\n" for name, entry in entries).encode("ascii")
        # Remembering only saves time: where it cannot be written, the images' own cache will say so.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                if stream.seek(0, os.SEEK_END):
                    stream.seek(-1, os.SEEK_END)
                    # A writer that was killed may have left half a line.
                    lines = lines if stream.read(1) == b"\n" else b"\n" + lines
                stream.write(lines)


def _read(files: Sequence[tuple[int, Path]]) -> Iterator[tuple[int, str]]:
    """Yield the digests of files in order, read by every core, a bounded number ahead."""
    if not files:
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            yield from zip([i for i, _ in some], pool.map(_sha256, [path for _, path in some]), strict=True)


def _state(path: Path) -> list[object]:
    """Return what tells a file from its successor: programs set the time of change back, the others they cannot."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

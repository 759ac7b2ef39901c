"""Content hashes of files, remembered, so that an unchanged data set is read once and not at every start."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tlbench.seeds import digest


class FileDigests:
    """SHA-256 of files; a file whose path, size and time of change are known is not read again.

    Parameters
    ----------
    folder : Path or None
        Where to remember, one small file a data folder; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

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
        """
        known = self._known(root)
        states = [_state(path) for path in paths]
        keys = [str(path.absolute()) for path in paths]
        found: dict[int, str] = {}
        for i, (key, state) in enumerate(zip(keys, states, strict=True)):
            entry = known.get(key)
            if entry is not None and entry[:2] == state:
                found[i] = str(entry[2])
        unknown = [i for i in range(len(paths)) if i not in found]
        if not unknown:
            return [found[i] for i in range(len(paths))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found |= zip(unknown, pool.map(_sha256, [paths[i] for i in unknown]), strict=True)
        digests = [found[i] for i in range(len(paths))]
        self._remember(root, known | {k: [*s, d] for k, s, d in zip(keys, states, digests, strict=True)})
        return digests

    def _file(self, root: Path) -> Path | None:
        return None if self._folder is None else self._folder / f"{digest(str(root.absolute()))[:24]}.json"

    def _known(self, root: Path) -> dict[str, list[object]]:
        file = self._file(root)
        if file is None:
            return {}
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # nothing remembered, or damaged: reading the files again is always right
        return known if isinstance(known, dict) else {}

    def _remember(self, root: Path, known: dict[str, list[object]]) -> None:
        file = self._file(root)
        if file is None:
            return
        # Remembering only saves time: where it cannot be written, the images' own cache will say so.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
            try:
                with open(handle, "w", encoding="utf-8") as stream:
                    json.dump(known, stream)
                Path(temporary).replace(file)
            finally:
                Path(temporary).unlink(missing_ok=True)


def _state(path: Path) -> list[object]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

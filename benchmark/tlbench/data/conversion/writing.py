"""What the operating system says while folders are written, in one line with the way out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlbench.errors import DataError, StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Explain what goes wrong while a file or folder below ``--out`` is written.

    Raises
    ------
    StoreError
        If the disk is full, the folder is read-only or somebody else's, or anything else that the system says.
    DataError
        If something is in the way.
    """
    try:
        yield
    except OSError as error:
        told = error.strerror or str(error)
        path = Path(error.filename) if error.filename else path
        if error.errno in _FULL:
            raise StoreError(
                f"{path}: the disk is full ({told}); free some space and give the same command again, which goes on "
                f"from here, or name a folder on another disk with --out"
            ) from error
        if error.errno in _IN_THE_WAY:
            raise DataError(
                f"{path}: expected a folder to write into, found {_in_the_way(path)} in its way; move that, or name "
                f"another folder with --out"
            ) from error
        if error.errno == errno.EROFS:
            raise StoreError(
                f"{path}: lies on a file system that is read-only; name another folder with --out"
            ) from error
        if error.errno in _FORBIDDEN:
            raise StoreError(
                f"{path}: may not be read or written ({told}); change the permissions of {_standing(path)}, or name "
                f"another folder with --out"
            ) from error
        raise StoreError(
            f"{path}: cannot be written ({told}); give the same command again once that is mended, or name another "
            f"folder with --out"
        ) from error


def _standing(path: Path) -> Path:
    """Return the nearest folder that is there: whose permissions count."""
    return next((folder for folder in [path, *path.parents] if os.path.isdir(folder)), path.parent)


def _in_the_way(path: Path) -> str:
    above = next((place for place in [path, *path.parents] if os.path.exists(place) and not os.path.isdir(place)), None)
    return f"the file {above}" if above is not None else "other files"

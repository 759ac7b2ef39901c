"""What a copy holds of an image: bytes, a path to them, or both; a batch of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tlbench.data.conversion.copies import Part
from tlbench.data.conversion.stored_format import UNKNOWN, format_of
from tlbench.errors import DataError

IMAGES_A_BATCH = 64


@dataclass(frozen=True)
class StoredImage:
    """What a row holds of its image.

    Attributes
    ----------
    row : int
        Counted from 0 over all parts.
    data : bytes or None
    path : str or None
    folder : Path or None
        Where relative paths start, if they may.
    """

    row: int
    data: bytes | None
    path: str | None
    folder: Path | None

    def content(self, where: str) -> bytes:
        """Return the stored bytes, or those of the file that the row points to.

        Raises
        ------
        DataError
            If the row has no image, or points to a file that is not there, or below another folder than the copy's.
        """
        if self.data:
            return self.data
        if not self.path:
            raise DataError(
                f"{where}: has no image, expected stored bytes or a path; get the copy again, or leave this row out of "
                f"it (--image names another column)"
            )
        path = Path(self.path)
        if not path.is_absolute():
            if self.folder is None or ".." in path.parts:
                raise DataError(
                    f"{where}: points to '{self.path}', which is not a file of the copy; take a copy that holds its "
                    f"images, or their whole paths"
                )
            path = self.folder / path
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(
                f"{where}: points to {path}, which is not there; put the images there, or take a copy that holds them"
            ) from error
        except OSError as error:
            raise DataError(
                f"{where}: points to {path}, which cannot be read ({error.strerror or error}); change its permissions, "
                f"or take a copy that holds its images"
            ) from error
        # Tables come from anyone: only what is an image may be taken from the places that they name.
        if format_of(data) == UNKNOWN:
            raise DataError(
                f"{where}: points to {path}, which is no known kind of image; get that file again, or leave this row "
                f"out of the copy"
            )
        return data


def stored_paths(column: Any) -> list[str | None]:
    """Return the paths stored in a column of images; None where there is none."""
    if pa.types.is_struct(column.type):
        if column.type.get_field_index("path") < 0:
            return [None] * len(column)
        column = pc.struct_field(column, "path")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return list(column.to_pylist())
    return [None] * len(column)


def _bytes_in(column: Any) -> list[bytes | None]:
    """Return the bytes stored in a column of images; None where there are none."""
    if pa.types.is_struct(column.type):
        if column.type.get_field_index("bytes") < 0:
            return [None] * len(column)
        column = pc.struct_field(column, "bytes")
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return list(column.to_pylist())
    return [None] * len(column)


def stored_images(part: Part, column: str, first: int) -> Iterator[StoredImage]:
    """Yield the images of a part, whose first row has the number ``first``, a batch of them in memory."""
    row = first
    for table in part.batches([column], IMAGES_A_BATCH):
        held = table.column(column)
        for data, path in zip(_bytes_in(held), stored_paths(held), strict=True):
            yield StoredImage(row, data, path, part.folder)
            row += 1


def holds_images(kind: pa.DataType) -> bool:
    """Return whether a column of this type can hold images as they were stored: bytes, paths, or structs of both."""
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0 or kind.get_field_index("path") >= 0)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in tests)

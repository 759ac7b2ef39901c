"""The format of a stored image by its first bytes, and the file name that goes with it."""

from __future__ import annotations

from pathlib import PurePosixPath

from tlbench.data.readers.folder import SUFFIXES

_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
    (b"BM", "bmp"),
)
UNKNOWN = "unknown"


def format_of(stored: bytes) -> str:
    """Return the suffix, without its dot, of the format that bytes begin with; ``"unknown"`` where they do not.

    >>> format_of(b"GIF89a..."), format_of(b"hello")
    ('gif', 'unknown')
    """
    if stored[:4] == b"RIFF" and stored[8:12] == b"WEBP":
        return "webp"
    if stored[:2] in (b"P5", b"P6") and stored[2:3].isspace():
        return "pgm" if stored[:2] == b"P5" else "ppm"
    return next((suffix for magic, suffix in _MAGIC if stored.startswith(magic)), UNKNOWN)


def file_name(name: str, kind: str, stored_path: str | None = None) -> str | None:
    """Return the name of the file that holds an image of a format, or None where none would be listed as an image.

    A name that ends like an image's is kept whole, even where its bytes are of another format, as in copies of PACS:
    the study's split follows from the names, and images are decoded by their bytes. Else the format's suffix is
    added. Bytes of no known format keep the suffix that they were stored under: data sets do hold a few broken
    images, which the published counts know of.

    >>> file_name("a.JPEG", "jpg"), file_name("a.png", "jpg"), file_name("00000012", "png")
    ('a.JPEG', 'a.png', '00000012.png')
    >>> file_name("00000012", "unknown", "a.jpg"), file_name("00000012", "unknown")
    ('00000012.jpg', None)
    """
    if name.lower().endswith(SUFFIXES):
        return name
    if kind != UNKNOWN:
        return f"{name}.{kind}"
    stored = PurePosixPath(stored_path or "").suffix.lower()
    return name + stored if stored in SUFFIXES else None

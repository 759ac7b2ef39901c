"""What was converted from a copy: domain by domain, what it was called, and what can be reproduced from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlbench.data.conversion.stored_format import UNKNOWN

CONVERSION_VERSION = 1


@dataclass(frozen=True)
class Columns:
    """Names of a copy's columns, where they are not those that the suite names."""

    image: str | None = None
    label: str | None = None
    domain: str | None = None


@dataclass(frozen=True)
class ConvertedDomain:
    """One domain's folder.

    Attributes
    ----------
    domain : str
    folder : str
        Below the task's folder.
    files : int
    expected : int or None
        What the suite declares, images that it lets be dropped included.
    variant : str or None
        The other known version of the data that has this many images.
    formats : mapping of str to int
        Files by the format of their bytes.
    """

    domain: str
    folder: str
    files: int
    expected: int | None
    variant: str | None
    formats: Mapping[str, int]

    @property
    def right(self) -> bool:
        """Whether the count is the declared one, a known variant's, or none is declared."""
        return self.expected in (None, self.files) or self.variant is not None


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote.

    Attributes
    ----------
    task : str
    folder : Path
    kind, source : str
    revision : str or None
    fingerprint : str
    stored_names : bool
        Whether files have the names stored with the images, so that the members of the study's split can be
        reproduced, if the copy kept the original names; with row numbers only its counts can.
    reason : str
        Why stored names were not kept.
    domains : tuple of ConvertedDomain
    """

    task: str
    folder: Path
    kind: str
    source: str
    revision: str | None
    fingerprint: str
    stored_names: bool
    reason: str
    domains: tuple[ConvertedDomain, ...]

    @property
    def complete(self) -> bool:
        """Whether every domain has as many images as the suite declares."""
        return all(domain.right for domain in self.domains)

    @property
    def published(self) -> bool:
        """Whether every domain has exactly the images that the suite declares, so that its splits are the study's."""
        return all(domain.expected == domain.files for domain in self.domains)

    @property
    def broken(self) -> int:
        """Files that are no known kind of image by their bytes."""
        return sum(domain.formats.get(UNKNOWN, 0) for domain in self.domains)

    @property
    def unlisted(self) -> int:
        """Files in a format that readers of folders pass over, as torchvision does."""
        return sum(n for domain in self.domains for kind, n in domain.formats.items() if kind == "gif")

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON values: what ``conversion.json`` holds."""
        return {
            "format": CONVERSION_VERSION,
            "task": self.task,
            "source": {
                "kind": self.kind,
                "name": self.source,
                "revision": self.revision,
                "fingerprint": self.fingerprint,
            },
            "file_names": "stored" if self.stored_names else "row numbers",
            "reproduces": "members" if self.stored_names else "counts",
            "reason": self.reason,
            "counts": "right" if self.complete else "differ",
            "domains": [asdict(domain) for domain in self.domains],
        }

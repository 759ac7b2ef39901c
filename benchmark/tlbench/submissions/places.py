"""Where large files of a submission may lie: hosts that keep files for good, and where these send a download."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import quote, urlsplit

from tlbench.errors import UsageError, listed

HOSTS: Final = ("github.com", "huggingface.co", "zenodo.org")
"""What an address in ``submission.json`` may name."""

REDIRECTED: Final = (
    "cas-bridge.xethub.hf.co",
    "cdn-lfs.hf.co",
    "cdn-lfs-eu-1.hf.co",
    "cdn-lfs-us-1.hf.co",
    "objects.githubusercontent.com",
    "release-assets.githubusercontent.com",
)
"""Where the hosts keep their files; a redirect to anywhere else is refused."""

_LONGEST: Final = 4000  # a signed redirect is long
_PRINTABLE: Final = re.compile(r"[!-~]+")


def check_url(url: str, hosts: Collection[str] = HOSTS, *, schemes: Collection[str] = ("https",)) -> None:
    """Raise ``UsageError`` unless an address is plain, by a scheme and at a host that are allowed.

    Parameters
    ----------
    url : str
        Without a user, without a port of its own unless ``hosts`` names it, without a fragment.
    hosts : collection of str
        Lower case; as ``host`` or ``host:port``.
    schemes : collection of str
    """
    shown = repr(url[:200])
    if not _PRINTABLE.fullmatch(url) or "\\" in url or len(url) > _LONGEST:
        raise UsageError(f"expected an address of at most {_LONGEST:,} printable ASCII letters, got {shown}")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise UsageError(f"expected an address, got {shown}") from None
    if parts.scheme not in schemes:
        raise UsageError(f"expected an address that begins with {' or '.join(schemes)}://, got {shown}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UsageError(f"expected an address without user, password or fragment, got {shown}")
    place = host if port is None else f"{host}:{port}"
    if place not in hosts:
        raise UsageError(f"expected an address at one of {listed(sorted(hosts))}, got {shown}")


def address(prefix: str, name: str) -> str:
    """Return where a file lies below an address.

    >>> address("https://zenodo.org/records/1/files/", "predictions.parquet")
    'https://zenodo.org/records/1/files/predictions.parquet'

    Raises
    ------
    UsageError
        If the address is not at one of the ``HOSTS``, or has a query.
    """
    check_url(prefix)
    if "?" in prefix:
        raise UsageError(f"expected an address that file names can be put after, got {prefix[:200]!r}")
    return f"{prefix.rstrip('/')}/{quote(name)}"

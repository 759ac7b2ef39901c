"""Files of a submission that lie elsewhere: from known hosts alone, up to their stated size, held to their hash.

A stranger has written the address. So it is https, at a host of the allow-list, and so is every redirect; the machine
that answers has a public address, looked up once and connected to as it was looked up; and neither a long body nor a
slow one goes on for ever.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Collection
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from tlbench.errors import StoreError, UsageError
from tlbench.records.inventory import PlacedFact
from tlbench.records.published import MAX_FILE_BYTES, MAX_PREDICTIONS_BYTES
from tlbench.submissions.places import HOSTS, REDIRECTED, check_url

_CHUNK: Final = 2**16
_MOVED: Final = (301, 302, 303, 307, 308)
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Policy:
    """From where, and how much, is fetched.

    Attributes
    ----------
    hosts : collection of str
        What an address may name.
    redirected : collection of str
        Where these may send us besides.
    schemes : collection of str
    private : bool
        Whether machines without a public address are asked, too; for tests.
    redirects : int
        Most of them that are followed.
    seconds : float
        Longest time for one file; ``pause`` the longest in which nothing arrives.
    """

    hosts: Collection[str] = HOSTS
    redirected: Collection[str] = REDIRECTED
    schemes: Collection[str] = ("https",)
    private: bool = False
    redirects: int = 5
    seconds: float = 1200.0
    pause: float = 30.0


def fetch_file(name: str, fact: PlacedFact, folder: Path, policy: Policy | None = None) -> Path:
    """Fetch one file of a submission into a folder, where it appears once it is whole and has its hash.

    Parameters
    ----------
    name : str
        A known file of a submission.
    fact : PlacedFact
        What ``submission.json`` states of it.
    folder : Path
        An existing folder.
    policy : Policy, optional

    Returns
    -------
    Path

    Raises
    ------
    StoreError
        If the address is not allowed, does not answer, or what it returns is not what was stated.
    """
    most = MAX_PREDICTIONS_BYTES if name == "predictions.parquet" else MAX_FILE_BYTES
    if fact.bytes > most:
        raise StoreError(f"{name}: expected at most {most:,} bytes, {fact.bytes:,} are stated")
    target, partial = folder / name, folder / f".{name}.{os.getpid()}"
    try:
        _download(fact, partial, policy or Policy())
        partial.replace(target)
    except (UsageError, StoreError) as problem:
        raise StoreError(f"{name}: {problem}") from None
    except (OSError, HTTPException) as problem:
        raise StoreError(f"{name}: {fact.url!r} does not answer as it should ({problem!r})") from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _download(fact: PlacedFact, path: Path, policy: Policy) -> None:
    deadline = time.monotonic() + policy.seconds
    url, hosts = fact.url, set(policy.hosts)
    for _ in range(policy.redirects + 1):
        check_url(url, hosts, schemes=policy.schemes)
        connection = _connection(url, policy)
        try:
            with _asked(connection, url) as response:
                if response.status not in _MOVED:
                    _check_answer(response, fact)
                    _store(response, fact, path, deadline)
                    return
                # Only what an allowed host says may name where it keeps its files.
                url, hosts = urljoin(url, response.getheader("Location", "")), {*policy.hosts, *policy.redirected}
        finally:
            connection.close()
    raise StoreError(f"expected at most {policy.redirects} redirects")


def _asked(connection: HTTPConnection, url: str) -> HTTPResponse:
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    headers = {"Accept-Encoding": "identity", "User-Agent": "tlbench"}
    connection.request("GET", f"{parts.path or '/'}{query}", headers=headers)
    return connection.getresponse()


def _check_answer(response: HTTPResponse, fact: PlacedFact) -> None:
    if response.status != 200:
        raise StoreError(f"expected the file, got HTTP status {response.status}")
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise StoreError("expected the file as it is, got it compressed on the way")
    length = response.getheader("Content-Length")
    if length is not None and length != str(fact.bytes):
        raise StoreError(f"expected {fact.bytes:,} bytes as stated, got a body of {length[:20]}")


def _store(response: HTTPResponse, fact: PlacedFact, path: Path, deadline: float) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        while chunk := response.read1(_CHUNK):
            size += len(chunk)
            if size > fact.bytes:
                raise StoreError(f"expected {fact.bytes:,} bytes as stated, got more")
            if time.monotonic() > deadline:
                raise StoreError(f"{size:,} of {fact.bytes:,} bytes came in the time there is")
            digest.update(chunk)
            file.write(chunk)
    if size != fact.bytes:
        raise StoreError(f"expected {fact.bytes:,} bytes as stated, got {size:,}")
    if digest.hexdigest() != fact.sha256:
        raise StoreError(f"expected the SHA-256 {fact.sha256[:12]} as stated, got {digest.hexdigest()[:12]}")


def _connection(url: str, policy: Policy) -> HTTPConnection:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    pinned = (_address(host, port, private=policy.private), port)
    if parts.scheme == "https":
        return _Https(host, port, pinned, policy.pause)
    return _Http(host, port, pinned, policy.pause)


def _address(host: str, port: int, *, private: bool) -> str:
    """Return the address of a host; refuse the host where any of its addresses is not public."""
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        if not private and not is_public(text):
            raise StoreError(f"host {host!r} has the address {text}, which is not public")
    return found[0]


def is_public(address: str) -> bool:
    """Return whether a machine's address is one of the open network.

    >>> is_public("127.0.0.1"), is_public("169.254.169.254"), is_public("::ffff:10.0.0.1"), is_public("1.1.1.1")
    (False, False, False, True)
    """
    number = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(number, "ipv4_mapped", None) or getattr(number, "sixtofour", None) or number
    return bool(inner.is_global and not inner.is_multicast)


class _Http(HTTPConnection):
    """A connection to an address that was looked up before: a second look-up may answer otherwise."""

    def __init__(self, host: str, port: int, pinned: tuple[str, int], pause: float) -> None:
        super().__init__(host, port, timeout=pause)
        self._pinned = pinned

    def connect(self) -> None:
        self.sock = socket.create_connection(self._pinned, self.timeout)


class _Https(HTTPSConnection):
    """The same, with the certificate held to the host's name."""

    def __init__(self, host: str, port: int, pinned: tuple[str, int], pause: float) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, timeout=pause, context=self._tls)
        self._pinned = pinned

    def connect(self) -> None:
        raw = socket.create_connection(self._pinned, self.timeout)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self.host)

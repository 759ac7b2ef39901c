"""Files that lie elsewhere: what is fetched, and what is not."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tlbench.errors import StoreError
from tlbench.records.inventory import PlacedFact
from tlbench.submissions.download import Policy, fetch_file, is_public

BODY = b"predictions" * 1000


class Forge(BaseHTTPRequestHandler):
    """Answers by path; counts what it was asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        if self.path not in ("/endless", "/slow"):
            self.send_header("Content-Length", str(len(BODY) - (self.path == "/short")))
        self.end_headers()
        try:
            if self.path == "/endless":
                while True:
                    self.wfile.write(BODY)
            elif self.path == "/slow":
                for start in range(0, len(BODY), 100):
                    self.wfile.write(BODY[start : start + 100])
                    time.sleep(0.02)
            else:
                self.wfile.write(b"x" + BODY[1:] if self.path == "/edited" else BODY)
        except OSError:
            pass  # whoever asked has had enough

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def forge() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forge)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def local(forge: str, **changes: object) -> Policy:
    """Return the rules with this machine on the list."""
    rules = {"hosts": (forge,), "redirected": (), "schemes": ("http",), "private": True, "pause": 5.0, **changes}
    return Policy(**rules)  # type: ignore[arg-type]


def fact(url: str, content: bytes = BODY) -> PlacedFact:
    return PlacedFact(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), url=url)


def refused(url: str, folder: Path, policy: Policy, content: bytes = BODY, name: str = "predictions.parquet") -> str:
    with pytest.raises(StoreError) as caught:
        fetch_file(name, fact(url, content), folder, policy)
    assert list(folder.iterdir()) == []
    return str(caught.value)


def test_a_file_comes_whole(forge: str, tmp_path: Path) -> None:
    fetched = fetch_file("predictions.parquet", fact(f"http://{forge}/file"), tmp_path, local(forge))
    assert fetched.read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [fetched]


def test_a_redirect_is_followed_within_the_list(forge: str, tmp_path: Path) -> None:
    policy = local(forge)
    fetch_file("audits.parquet", fact(f"http://{forge}/to//to//file"), tmp_path, policy)
    assert (tmp_path / "audits.parquet").read_bytes() == BODY


@pytest.mark.parametrize(
    "target", ["http://evil.example/x", "http://127.0.0.1:9/x", "file:///etc/passwd", "http://169.254.169.254/meta"]
)
def test_a_redirect_that_leaves_the_list_is_refused(forge: str, tmp_path: Path, target: str) -> None:
    Forge.asked.clear()
    assert "expected an address" in refused(f"http://{forge}/to/{target}", tmp_path, local(forge))
    assert len(Forge.asked) == 1


def test_redirects_end(forge: str, tmp_path: Path) -> None:
    loop = "/to/" * 9 + "/file"
    assert "at most 2 redirects" in refused(f"http://{forge}{loop}", tmp_path, local(forge, redirects=2))


def test_where_files_are_kept_cannot_be_named_in_the_first_place(forge: str, tmp_path: Path) -> None:
    policy = local(forge, hosts=("zenodo.org",), redirected=(forge,))
    assert "expected an address at one of" in refused(f"http://{forge}/file", tmp_path, policy)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/edited", "SHA-256"),
        ("/short", "got a body of 10999"),
        ("/endless", "got more"),
        ("/missing", "status 404"),
        ("/packed", "compressed on the way"),
    ],
)
def test_what_is_not_as_stated_is_refused(forge: str, tmp_path: Path, path: str, said: str) -> None:
    assert said in refused(f"http://{forge}{path}", tmp_path, local(forge))


def test_a_slow_body_does_not_go_on_for_ever(forge: str, tmp_path: Path) -> None:
    assert "in the time there is" in refused(f"http://{forge}/slow", tmp_path, local(forge, seconds=0.1))


def test_nothing_is_asked_for_where_too_much_is_stated(forge: str, tmp_path: Path) -> None:
    Forge.asked.clear()
    huge = PlacedFact(sha256="0" * 64, bytes=10**12, url=f"http://{forge}/file")
    with pytest.raises(StoreError, match="expected at most 1,000,000,000 bytes"):
        fetch_file("predictions.parquet", huge, tmp_path, local(forge))
    assert Forge.asked == []


def test_a_host_of_the_list_with_a_private_address_is_not_asked(forge: str, tmp_path: Path) -> None:
    Forge.asked.clear()
    assert "which is not public" in refused(f"http://{forge}/file", tmp_path, local(forge, private=False))
    assert Forge.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://zenodo.org/x",
        "https://zenodo.org.evil.example/x",
        "https://zenodo.org@evil.example/x",
        "https://user:word@zenodo.org/x",
        "https://zenodo.org:8443/x",
        "https://evil.example/zenodo.org",
        "https://zenodo.org\\@evil.example/x",
        "https://zenodo.org/x\r\nHost: evil.example",
        "https://[::1]/x",
        "https://[/x",
        "ftp://zenodo.org/x",
        "https:///x",
    ],
)
def test_only_plain_addresses_at_known_hosts_are_asked(tmp_path: Path, url: str) -> None:
    assert "expected an address" in refused(url, tmp_path, Policy())


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("10.1.2.3", False), ("192.168.0.1", False), ("0.0.0.0", False), ("::1", False), ("fe80::1%eth0", False),
        ("fd00::1", False), ("::ffff:127.0.0.1", False), ("2002:7f00:1::", False), ("224.0.0.1", False),
        ("100.64.0.1", False), ("8.8.8.8", True), ("2606:4700:4700::1111", True),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) == public

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlbench
from tlbench.data.cache import CachedImages, ImageCache
from tlbench.data.digests import FileDigests
from tlbench.data.domain import Listing
from tlbench.data.images import MappedImages
from tlbench.data.readers.address import Address
from tlbench.data.readers.folder import read_folder
from tlbench.data.resize import resize
from tlbench.errors import DataError, StoreError


def listing_at(root: Path, cache: ImageCache, domain: str = "photo") -> Listing:
    return read_folder(Address("pets", domain, root, "", domain, digests=cache.digests))


def cached(listing: Listing, cache: ImageCache, **changes: object) -> CachedImages:
    settings = {"size": 8, "rule": "squash", "label": "pets/photo", **changes}
    return cache.resized(listing, **settings)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache")


@pytest.fixture
def root(folders: Callable[..., Path]) -> Path:
    return folders({"photo": {"cat": 4, "dog": 3}})


def refuse(place: int) -> np.ndarray:
    raise AssertionError("decoded again")


def test_images_are_resized_once_and_read_back(root: Path, cache: ImageCache) -> None:
    listing, calls = listing_at(root, cache), []
    first = cached(listing, cache, progress=lambda *at: calls.append(at))
    assert calls == [("pets/photo", done, 7) for done in range(1, 8)]
    again = cached(replace(listing, load=refuse), cache)
    expected = np.stack([resize(listing.load(i), 8, "squash") for i in range(7)])
    np.testing.assert_array_equal(first.images, expected)
    np.testing.assert_array_equal(again.images, expected)
    assert not again.images.flags.writeable


def test_another_size_rule_or_content_is_another_entry(root: Path, cache: ImageCache) -> None:
    listing = listing_at(root, cache)
    cached(listing, cache)
    for changes in ({"size": 9}, {"rule": "center-crop"}):
        with pytest.raises(AssertionError, match="decoded again"):
            cached(replace(listing, load=refuse), cache, **changes)
    Image.new("RGB", (33, 5), "red").save(root / "photo" / "cat" / "001.png")
    changed = cached(listing_at(root, cache), cache)
    np.testing.assert_array_equal(changed.images[1], np.broadcast_to([255, 0, 0], (8, 8, 3)))


def test_an_unchanged_file_is_not_read_again(root: Path, cache: ImageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing_at(root, cache).fingerprint()

    def never(path: Path) -> str:
        raise AssertionError(f"read {path.name}")

    monkeypatch.setattr("tlbench.data.digests._sha256", never)
    assert listing_at(root, cache).fingerprint() == before
    os.utime(root / "photo" / "dog" / "002.png", ns=(0, time.time_ns() + 10**9))
    with pytest.raises(AssertionError, match=r"read 002\.png"):
        listing_at(root, cache).fingerprint()


def test_damaged_memory_of_digests_is_forgotten(root: Path, cache: ImageCache) -> None:
    before = listing_at(root, cache).fingerprint()
    for file in (cache.folder / "digests").iterdir():
        file.write_text("{")
    assert listing_at(root, cache).fingerprint() == before
    assert FileDigests(None).of(root, []) == []


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "hashes", "entry"])
def test_a_damaged_entry_is_built_again(root: Path, cache: ImageCache, damage: str) -> None:
    listing = listing_at(root, cache)
    expected = np.array(cached(listing, cache).images)
    entry = next(path for path in (cache.folder / "images").iterdir() if path.is_dir())
    name = {"hashes": "hashes.npy", "entry": "entry.json"}.get(damage, "images.npy")
    stored = bytearray((entry / name).read_bytes())
    if damage in ("cut", "entry"):
        del stored[-5:]
    else:
        stored[1 if damage == "header" else -9] ^= 1
    (entry / name).write_bytes(stored)
    np.testing.assert_array_equal(cached(listing, cache).images, expected)


def test_an_older_builders_leftovers_are_cleared_away(root: Path, cache: ImageCache) -> None:
    listing = listing_at(root, cache)
    cached(listing, cache)
    folder = cache.folder / "images"
    entry = next(path for path in folder.iterdir() if path.is_dir())
    entry.rename(folder / f".{entry.name}.half")
    cached(listing, cache)
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".lock"]


def stored(cache: ImageCache) -> dict[str, bytes]:
    """Return the files of the only entry."""
    entries = [path for path in (cache.folder / "images").iterdir() if path.suffix != ".lock"]
    assert len(entries) == 1
    return {file.name: file.read_bytes() for file in entries[0].iterdir()}


def stopped_at(listing: Listing, cache: ImageCache, place: int) -> Path:
    """Build until an image is asked for, stop there as Ctrl-C does, and return the partial folder."""

    def load(i: int) -> np.ndarray:
        if i == place:
            raise KeyboardInterrupt
        return listing.load(i)

    with pytest.raises(KeyboardInterrupt):
        cached(replace(listing, load=load), cache)
    (partial,) = (cache.folder / "images").glob(".*.partial")
    return partial


def loads_of(listing: Listing) -> tuple[Listing, list[int]]:
    asked: list[int] = []

    def load(i: int) -> np.ndarray:
        asked.append(i)
        return listing.load(i)

    return replace(listing, load=load), asked


def test_an_interrupted_build_goes_on_and_gives_the_same_bytes(root: Path, cache: ImageCache, tmp_path: Path) -> None:
    whole = ImageCache(tmp_path / "whole")
    cached(listing_at(root, whole), whole)
    listing = listing_at(root, cache)
    stopped_at(listing, cache, 4)
    assert cache.done(listing, 8, "squash") == 4
    watched, asked = loads_of(listing)
    calls: list[tuple[str, int, int]] = []
    cached(watched, cache, progress=lambda *at: calls.append(at))
    assert (sorted(asked), calls[0]) == ([4, 5, 6], ("pets/photo", 5, 7))
    assert stored(cache) == stored(whole)
    assert cache.done(listing, 8, "squash") == 7


@pytest.mark.parametrize(
    ("file", "damage", "kept"),
    [
        ("images.npy", lambda stored: stored[:-50], 3),
        ("images.npy", lambda stored: stored[:-3] + b"\0\0\0", 3),
        ("images.npy", lambda stored: stored[:200] + b"\0" + stored[201:], 0),
        ("images.npy", lambda stored: b"", 0),
        ("hashes.raw", lambda stored: stored[:-1], 3),
        ("hashes.raw", lambda stored: stored[:40] + b"\0\0" + stored[42:], 1),
        ("hashes.raw", lambda stored: stored + b"more", 4),
        ("partial.json", lambda stored: stored.replace(b"8", b"9"), 0),
        ("partial.json", lambda stored: b"{", 0),
    ],
)
def test_of_a_damaged_partial_entry_only_what_fits_is_kept(
    root: Path, cache: ImageCache, tmp_path: Path, file: str, damage: Callable[[bytes], bytes], kept: int
) -> None:
    whole = ImageCache(tmp_path / "whole")
    cached(listing_at(root, whole), whole)
    listing = listing_at(root, cache)
    partial = stopped_at(listing, cache, 4)
    (partial / file).write_bytes(damage((partial / file).read_bytes()))
    watched, asked = loads_of(listing)
    cached(watched, cache)
    assert sorted(asked) == list(range(kept, 7))
    assert stored(cache) == stored(whole)


def test_a_builder_killed_before_the_last_rename_decodes_nothing_again(root: Path, cache: ImageCache) -> None:
    listing = listing_at(root, cache)
    cached(listing, cache)
    before = stored(cache)
    entry = next(path for path in (cache.folder / "images").iterdir() if path.is_dir())
    (entry / "hashes.raw").write_bytes(b"left behind")
    entry.rename(entry.with_name(f".{entry.name}.partial"))
    cached(replace(listing, load=refuse), cache)
    assert stored(cache) == before


def test_an_image_that_cannot_be_decoded_is_named_and_leaves_no_entry(root: Path, cache: ImageCache) -> None:
    file = root / "photo" / "dog" / "001.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"dog/001\.png: cannot be decoded .*; `tlbench data verify` lists every such"):
        cached(listing_at(root, cache), cache)
    assert [path.suffix for path in (cache.folder / "images").iterdir()] == [".lock"]


def test_a_disk_that_does_not_answer_costs_nothing_that_is_done(root: Path, cache: ImageCache) -> None:
    listing = listing_at(root, cache)

    def load(place: int) -> np.ndarray:
        if place == 5:
            raise DataError("005: cannot be decoded") from OSError(errno.EIO, "Input/output error")
        return listing.load(place)

    with pytest.raises(DataError, match="005"):
        cached(replace(listing, load=load), cache)
    assert cache.done(listing, 8, "squash") == 5


def test_a_cache_folder_that_cannot_be_written_is_told_in_one_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = ImageCache(tmp_path / "file" / "cache")
    with pytest.raises(StoreError, match=r"cannot be cached here .* set TLBENCH_CACHE to another folder") as error:
        cached(listing_at(root, blocked), blocked)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_folder_is_told(root: Path, cache: ImageCache) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        cached(listing_at(root, cache), cache)


BUILD = """
import resource, sys, time
from pathlib import Path
from dataclasses import replace
from tlbench.data.cache import ImageCache
from tlbench.data.readers.address import Address
from tlbench.data.readers.folder import read_folder
from tlbench.errors import StoreError
root, folder, most, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
if most:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
cache = ImageCache(folder)
listing = read_folder(Address("pets", "photo", root, "", "photo", digests=cache.digests))
decoded = []
def load(place):
    decoded.append(place)
    if place == stop:
        print("waiting", flush=True)
        time.sleep(60)
    return listing.load(place)
try:
    built = cache.resized(replace(listing, load=load), 8, "squash", label="pets/photo")
    print(len(decoded), int(built.images.sum()))
except StoreError as error:
    print(error)
"""


def builder(root: Path, cache: ImageCache, most: int = 0, stop: int = -1) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root), str(cache.folder), str(most), str(stop)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_two_processes_build_an_entry_once_and_share_it(root: Path, cache: ImageCache) -> None:
    processes = [builder(root, cache) for _ in range(2)]
    told = sorted(process.communicate(timeout=60)[0].split() for process in processes)
    assert [int(decoded) for decoded, _ in told] == [0, 7]
    assert told[0][1] == told[1][1]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(root: Path, cache: ImageCache) -> None:
    told, _ = builder(root, cache, most=900).communicate(timeout=60)
    assert "no room for the images of pets/photo" in told
    assert "free some space, and the same command goes on where it stopped" in told
    assert len(told.splitlines()) == 1
    done, _ = builder(root, cache).communicate(timeout=60)
    # The header and four images of 192 bytes are under 900.
    assert int(done.split()[0]) == 3


def test_a_killed_process_leaves_what_it_has_done(root: Path, cache: ImageCache, tmp_path: Path) -> None:
    whole = ImageCache(tmp_path / "whole")
    cached(listing_at(root, whole), whole)
    with builder(root, cache, stop=5) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        listing = listing_at(root, cache)
        deadline = time.monotonic() + 30
        # The images before the one that it waits for are decoded, and are about to be written.
        while cache.done(listing, 8, "squash") < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    watched, asked = loads_of(listing)
    cached(watched, cache)
    assert sorted(asked) == [5, 6]
    assert stored(cache) == stored(whole)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (31, 97), (50, 50), (9, 200)])
def test_resizing_agrees_with_torchvision_on_pillow_images(shape: tuple[int, int]) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(resize(pixels, 28, "squash"), np.asarray(Resize((28, 28))(image)))
    cropped = Compose([Resize(28 * 256 // 224), CenterCrop(28)])(image)
    np.testing.assert_array_equal(resize(pixels, 28, "center-crop"), np.asarray(cropped))


def test_mapped_images_index_like_the_array_they_stand_for() -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    places = np.array([7, 0, 3, 8, 2])
    mapped = MappedImages.joined([MappedImages([array[:4]], np.array([0, 3])), MappedImages([array[4:]], np.arange(5))])
    expected = array[[0, 3, 4, 5, 6, 7, 8]]
    for key in (2, -1, slice(1, 4), [6, 0], np.arange(7) % 2 == 0, (slice(None), 0), (3, 1, 2), Ellipsis, (..., 0)):
        np.testing.assert_array_equal(mapped[key], expected[key])
    np.testing.assert_array_equal(np.asarray(mapped), expected)
    np.testing.assert_array_equal(np.asarray(mapped.take(np.array([5, 1]))), expected[[5, 1]])
    np.testing.assert_array_equal(np.concatenate([mapped, mapped]), np.concatenate([expected, expected]))  # type: ignore[arg-type]
    assert (mapped.shape, mapped.nbytes, len(MappedImages([array], places))) == (expected.shape, expected.nbytes, 5)

"""Parquet, hub and torchvision: the same pictures, whatever holds them."""

from __future__ import annotations

import io
import json
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tlbench.data.domain import Listing
from tlbench.data.readers.catalogue import read_domain
from tlbench.data.splits import PARTS, split_places
from tlbench.errors import DataError, UnknownNameError, UsageError
from tlbench.suites.spec import SplitSpec, TaskSpec

NAMES = ["dog", "cat"]


def read(reader: str, root: Path, domain: str = "photo", own: dict[str, Any] | None = None, **task: Any) -> Listing:
    spec = TaskSpec.model_validate({"reader": reader, "domains": {domain: own or {}, "another": {}}, **task})
    return read_domain(spec, "pets", domain, root)


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pixels_of(stored: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stored)))


def hub_table(n: int = 24, paths: bool = True) -> pa.Table:
    """Return a table as the hub lays it out: two domains by turns, labels numbered dog, cat."""
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return pa.table(
        {
            "image": pa.array(
                [{"bytes": picture(i), "path": f"{i:03d}.png" if paths else None} for i in range(n)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "domain": ["photo" if i % 2 else "sketch" for i in range(n)],
            "label": [(i // 2) % 2 for i in range(n)],
            "slide": [i % 3 for i in range(n)],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def check(found: Listing, rows: list[int]) -> None:
    """Hold a listing against the rows of ``hub_table`` that it should have, in their order."""
    assert len(found) == len(rows)
    for place, row in enumerate(rows):
        assert found.classes[found.labels[place]] == NAMES[(row // 2) % 2]
        np.testing.assert_array_equal(found.load(place), pixels_of(picture(row)))


ODD = list(range(1, 24, 2))


@pytest.mark.parametrize("row_group", [5, 1000])
def test_one_parquet_file_holds_all_domains(tmp_path: Path, row_group: int) -> None:
    pq.write_table(hub_table(), tmp_path / "pets.parquet", row_group_size=row_group)
    found = read("parquet", tmp_path, path="pets.parquet", options={"domain": "domain"})
    check(found, ODD)
    assert found.classes == ("dog", "cat")
    assert found.columns["slide"] == tuple(str(row % 3) for row in ODD)
    assert found.names[0] == "dog/001.png"
    drawn = read("parquet", tmp_path, "s", {"path": "sketch"}, path="pets.parquet", options={"domain": "domain"})
    check(drawn, list(range(0, 24, 2)))


def test_a_folder_of_files_a_domain_is_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "pets" / "photo").mkdir(parents=True)
    table = hub_table(paths=False).drop_columns(["domain"])
    for number, start in enumerate((0, 10)):
        pq.write_table(table.slice(start, 10 + 4 * number), tmp_path / "pets" / "photo" / f"part-{number}.parquet")
    pq.write_table(table.slice(0, 4), tmp_path / "pets" / "sketch.parquet")
    found = read("parquet", tmp_path, path="pets")
    check(found, list(range(24)))
    assert found.names[2] == "cat/00000002"
    check(read("parquet", tmp_path, "sketch", path="pets"), list(range(4)))


def test_plain_bytes_and_labels_in_words(tmp_path: Path) -> None:
    table = pa.table(
        {
            "jpg": [picture(0), picture(2)],
            "kind": ["dog", "cat"],
            "part": ["train", "validation"],
        }
    )
    pq.write_table(table, tmp_path / "photo.parquet")
    found = read("parquet", tmp_path, options={"image": "jpg", "label": "kind"})
    assert found.classes == ("cat", "dog")
    assert found.columns["part"] == ("train", "val")
    np.testing.assert_array_equal(found.load(1), pixels_of(picture(2)))


def test_numbers_without_names_are_classes_by_their_digits(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(i) for i in range(3)], "label": [10, 9, 10]})
    pq.write_table(table, tmp_path / "photo.parquet")
    assert read("parquet", tmp_path).classes == ("9", "10")
    with pytest.raises(DataError, match="row 0 has label 10, expected 0 to 1"):
        read("parquet", tmp_path, options={"label_names": "a,b"})


def test_a_parquet_fingerprint_follows_the_content(tmp_path: Path) -> None:
    file = tmp_path / "photo.parquet"
    pq.write_table(hub_table(), file)
    before = read("parquet", tmp_path).fingerprint()
    assert read("parquet", tmp_path).fingerprint() == before
    pq.write_table(hub_table().set_column(0, "image", pa.array([picture(0)] * 24)), file)
    assert read("parquet", tmp_path).fingerprint() != before


def test_a_parquet_copy_is_split_as_the_folder_that_it_was_made_from(tmp_path: Path) -> None:
    for row in ODD:
        file = tmp_path / "photo" / NAMES[(row // 2) % 2] / f"{row:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(row))
    pq.write_table(hub_table(), tmp_path / "pets.parquet")
    copies = [
        read("folder", tmp_path),
        read("parquet", tmp_path, path="pets.parquet", options={"domain": "domain"}),
    ]
    for rule in ("assaying", "stratified"):
        members = []
        for copy in copies:
            parts = split_places(copy, SplitSpec.model_validate({"rule": rule}), None, task="pets", domain="photo")
            members.append({part: [copy.names[i] for i in parts[part]] for part in PARTS})
        assert members[0] == members[1]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"path": "pet.parquet"}, "did you mean 'pets.parquet'"),
        ({"path": "pets.parquet", "options": {"image": "imag"}}, "no column 'imag'.* did you mean 'image'"),
        ({"path": "pets.parquet", "options": {"domain": "slide"}}, "column 'slide' has no 'photo', only '0', '1', '2'"),
        ({"path": "text.parquet"}, "text.parquet is not a readable Parquet file"),
        ({"path": "pets.parquet", "options": {"label": "image"}}, "column 'image' of .*pets.parquet holds struct"),
    ],
)
def test_what_a_parquet_file_lacks_is_told(tmp_path: Path, task: dict[str, Any], message: str) -> None:
    pq.write_table(hub_table(), tmp_path / "pets.parquet")
    (tmp_path / "text.parquet").write_text("image,label")
    with pytest.raises(DataError, match=message):
        read("parquet", tmp_path, **task)


def test_no_image_and_one_name_for_two_images_are_errors_that_name_the_place(tmp_path: Path) -> None:
    pq.write_table(hub_table().slice(0, 0), tmp_path / "photo.parquet")
    with pytest.raises(DataError, match=f"pets/photo: holds no image in {tmp_path}; get the whole data set"):
        read("parquet", tmp_path)
    kind = hub_table().schema.field("image").type
    image = pa.array([{"bytes": picture(i), "path": "1.png"} for i in range(2)], kind)
    pq.write_table(pa.table({"image": image, "label": [0, 1]}), tmp_path / "photo.parquet")
    with pytest.raises(DataError, match=rf"two images in {tmp_path} are called 'a/1.png'; .*: get the original"):
        read("parquet", tmp_path, options={"label_names": "a,a"})


def test_a_file_that_is_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "photo.parquet"
    pq.write_table(pa.table({"image": [picture(i) for i in range(9)], "label": [0] * 9}), file, compression="none")
    whole = file.read_bytes()
    first = whole.index(b"\x89PNG")
    file.write_bytes(b"PAR1" + b"\xff" * (first - 4) + whole[first:])  # the header of the first page
    with pytest.raises(DataError, match=r"photo.parquet is not a readable Parquet file \(.*\); get it again"):
        read("parquet", tmp_path).load(0)


def test_an_unreadable_row_is_named(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(0), b"no image", None], "label": [0, 0, 0]})
    pq.write_table(table, tmp_path / "photo.parquet")
    found = read("parquet", tmp_path)
    for row, message in ((1, "cannot be decoded"), (2, "expected the bytes of an image")):
        with pytest.raises(DataError, match=f"photo.parquet, row {row}: {message}"):
            found.load(row)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    import datasets

    datasets.disable_progress_bars()
    yield tmp_path
    datasets.enable_progress_bars()


def as_datasets(rows: range) -> Any:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "domain": datasets.Value("string"),
            "label": datasets.ClassLabel(names=NAMES),
            "slide": datasets.Value("int64"),
        }
    )
    table = hub_table().take(list(rows)).to_pydict()
    return datasets.Dataset.from_dict(table, features=features)


def test_a_saved_folder_is_read_by_column_or_by_split(saved: Path) -> None:
    import datasets

    whole = datasets.DatasetDict({"train": as_datasets(range(14)), "validation": as_datasets(range(14, 24))})
    whole.save_to_disk(str(saved / "pets"))
    found = read("hub", saved, path="pets", options={"domain_column": "domain"})
    check(found, ODD)
    assert found.columns["part"] == ("train",) * 7 + ("val",) * 5
    assert found.columns["slide"] == tuple(str(row % 3) for row in ODD)
    assert found.names == tuple(f"{NAMES[(row // 2) % 2]}/{row:03d}.png" for row in ODD)
    check(read("hub", saved, "validation", path="pets"), list(range(14, 24)))
    assert found.fingerprint() == read("hub", saved, path="pets", options={"domain_column": "domain"}).fingerprint()


def test_hub_labels_are_mapped_by_name(saved: Path) -> None:
    as_datasets(range(24)).save_to_disk(str(saved / "pets"))
    found = read("hub", saved, path="pets", classes=["cat", "dog"], options={"domain_column": "domain"})
    assert found.classes == ("cat", "dog")
    check(found, ODD)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"options": {"domain_column": "domian"}}, "no column 'domian'.* did you mean 'domain'"),
        ({"options": {"split": "trian"}}, "no split 'trian', only 'train'; did you mean 'train'"),
        ({"options": {"domain_column": "slide"}}, "column 'slide' has no 'photo', only '0', '1', '2'"),
    ],
)
def test_what_a_saved_folder_lacks_is_told(saved: Path, task: dict[str, Any], message: str) -> None:
    import datasets

    datasets.DatasetDict({"train": as_datasets(range(6))}).save_to_disk(str(saved / "pets"))
    with pytest.raises(DataError, match=message):
        read("hub", saved, path="pets", **task)


def test_a_hub_name_that_is_not_here_is_told_at_once(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    # As for a user who has not set HF_HUB_OFFLINE: the reader itself must stay off the network.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)

    def refuse(*words: Any) -> None:
        raise AssertionError(f"asked the network for {words[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DataError, match=r"'nobody/nothing' is not on this machine .* download = true") as error:
        read("hub", saved, path="nobody/nothing")
    assert "\n" not in str(error.value)
    assert datasets.config.HF_HUB_OFFLINE is False
    with pytest.raises(DataError, match="expected a saved folder or a hub name"):
        read("hub", saved, path="a/b/c")


def test_a_hub_data_set_in_the_local_cache_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    # What a download leaves behind: prepared by datasets itself from the same file, then put under the hub's name.
    pq.write_table(hub_table(), saved / "pets.parquet")
    datasets.load_dataset("parquet", data_files=str(saved / "pets.parquet"), cache_dir=str(saved / "made"))
    (made,) = (saved / "made" / "parquet").glob("default*/*/*/dataset_info.json")
    folder = saved / "cache" / "somebody___pets" / "default" / "0.0.0" / "0123456789abcdef"
    shutil.copytree(made.parent, folder)
    (folder / "parquet-train.arrow").rename(folder / "pets-train.arrow")
    facts = json.loads((folder / "dataset_info.json").read_text())
    facts |= {"dataset_name": "pets", "config_name": "default"}
    (folder / "dataset_info.json").write_text(json.dumps(facts))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", saved / "cache")
    check(read("hub", saved, path="somebody/pets", options={"domain_column": "domain"}), ODD)


def write_idx(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> tuple[Path, np.ndarray]:
    raw = tmp_path / "MNIST" / "raw"
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    for part, rows in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        write_idx(raw / f"{part}-images-idx3-ubyte", images[rows])
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels[rows])
    return tmp_path, images


def test_mnist_is_read_where_torchvision_keeps_it(mnist: tuple[Path, np.ndarray]) -> None:
    root, images = mnist
    found = read("torchvision", root, "mnist")
    assert found.classes == tuple("0123456789")
    assert found.columns["part"] == ("train",) * 20 + ("test",) * 10
    assert found.labels.tolist() == [i % 10 for i in range(30)]
    for place in (0, 19, 20, 29):
        np.testing.assert_array_equal(found.load(place), np.repeat(images[place][:, :, None], 3, axis=2))
    changed = images.copy()
    changed[25, 3, 3] ^= 1
    before = found.fingerprint()
    write_idx(root / "MNIST" / "raw" / "t10k-images-idx3-ubyte", changed[20:])
    assert read("torchvision", root, "mnist").fingerprint() != before


def test_svhn_has_parts_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.io
    from torchvision.datasets import SVHN

    # torchvision checks the sum of the real files; ours are made here.
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5=None: Path(path).is_file())
    for part in ("train", "test"):
        labels = np.array([[1], [10], [3]])  # SVHN stores the digit 0 as 10
        images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": images, "y": labels})
    found = read("torchvision", tmp_path, "house-numbers", options={"dataset": "SVHN"})
    assert found.classes == ("0", "1", "3")
    assert found.columns["part"] == ("train",) * 3 + ("test",) * 3
    np.testing.assert_array_equal(found.load(4), np.asarray(SVHN(str(tmp_path), split="test")[1][0]))


def test_torchvision_data_that_are_missing_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"torchvision's CIFAR10 is not in .* download it there"):
        read("torchvision", tmp_path, "cifar10")
    with pytest.raises(UnknownNameError, match="no data set 'CIFAR11'; did you mean 'CIFAR10'"):
        read("torchvision", tmp_path, "CIFAR11")


@pytest.mark.parametrize("option", ["download", "transform", "trainn"])
def test_options_that_download_or_transform_are_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match=f"MNIST has the options none, got '{option}'"):
        read("torchvision", tmp_path, "MNIST", options={option: True})


def test_every_reader_is_reached_by_its_name() -> None:
    from tlbench.data.readers.catalogue import READERS

    assert set(READERS) == {"domainbed", "embedded", "folder", "parquet", "hub", "torchvision", "wilds"}


def test_embedded_classes_can_be_chosen(tmp_path: Path) -> None:
    whole = read("embedded", tmp_path, "stroke")
    chosen = read("embedded", tmp_path, "stroke", {"classes": ["7", "1"]})
    assert chosen.classes == ("7", "1")
    assert set(chosen.names) < set(whole.names)
    place = whole.names.index(chosen.names[0])
    assert chosen.classes[chosen.labels[0]] == whole.classes[whole.labels[place]]
    assert chosen.columns["face"][0] == whole.columns["face"][place]
    np.testing.assert_array_equal(chosen.load(0), whole.load(place))

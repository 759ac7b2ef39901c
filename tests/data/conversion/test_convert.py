"""A hub copy becomes folders: the stored bytes, the suite's labels, and nothing outside the folder."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tlbench
from tlbench.data.conversion.convert import convert
from tlbench.data.conversion.copies import open_copy
from tlbench.data.conversion.facts import safe_name
from tlbench.data.conversion.result import Columns, Conversion
from tlbench.data.conversion.stored_format import format_of
from tlbench.data.conversion.stored_image import IMAGES_A_BATCH, stored_images
from tlbench.data.readers.catalogue import read_domain
from tlbench.errors import DataError, StoreError, UnknownNameError, UsageError
from tlbench.suites.spec import Suite

CLASSES = ["alarm_clock", "cat", "dog"]
# The copy counts its classes in another order and spells one of them in another way.
THEIRS = ["dog", "Alarm Clock", "cat"]
DOMAINS = ["Art", "Real World"]
PER_DOMAIN = 9


@pytest.fixture(autouse=True)
def _no_progress_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def picture(number: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def rows(n: int = 2 * PER_DOMAIN, *, paths: bool = True, kind: str = "JPEG", first: int = 0) -> dict[str, list[Any]]:
    """Return columns of a copy: domains by turns, classes by turns of two."""
    places = range(first, first + n)
    return {
        "image": [{"bytes": picture(i, kind), "path": f"somewhere/{i:03d}.jpg" if paths else None} for i in places],
        "domain": [DOMAINS[i % 2] for i in places],
        "label": [(i // 2) % 3 for i in places],
    }


def table(columns: Mapping[str, Sequence[Any]], **features: Any) -> datasets.Dataset:
    own = {
        "image": datasets.Image(decode=False),
        "domain": datasets.Value("string"),
        "label": datasets.ClassLabel(names=THEIRS),
    }
    return datasets.Dataset.from_dict(dict(columns), features=datasets.Features({**own, **features}))


def suite_of(domains: Mapping[str, Any] | None = None, **task: Any) -> Suite:
    counted = {"counts": {"train": 7, "val": 1, "test": 1}}
    own = {
        "reader": "folder",
        "path": "office",
        "classes": CLASSES,
        "domains": domains or {"Art": counted, "Real_World": {"path": "Real World", **counted}},
        **task,
    }
    return Suite.model_validate({"name": "made", "tasks": {"Office": own}, "protocol": {"image_size": 8}})


def saved(folder: Path, data: Any) -> Path:
    data.save_to_disk(str(folder))
    return folder


def parquet(folder: Path, data: datasets.Dataset, name: str = "train-00000-of-00001.parquet") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    # Not to_parquet, which would fetch the bytes of images that are paths.
    stored = data.with_format("arrow")[:].replace_schema_metadata(data.features.arrow_schema.metadata)
    pq.write_table(stored, folder / "data" / name)
    return folder


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labelled(suite: Suite, root: Path) -> dict[bytes, str]:
    """Return the class by which the suite's reader knows every image, by the pixels that it decodes."""
    known: dict[bytes, str] = {}
    for domain in suite.tasks["Office"].domains:
        listing = read_domain(suite.tasks["Office"], "Office", domain, root)
        known |= {listing.load(i).tobytes(): listing.classes[label] for i, label in enumerate(listing.labels)}
    return known


def expected_labels(columns: Mapping[str, Sequence[Any]]) -> dict[bytes, str]:
    own = {"dog": "dog", "Alarm Clock": "alarm_clock", "cat": "cat"}
    return {
        np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")).tobytes(): own[THEIRS[label]]
        for image, label in zip(columns["image"], columns["label"], strict=True)
    }


@pytest.mark.parametrize("storage", ["saved", "parquet"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_writes_the_stored_bytes_under_the_suites_names(storage: str, kind: str, tmp_path: Path) -> None:
    columns, suite = rows(kind=kind), suite_of()
    write = saved if storage == "saved" else parquet
    done = convert(suite, "Office", tmp_path / "root", source=write(tmp_path / "copy", table(columns)))
    folder = tmp_path / "root" / "office"
    found = files_below(folder)
    told = json.loads(found.pop("conversion.json"))
    assert found == {
        f"{domain}/{['dog', 'alarm_clock', 'cat'][label]}/{image['path'][10:]}": image["bytes"]
        for image, domain, label in zip(columns["image"], columns["domain"], columns["label"], strict=True)
    }
    assert labelled(suite, tmp_path / "root") == expected_labels(columns)
    assert done.complete
    assert done.stored_names
    assert told["reproduces"] == "members"
    assert told["source"] == {
        "kind": storage,
        "name": str(tmp_path / "copy"),
        "revision": None,
        "fingerprint": done.fingerprint,
    }
    assert [(one["domain"], one["files"]) for one in told["domains"]] == [("Art", 9), ("Real_World", 9)]


def test_rows_are_numbered_where_no_names_are_stored(tmp_path: Path) -> None:
    columns = rows(paths=False, kind="PNG")
    done = convert(suite_of(), "Office", tmp_path / "root", source=saved(tmp_path / "copy", table(columns)))
    found = files_below(done.folder)
    assert found["Real World/dog/00000001.png"] == columns["image"][1]["bytes"]
    assert (done.stored_names, done.reason) == (False, "row 0 has no file name stored that could be kept")
    assert json.loads(found["conversion.json"])["reproduces"] == "counts"


def test_suffixes_are_added_by_the_bytes_where_names_have_none(tmp_path: Path) -> None:
    columns = rows(kind="PNG")
    for number, image in enumerate(columns["image"]):
        image["path"] = f"n{number}.5"
    done = convert(suite_of(), "Office", tmp_path / "root", source=saved(tmp_path / "copy", table(columns)))
    assert (done.folder / "Art/dog/n0.5.png").read_bytes() == columns["image"][0]["bytes"]


def test_equal_names_in_a_class_number_the_whole_copy(tmp_path: Path) -> None:
    columns = rows()
    columns["image"][6]["path"] = "elsewhere/000.jpg"  # row 0 has the same domain, class and name
    done = convert(suite_of(), "Office", tmp_path / "root", source=saved(tmp_path / "copy", table(columns)))
    assert done.reason == "rows 0 and 6, of one class, are both called '000.jpg'"
    assert all(Path(name).stem.isdecimal() and len(Path(name).stem) == 8 for name in files_below(done.folder / "Art"))


def test_equal_names_in_two_classes_are_kept(tmp_path: Path) -> None:
    columns = rows()
    for image in columns["image"][:6]:
        image["path"] = "000.jpg"
    assert convert(suite_of(), "Office", tmp_path, source=saved(tmp_path / "copy", table(columns))).stored_names


def test_all_splits_are_joined_and_numbered_alike_however_stored(tmp_path: Path) -> None:
    test, train = table(rows(4, paths=False)), table(rows(14, paths=False, first=4))
    both = saved(tmp_path / "saved", datasets.DatasetDict({"train": train, "test": test}))
    files = parquet(tmp_path / "files", train)
    parquet(files, test, "test-00000-of-00001.parquet")
    one = convert(suite_of(), "Office", tmp_path / "a", source=both)
    other = convert(suite_of(), "Office", tmp_path / "b", source=files)
    assert one.complete
    assert files_below(one.folder / "Art") == files_below(other.folder / "Art")


def test_domains_may_be_integers(tmp_path: Path) -> None:
    columns = rows()
    columns["domain"] = [int(domain == "Art") + 4 for domain in columns["domain"]]
    suite = suite_of(hub={"name": "owner/name", "domains": {"Art": 5, "Real_World": 4}})
    source = parquet(tmp_path / "copy", table(columns, domain=datasets.Value("int64")))
    convert(suite, "Office", tmp_path / "root", source=source)
    assert labelled(suite, tmp_path / "root") == expected_labels(columns)
    assert (tmp_path / "root/office/Art/dog/000.jpg").read_bytes() == columns["image"][0]["bytes"]


def test_a_copy_that_names_its_domain_numbers_is_believed(tmp_path: Path) -> None:
    columns = rows()
    columns["domain"] = [int(domain == "Art") for domain in columns["domain"]]
    suite = suite_of(hub={"name": "owner/name", "domains": {"Art": 0, "Real_World": 1}})
    source = parquet(tmp_path / "copy", table(columns, domain=datasets.ClassLabel(names=["real_world", "art"])))
    convert(suite, "Office", tmp_path / "root", source=source)
    assert (tmp_path / "root/office/Art/dog/000.jpg").read_bytes() == columns["image"][0]["bytes"]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    columns = rows()
    theirs = {
        "img": columns["image"],
        "style": columns["domain"],
        "kind": [THEIRS[label] for label in columns["label"]],
    }
    source = parquet(tmp_path / "copy", datasets.Dataset.from_dict(theirs))
    with pytest.raises(DataError, match=r"no column 'image', only 'img', 'style', 'kind'.*--image names another"):
        convert(suite_of(), "Office", tmp_path / "root", source=source)
    convert(suite_of(), "Office", tmp_path / "root", source=source, columns=Columns("img", "kind", "style"))
    assert labelled(suite_of(), tmp_path / "root") == expected_labels(columns)


def test_numbers_without_names_are_an_error_unless_a_file_names_them(tmp_path: Path) -> None:
    columns = rows()
    source = parquet(tmp_path / "copy", table(columns, label=datasets.Value("int64")))
    with pytest.raises(DataError, match=r"numbers without class names.*--names FILE"):
        convert(suite_of(), "Office", tmp_path / "root", source=source)
    names = tmp_path / "names.txt"
    names.write_text("dog\nalarm clok\ncat\n")
    with pytest.raises(DataError, match=r"names\.txt, line 2: 'alarm clok' is no class.*did you mean 'alarm_clock'"):
        convert(suite_of(), "Office", tmp_path / "root", source=source, label_names=names)
    names.write_text("dog\nALARM-CLOCK\ncat\n")
    convert(suite_of(), "Office", tmp_path / "root", source=source, label_names=names)
    assert labelled(suite_of(), tmp_path / "root") == expected_labels(columns)


def test_images_that_are_paths_are_copied(tmp_path: Path) -> None:
    columns, copy = rows(), tmp_path / "copy"
    (copy / "images").mkdir(parents=True)
    for image in columns["image"]:
        (copy / "images" / image["path"][10:]).write_bytes(image["bytes"])
    paths = [f"images/{image['path'][10:]}" for image in columns["image"]]
    data = table({**columns, "image": paths}, image=datasets.Value("string"))
    convert(suite_of(), "Office", tmp_path / "root", source=parquet(copy, data))
    assert labelled(suite_of(), tmp_path / "root") == expected_labels(columns)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/no/such/file.jpg", "which is not there"),
        ("../secret.jpg", "not a file of the copy"),
        ("/etc/hostname", "no known kind of image"),
    ],
)
def test_a_path_that_leads_elsewhere_is_an_error_with_its_row(path: str, expected: str, tmp_path: Path) -> None:
    columns = rows()
    columns["image"][3] = {"bytes": None, "path": path}
    (tmp_path / "secret.jpg").write_bytes(picture(0))
    with pytest.raises(DataError, match=rf"00001\.parquet, row 3 of 0 to 17: points to .*{expected}.*; ."):
        convert(suite_of(), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(columns)))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("image", None, r"has no image, expected stored bytes or a path; get the copy again"),
        (
            "image",
            {"bytes": b"text", "path": None},
            r"expected an image in column 'image', found 4 bytes of no known kind and no file name; get the copy again",
        ),
        ("domain", None, r"has no domain in column 'domain', expected one of 'Art', 'Real_World'; get the copy again"),
        (
            "domain",
            "Atr",
            r"'Atr' .*no domain of the suite; did you mean 'Art'\?; expected 'Art', 'Real_World', found 'Art', 'Atr', "
            r"'Real World'\. --domain-column names another.*\[tasks\.Office\.hub\] domains = ",
        ),
        ("label", None, r"has no label in column 'label', expected one of 'alarm_clock', 'cat', 'dog'; get the copy"),
        (
            "label",
            7,
            r"label 7 in column 'label' has no name, expected 0 to 2, which the copy names; get the copy again",
        ),
    ],
)
def test_a_row_that_cannot_be_placed_is_an_error_with_its_number(
    column: str, value: Any, expected: str, tmp_path: Path
) -> None:
    columns = rows()
    columns[column][5] = value
    # The suite's features would refuse a label without a name, as a hub copy need not.
    whole = table(rows())
    stored = table(columns, label=datasets.Value("int64")).with_format("arrow")[:]
    source = tmp_path / "copy"
    source.mkdir()
    pq.write_table(stored.replace_schema_metadata(whole.features.arrow_schema.metadata), source / "a.parquet")
    with pytest.raises(DataError, match=rf"^{source}/a\.parquet, row 5 of 0 to 17: {expected}"):
        convert(suite_of(), "Office", tmp_path / "root", source=source)
    assert not (tmp_path / "root/office/Real World").exists()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["dog", "alarm_clok", "cat"],
            r"row 2 of 0 to 17: label 'alarm_clok' in column 'label' is no class.*did you mean 'alarm_clock'",
        ),
        (
            ["dog", "alarm-clock", "Dog"],
            r"row 4 of 0 to 17: labels 'dog' and 'Dog' of the copy would both be class 'dog'",
        ),
    ],
)
def test_labels_that_are_not_the_suites_are_an_error(names: list[str], expected: str, tmp_path: Path) -> None:
    source = parquet(tmp_path / "copy", table(rows(), label=datasets.ClassLabel(names=names)))
    with pytest.raises(DataError, match=expected):
        convert(suite_of(), "Office", tmp_path / "root", source=source)


@pytest.mark.parametrize("path", ["../../..", "/", "a/..", "x\n.jpg", ".hidden.jpg", "con.jpg", "x" * 300, "nul", " a"])
def test_names_that_could_lead_astray_are_not_used(path: str, tmp_path: Path) -> None:
    assert safe_name(path) is None
    columns = rows()
    columns["image"][0]["path"] = path
    done = convert(suite_of(), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(columns)))
    assert not done.stored_names
    assert len(files_below(tmp_path / "root")) == 2 * PER_DOMAIN + 1


def test_names_lose_their_folders(tmp_path: Path) -> None:
    columns = rows()
    columns["image"][0]["path"] = "../../../a.jpg"
    columns["image"][1]["path"] = "C:\\pictures\\b.jpg"
    convert(suite_of(), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(columns)))
    assert (tmp_path / "root/office/Art/dog/a.jpg").is_file()
    assert (tmp_path / "root/office/Real World/dog/b.jpg").is_file()


@pytest.mark.parametrize("change", [{"path": "../up"}, {"domains": {"Art": {"path": "/abs"}, "Real_World": {}}}])
def test_a_suite_cannot_write_outside(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leads out of"):
        convert(suite_of(**change), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(rows())))


def test_counts_are_compared_and_the_files_kept(tmp_path: Path) -> None:
    domains = {
        "Art": {"counts": {"train": 10}, "variants": {"the small edition": 9}},
        "Real_World": {"path": "Real World", "counts": {"train": 8}},
    }
    source = parquet(tmp_path / "copy", table(rows()))
    done = convert(suite_of(domains), "Office", tmp_path / "root", source=source)
    assert [(one.files, one.expected, one.variant, one.right) for one in done.domains] == [
        (9, 10, "the small edition", True),
        (9, 8, None, False),
    ]
    assert not done.complete
    assert len(files_below(tmp_path / "root")) == 2 * PER_DOMAIN + 1


def test_a_domain_without_rows_is_a_difference(tmp_path: Path) -> None:
    columns = rows()
    columns["domain"] = ["Art"] * len(columns["domain"])
    done = convert(suite_of(), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(columns)))
    assert [one.files for one in done.domains] == [18, 0]
    assert not done.complete


class _Stopped(Exception):
    pass


def interrupted(suite: Suite, out: Path, source: Path) -> None:
    def stop(task: str, done: int, total: int) -> None:
        if done >= 2 * IMAGES_A_BATCH:
            raise _Stopped

    with pytest.raises(_Stopped):
        convert(suite, "Office", out, source=source, progress=stop)


def long_copy(folder: Path) -> Path:
    """Return a copy whose first domain ends early, and that is longer than two batches."""
    columns = rows(3 * IMAGES_A_BATCH)
    columns["domain"] = ["Art" if i < IMAGES_A_BATCH else "Real World" for i in range(len(columns["domain"]))]
    return parquet(folder, table(columns))


def test_an_interrupted_conversion_goes_on(tmp_path: Path) -> None:
    source, suite, out = long_copy(tmp_path / "copy"), suite_of(), tmp_path / "root"
    interrupted(suite, out, source)
    folder = out / "office"
    assert len(files_below(folder / "Art")) == IMAGES_A_BATCH
    assert not (folder / "Real World").exists()
    (begun,) = folder.glob(".Real World.converting-*")
    cut = next(path for path in sorted(begun.rglob("*.jpg")))
    cut.write_bytes(cut.read_bytes()[:20])
    art = next((folder / "Art").rglob("*.jpg"))
    before = art.stat().st_mtime_ns, art.stat().st_ino
    done = convert(suite, "Office", out, source=source)
    whole = convert(suite, "Office", tmp_path / "other", source=source)
    assert files_below(folder) == files_below(whole.folder)
    assert done == Conversion(**{**vars(whole), "folder": folder})
    assert (art.stat().st_mtime_ns, art.stat().st_ino) == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    # With nothing left to do, nothing is written.
    told = (folder / "conversion.json").stat()
    assert convert(suite, "Office", out, source=source) == done
    assert (folder / "conversion.json").stat().st_ino == told.st_ino


def refusal(suite: Suite, out: Path, source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as refused:
        convert(suite, "Office", out, source=source, **options)
    assert "--resume" not in str(refused.value)
    return str(refused.value)


def test_folders_of_another_conversion_are_an_error_that_says_what_differs(tmp_path: Path) -> None:
    source, out = long_copy(tmp_path / "copy"), tmp_path / "root"
    interrupted(suite_of(), out, source)
    before = files_below(out)
    other = parquet(
        tmp_path / "copy2", table({**rows(), "kind": rows()["label"]}, kind=datasets.ClassLabel(names=THEIRS))
    )
    told = refusal(suite_of(), out, other)
    assert told.startswith(f"{out}/office/Art: already there, converted from {source}, whose rows are not those of")
    assert "name another --out" in told
    convert(suite_of(), "Office", tmp_path / "whole", source=other)
    told = refusal(suite_of(), tmp_path / "whole", other, columns=Columns(label="domain"))
    assert "no class of the suite" in told
    assert files_below(out) == before


def test_another_column_of_the_same_copy_is_another_conversion(tmp_path: Path) -> None:
    columns = rows()
    other = [THEIRS[(label + 1) % 3] for label in columns["label"]]
    data = table({**columns, "kind": other}, kind=datasets.Value("string"))
    source = parquet(tmp_path / "copy", data)
    convert(suite_of(), "Office", tmp_path / "root", source=source)
    told = refusal(suite_of(), tmp_path / "root", source, columns=Columns(label="kind"))
    assert f"converted from {source} with 'label' as the column of labels, and now it is 'kind'" in told


def test_a_report_of_something_else_is_an_error(tmp_path: Path) -> None:
    source, out = parquet(tmp_path / "copy", table(rows())), tmp_path / "root"
    (out / "office").mkdir(parents=True)
    (out / "office" / "conversion.json").write_text("{}")
    with pytest.raises(StoreError, match=r"expected the report of a conversion, found something else.*remove it"):
        convert(suite_of(), "Office", out, source=source)


def test_removed_folders_of_another_conversion_are_no_hindrance(tmp_path: Path) -> None:
    out = tmp_path / "root"
    convert(suite_of(), "Office", out, source=parquet(tmp_path / "copy", table(rows())))
    for name in ("Art", "Real World"):
        shutil.rmtree(out / "office" / name)
    source = parquet(tmp_path / "other", table(rows(first=1)))
    done = convert(suite_of(), "Office", out, source=source)
    assert json.loads((out / "office/conversion.json").read_text())["source"]["name"] == str(source)
    assert [one.files for one in done.domains] == [9, 9]


def test_a_finished_domain_that_was_changed_is_an_error_with_what_differs(tmp_path: Path) -> None:
    source, out = parquet(tmp_path / "copy", table(rows())), tmp_path / "root"
    convert(suite_of(), "Office", out, source=source)
    shutil.rmtree(out / "office/Art/dog")
    told = refusal(suite_of(), out, source)
    assert told.startswith(
        f"{out}/office/Art: converted before, and changed since: expected 3 files in 'dog', found no"
    )
    assert "Remove this folder, and the same command writes it again, or name another --out" in told
    shutil.rmtree(out / "office/Art")
    whole = convert(suite_of(), "Office", tmp_path / "whole", source=source)
    assert files_below(convert(suite_of(), "Office", out, source=source).folder) == files_below(whole.folder)


def test_a_file_that_changed_its_class_is_noticed(tmp_path: Path) -> None:
    source, out = parquet(tmp_path / "copy", table(rows())), tmp_path / "root"
    convert(suite_of(), "Office", out, source=source)
    moved = next((out / "office/Art/dog").iterdir())
    moved.rename(out / "office/Art/cat" / moved.name)
    assert "expected 3 files in 'cat', found 4" in refusal(suite_of(), out, source)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    source, mine = parquet(tmp_path / "copy", table(rows())), tmp_path / "root/office/Art/dog"
    mine.mkdir(parents=True)
    (mine / "a.jpg").write_bytes(b"mine")
    told = refusal(suite_of(), tmp_path / "root", source)
    assert told.startswith(f"{tmp_path}/root/office/Art: already there and not empty, and no conversion made it")
    assert told.endswith("Move it away, or name another --out")
    # Nothing of the copy has to be read for that.
    assert refusal(suite_of(), tmp_path / "root", tmp_path / "absent") == told
    assert files_below(tmp_path / "root/office") == {"Art/dog/a.jpg": b"mine"}


def test_a_folder_of_somebody_else_beside_converted_ones_is_left_alone(tmp_path: Path) -> None:
    source, out = long_copy(tmp_path / "copy"), tmp_path / "root"
    interrupted(suite_of(), out, source)
    (out / "office/Real World").mkdir()
    (out / "office/Real World/a.jpg").write_bytes(b"mine")
    told = refusal(suite_of(), out, source)
    assert told.startswith(f"{out}/office/Real World: already there and not empty, and this conversion did not make it")
    assert (out / "office/Real World/a.jpg").read_bytes() == b"mine"


def test_names_of_a_file_must_be_those_that_the_copy_carries(tmp_path: Path) -> None:
    source, names, out = parquet(tmp_path / "copy", table(rows())), tmp_path / "names.txt", tmp_path / "root"
    (file,) = source.rglob("*.parquet")
    names.write_text("cat\nalarm_clock\ndog\n")
    told = refusal(suite_of(), out, source, label_names=names)
    assert told.startswith(f"{file}, column 'label': names its own classes, and its class 0 is 'dog', where line 1 of")
    assert f"{names} has 'cat'; --names is for a copy that names none: leave it out" in told
    names.write_text("dog\nalarm_clock\n")
    assert "its class 2 is 'cat', where line 3 of" in refusal(suite_of(), out, source, label_names=names)
    assert not out.exists()
    names.write_text("Dog\nalarm-clock\ncat\n")
    convert(suite_of(), "Office", out, source=source, label_names=names)
    assert labelled(suite_of(), out) == expected_labels(rows())


def test_names_for_labels_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    columns, names = rows(), tmp_path / "names.txt"
    columns["label"] = [THEIRS[label] for label in columns["label"]]
    source = parquet(tmp_path / "copy", table(columns, label=datasets.Value("string")))
    names.write_text("dog\nalarm_clock\ncat\n")
    with pytest.raises(UsageError, match=r"column 'label' holds names, not numbers: --names has nothing to name"):
        convert(suite_of(), "Office", tmp_path / "root", source=source, label_names=names)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_told_and_the_same_conversion_goes_on(tmp_path: Path) -> None:
    source, out = long_copy(tmp_path / "copy"), tmp_path / "root"
    interrupted(suite_of(), out, source)
    (begun,) = (out / "office").glob(".Real World.converting-*")
    victim = sorted(begun.rglob("*.jpg"))[-1]
    victim.unlink()
    victim.symlink_to("/dev/full")
    with pytest.raises(StoreError) as full:
        convert(suite_of(), "Office", out, source=source)
    assert str(full.value).startswith(f"{victim}: the disk is full (No space left on device); free some space and give")
    assert str(full.value).endswith("or name a folder on another disk with --out")
    victim.unlink()
    assert convert(suite_of(), "Office", out, source=source).published is False
    whole = convert(suite_of(), "Office", tmp_path / "whole", source=source)
    assert files_below(out / "office") == files_below(whole.folder)


def test_a_file_in_the_way_of_the_folder_is_told(tmp_path: Path) -> None:
    source, file = parquet(tmp_path / "copy", table(rows())), tmp_path / "file"
    file.write_text("mine")
    told = refusal(suite_of(), file / "below" / "it", source)
    assert f"expected a folder to write into, found the file {file} in its way; move that, or name another" in told
    (tmp_path / "root").mkdir()
    (tmp_path / "root/office").write_text("mine")
    assert "found the file" in refusal(suite_of(), tmp_path / "root", source)


def test_a_folder_that_may_not_be_written_is_told_with_the_option(tmp_path: Path) -> None:
    # Nobody, root included, makes a folder there: read-only in a container, forbidden elsewhere.
    source = parquet(tmp_path / "copy", table(rows()))
    with pytest.raises(StoreError, match=r"^/sys/.*(read-only|may not be read or written).*--out$"):
        convert(suite_of(), "Office", Path("/sys/tlbench"), source=source)


def test_images_that_are_paths_of_another_folder_are_another_conversion(tmp_path: Path) -> None:
    out = tmp_path / "root"
    for shift, name in enumerate(("a", "b")):
        columns = rows(first=shift)
        (tmp_path / name / "images").mkdir(parents=True)
        for place, image in enumerate(columns["image"]):
            (tmp_path / name / f"images/{place}.jpg").write_bytes(image["bytes"])
        table_of: dict[str, Any] = {**rows(), "image": [f"images/{place}.jpg" for place in range(2 * PER_DOMAIN)]}
        parquet(tmp_path / name, table(table_of, image=datasets.Value("string")))
    convert(suite_of(), "Office", out, source=tmp_path / "a")
    assert "another folder of images" in refusal(suite_of(), out, tmp_path / "b")


def test_a_saved_copy_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    source = saved(tmp_path / "copy", table(rows()))
    (file,) = source.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(DataError, match=r"^.*/copy: a data set saved with save_to_disk that cannot be read.*--from$"):
        convert(suite_of(), "Office", tmp_path / "root", source=source)


def test_a_copy_with_missing_files_is_an_error(tmp_path: Path) -> None:
    source = parquet(tmp_path / "copy", table(rows()), "train-00001-of-00003.parquet")
    with pytest.raises(DataError, match=r"train-00000-of-00003\.parquet is not there \(2 of 3 files are missing\)"):
        convert(suite_of(), "Office", tmp_path / "root", source=source)


def test_a_source_that_is_none_is_an_error(tmp_path: Path) -> None:
    suite = suite_of()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="found neither"):
        convert(suite, "Office", tmp_path / "root", source=tmp_path / "empty")
    with pytest.raises(DataError, match=r"bad/a\.parquet: not a readable Parquet file of 15 bytes.*get it again"):
        convert(suite, "Office", tmp_path / "root", source=tmp_path / "bad")
    with pytest.raises(UsageError, match="--from: expected a folder, a file or a hub name, got an empty word"):
        convert(suite, "Office", tmp_path / "root", source="")
    with pytest.raises(DataError, match="no such folder or file"):
        convert(suite, "Office", tmp_path / "root", source="/no/such/folder")
    with pytest.raises(UsageError, match="names no hub copy: give one with --from"):
        convert(suite, "Office", tmp_path / "root")
    with pytest.raises(UsageError, match="--download is for hub data sets"):
        convert(suite, "Office", tmp_path / "root", source=tmp_path / "empty", download=True)
    with pytest.raises(UnknownNameError, match="did you mean 'Office'"):
        convert(suite, "Offce", tmp_path / "root", source=tmp_path / "empty")
    with pytest.raises(UsageError, match="is read by 'wilds', which does not take class folders; it is to be had as"):
        convert(suite_of(reader="wilds", obtain="an archive"), "Office", tmp_path / "root", source=tmp_path / "empty")
    assert not (tmp_path / "root").exists()


def test_broken_images_keep_their_names(tmp_path: Path) -> None:
    columns = rows()
    columns["image"][0]["bytes"] = b"not a JPEG any more"
    done = convert(suite_of(), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(columns)))
    assert (done.folder / "Art/dog/000.jpg").read_bytes() == b"not a JPEG any more"
    assert done.domains[0].formats == {"jpg": 8, "unknown": 1}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_formats_are_known_by_their_bytes(kind: str) -> None:
    expected = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
    assert format_of(picture(0, kind)) == expected


def test_one_row_group_is_not_read_at_once(tmp_path: Path) -> None:
    source = parquet(tmp_path / "copy", table(rows(3 * IMAGES_A_BATCH)))
    (file,) = source.rglob("*.parquet")
    pq.write_table(pq.read_table(file), file, row_group_size=10**6)
    copy = open_copy(source)
    sizes = [len(batch) for batch in copy.parts[0].batches(["image"], IMAGES_A_BATCH)]
    assert max(sizes) <= IMAGES_A_BATCH
    assert [stored.row for stored in stored_images(copy.parts[0], "image", 5)] == list(range(5, 5 + copy.rows))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(tlbench.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "tlbench", "data", "convert", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def in_hub_cache(home: Path, commit: str, data: datasets.Dataset, name: str = "flwrlabs--pacs") -> None:
    """Lay a data set out as the hub's cache does."""
    repo = home / "hub" / f"datasets--{name}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    parquet(repo / "snapshots" / commit, data)


def test_the_command_converts_the_suites_hub_copy_from_the_cache(tmp_path: Path) -> None:
    styles, kinds = ["art_painting", "cartoon", "photo", "sketch"], ["person", "dog", "elephant"]
    columns: dict[str, Any] = {
        "image": [{"bytes": picture(i), "path": f"pic_{i:03d}.jpg"} for i in range(12)],
        "domain": [styles[i % 4] for i in range(12)],
        "label": [i // 4 for i in range(12)],
    }
    commit = "0123456789abcdef0123456789abcdef01234567"
    in_hub_cache(tmp_path / "home", commit, table(columns, label=datasets.ClassLabel(names=kinds)))
    words = ("--suite", "ood172", "--task", "PACS", "--out", str(tmp_path / "root"), "--json")
    done = run(*words, HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 4, done.stderr  # three images a domain are not PACS
    told = json.loads(done.stdout)
    assert told["source"]["revision"] == commit
    assert told["source"]["name"] == "flwrlabs/pacs"
    assert [(one["domain"], one["files"], one["expected"]) for one in told["domains"]] == [
        ("art_painting", 3, 2048),
        ("cartoon", 3, 2344),
        ("photo", 3, 1670),
        ("sketch", 3, 3929),
    ]
    assert "The files are kept" in done.stderr
    assert (tmp_path / "root/PACS/photo/dog/pic_006.jpg").read_bytes() == columns["image"][6]["bytes"]


MADE = """name = "made"
[tasks.Office]
reader = "folder"
path = "Office"
classes = ["alarm_clock", "cat", "dog"]
[tasks.Office.hub]
name = "owner/office"
[tasks.Office.domains.Art]
counts = { train = 9 }
[tasks.Office.domains.Real_World]
path = "Real World"
counts = { train = 9 }
[tasks.Home]
reader = "folder"
path = "Home"
classes = ["alarm_clock", "cat", "dog"]
[tasks.Home.hub]
name = "owner/home"
[tasks.Home.domains.Art]
[tasks.Home.domains.Real_World]
"""


@pytest.fixture
def made(tmp_path: Path) -> str:
    (tmp_path / "made.toml").write_text(MADE)
    return str(tmp_path / "made.toml")


STOPPED = """
import os, sys
from tlbench import cli
from tlbench.data.conversion import convert
true, seen = convert._Writer._store, []
def store(self, name, stored):
    if stored.row == 13:
        {stop}
    return true(self, name, stored)
convert._Writer._store = store
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("stop", "code", "told"),
    [
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("os.kill(os.getpid(), 2)", 130, "interrupted; the same command resumes\n"),
    ],
)
@pytest.mark.parametrize("storage", ["saved", "parquet"])
def test_the_same_command_goes_on_after_a_signal(
    stop: str, code: int, told: str, storage: str, made: str, tmp_path: Path
) -> None:
    columns = rows()
    columns["domain"] = ["Art"] * 9 + ["Real World"] * 9
    source = (saved if storage == "saved" else parquet)(tmp_path / "copy", table(columns))
    words = ["--suite", made, "--task", "Office", "--from", str(source), "--quiet", "--out"]
    path = os.pathsep.join(filter(None, [str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED.format(stop=stop), "data", "convert", *words, str(tmp_path / "root")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (stopped.returncode, stopped.stderr) == (code, told)
    assert len(files_below(tmp_path / "root/Office/Art")) == 9
    assert not (tmp_path / "root/Office/Real World").exists()
    done = run(*words, str(tmp_path / "root"))
    assert done.returncode == 0, done.stderr
    whole = run(*words, str(tmp_path / "whole"), "--resume")
    assert whole.returncode == 0, whole.stderr
    assert files_below(tmp_path / "root") == files_below(tmp_path / "whole")


def test_names_and_members_are_claimed_only_for_the_published_counts(made: str, tmp_path: Path) -> None:
    words = ("--suite", made, "--task", "Office", "--from")
    right = run(*words, str(parquet(tmp_path / "copy", table(rows()))), "--out", str(tmp_path / "right"))
    assert "splits have the published members" in right.stderr
    short = run(*words, str(parquet(tmp_path / "less", table(rows(17)))), "--out", str(tmp_path / "short"))
    assert short.returncode == 4
    assert "published" not in short.stderr
    assert "Office: the images are not as many as the suite declares" in short.stderr
    assert f"remove the folders of these domains in {tmp_path}/short/Office, or name another --out" in short.stderr
    told = json.loads((tmp_path / "short/Office/conversion.json").read_text())
    assert told["counts"] == "differ"


def test_several_tasks_are_converted_one_after_the_other(made: str, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name in ("office", "home"):
        in_hub_cache(tmp_path / "home", commit, table(rows()), f"owner--{name}")
    words = ("--suite", made, "--task", "Office", "--task", "Home", "--out", str(tmp_path / "root"))
    done = run(*words, "--json", HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert [(own["task"], own["source"]["name"]) for own in json.loads(done.stdout)] == [
        ("Office", "owner/office"),
        ("Home", "owner/home"),
    ]
    assert (tmp_path / "root/Home/Art/dog/000.jpg").is_file()


def test_one_copy_is_not_taken_for_several_tasks(made: str, tmp_path: Path) -> None:
    copy = str(parquet(tmp_path / "copy", table(rows())))
    words = ("--suite", made, "--task", "Office", "--out", str(tmp_path / "root"))
    refused = run(*words, "--task", "Home", "--from", copy)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: --from says something of one copy, and 2 tasks are named (Office, Home)")
    strange = run(*words, "--task", "Hmoe")
    assert "no task 'Hmoe'" in strange.stderr
    assert "did you mean 'Home'" in strange.stderr
    assert not (tmp_path / "root").exists()


def test_an_empty_word_is_no_folder(made: str, tmp_path: Path) -> None:
    refused = run("--suite", made, "--task", "Office", "--out", "")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --out: expected a folder, got an empty word")


def test_the_command_prints_a_table_and_says_what_is_not_there(tmp_path: Path) -> None:
    copy = parquet(tmp_path / "copy", table(rows()))
    file = tmp_path / "made.toml"
    file.write_text(
        'name = "made"\n[tasks.Office]\nreader = "folder"\nclasses = ["alarm_clock", "cat", "dog"]\n'
        '[tasks.Office.hub]\nname = "owner/absent"\n[tasks.Office.domains.Art]\n'
        "counts = { train = 9 }\n[tasks.Office.domains.Real_World]\n"
    )
    words = ("--suite", str(file), "--task", "Office", "--out", str(tmp_path / "root"))
    absent = run(*words, HF_HOME=str(tmp_path / "home"))
    assert (absent.returncode, absent.stdout) == (2, "")
    assert absent.stderr.startswith("error: hub data set 'owner/absent' is not on this machine")
    assert "--download fetches it" in absent.stderr
    done = run(*words, "--from", str(copy))
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["domain", "files", "expected", "difference", "formats"],
        ["Art", "9", "9", "9", "jpg"],
        ["Real_World", "9", "-", "9", "jpg"],
    ]
    assert "files have their stored names" in done.stderr
    assert (tmp_path / "root/Real_World/dog/001.jpg").is_file()

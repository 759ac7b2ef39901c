"""A hub copy becomes folders: the stored bytes, the suite's labels, and nothing outside the folder."""

from __future__ import annotations

import io
import json
import os
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
from tlbench.data.conversion.copies import IMAGES_A_BATCH, open_copy, stored_images
from tlbench.data.conversion.facts import safe_name
from tlbench.data.conversion.result import Columns, Conversion
from tlbench.data.conversion.stored_format import format_of
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
    known = {}
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
    with pytest.raises(DataError, match=rf"row 3: points to .*{expected}"):
        convert(suite_of(), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(columns)))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("image", None, r"row 5: has no image"),
        ("image", {"bytes": b"text", "path": None}, r"row 5: the 4 bytes in column 'image' are no known kind of image"),
        ("domain", None, r"row 5: has no domain"),
        ("domain", "Atr", r"row 5: 'Atr' .*no domain.*did you mean 'Art'\?; found 'Art', 'Atr', 'Real World'"),
        ("label", None, r"row 5: has no label"),
    ],
)
def test_a_row_that_cannot_be_placed_is_an_error_with_its_number(
    column: str, value: Any, expected: str, tmp_path: Path
) -> None:
    columns = rows()
    columns[column][5] = value
    with pytest.raises(DataError, match=expected):
        convert(suite_of(), "Office", tmp_path / "root", source=parquet(tmp_path / "copy", table(columns)))
    assert not (tmp_path / "root/office/Real World").exists()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dog", "alarm_clok", "cat"], r"row 2: label 'alarm_clok' is no class.*did you mean 'alarm_clock'"),
        (["dog", "alarm-clock", "Dog"], r"row 4: labels 'dog' and 'Dog' of the copy would both be class 'dog'"),
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
    with pytest.raises(DataError, match=r"Art: already there and not empty; --resume"):
        convert(suite, "Office", out, source=source)
    done = convert(suite, "Office", out, source=source, resume=True)
    whole = convert(suite, "Office", tmp_path / "other", source=source)
    assert files_below(folder) == files_below(whole.folder)
    assert done == Conversion(**{**vars(whole), "folder": folder})
    assert (art.stat().st_mtime_ns, art.stat().st_ino) == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert convert(suite, "Office", out, source=source, resume=True) == done


def test_resuming_from_another_copy_is_an_error(tmp_path: Path) -> None:
    source, out = long_copy(tmp_path / "copy"), tmp_path / "root"
    interrupted(suite_of(), out, source)
    with pytest.raises(DataError, match=r"the folders here are from .*copy, converted in another way"):
        convert(suite_of(), "Office", out, source=parquet(tmp_path / "copy2", table(rows())), resume=True)
    (out / "office" / "conversion.json").write_text("{}")
    with pytest.raises(StoreError, match=r"not the report of a conversion"):
        convert(suite_of(), "Office", out, source=source, resume=True)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    source, mine = parquet(tmp_path / "copy", table(rows())), tmp_path / "root/office/Art/dog"
    mine.mkdir(parents=True)
    (mine / "a.jpg").write_bytes(b"mine")
    for resume in (False, True):
        with pytest.raises(DataError, match=r"office/Art: already there and not empty"):
            convert(suite_of(), "Office", tmp_path / "root", source=source, resume=resume)
    assert files_below(tmp_path / "root/office") == {"Art/dog/a.jpg": b"mine"}


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
    with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet file"):
        convert(suite, "Office", tmp_path / "root", source=tmp_path / "bad")
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


def in_hub_cache(home: Path, commit: str, data: datasets.Dataset) -> None:
    """Lay a data set out as the hub's cache does."""
    repo = home / "hub" / "datasets--flwrlabs--pacs"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    parquet(repo / "snapshots" / commit, data)


def test_the_command_converts_the_suites_hub_copy_from_the_cache(tmp_path: Path) -> None:
    styles, kinds = ["art_painting", "cartoon", "photo", "sketch"], ["person", "dog", "elephant"]
    columns = {
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

"""WILDS archives in small: official splits from the CSV files, and every way in which a copy can be wrong."""

from __future__ import annotations

import cProfile
import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tlbench.data.domain import Listing
from tlbench.data.readers.catalogue import read_domain
from tlbench.data.splits import split_places
from tlbench.errors import DataError, UsageError
from tlbench.suites.spec import SplitSpec, TaskSpec

FOLDERS = {
    "camelyon17": ("camelyon17_v1.0", "RELEASE_v1.0.txt"),
    "fmow": ("fmow_v1.1", "RELEASE_v1.1.txt"),
    "iwildcam": ("iwildcam_v2.0", "RELEASE_v2.0.txt"),
    "rxrx1": ("rxrx1_v1.0", "RELEASE_v1.0.txt"),
}
CLASSES = {
    "camelyon17": ["normal", "tumor"],
    "fmow": ["airport", "barn", "zoo"],
    "iwildcam": [str(i) for i in range(4)],
    "rxrx1": [str(i) for i in range(5)],
}


def read(root: Path, dataset: str, domain: str = "id", **changes: Any) -> Listing:
    spec = {
        "reader": "wilds",
        "path": FOLDERS[dataset][0],
        "classes": CLASSES[dataset],
        "domains": {"id": {}, "ood_test": {}, "ood_tset": {}},
        "pairs": [{"source": "id", "target": "ood_test"}],
        "options": {"dataset": dataset},
        **changes,
    }
    return read_domain(TaskSpec.model_validate(spec), dataset, domain, root)


def by_part(found: Listing) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for name, part in zip(found.names, found.columns["part"], strict=True):
        parts.setdefault(part, []).append(name)
    return parts


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def write(root: Path, dataset: str, files: Sequence[str]) -> Path:
    folder, release = FOLDERS[dataset]
    for name in files:
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3), len(name)).save(root / folder / name)
    (root / folder / release).write_text("")
    return root


# --- Camelyon17 ------------------------------------------------------------------------------------------------------

CAMELYON_HEADER = ["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"]
CAMELYON = [
    [0, "004", 4, 3328, 21792, 1, 0, 0, 0],
    [1, "004", 4, 3200, 22272, 0, 0, 0, 1],
    [2, "020", 2, 3168, 22272, 1, 10, 1, 0],  # hospital 1: OOD validation, whatever the split says
    [3, "040", 1, 64, 32, 0, 20, 2, 0],  # hospital 2: OOD test, in both splits
    [4, "041", 0, 96, 32, 1, 21, 2, 1],
    [5, "060", 3, 0, 0, 0, 30, 3, 0],
]


def patch(row: Sequence[object]) -> str:
    folder = f"patient_{row[1]}_node_{row[2]}"
    return f"patches/{folder}/patch_{folder}_x_{row[3]}_y_{row[4]}.png"


@pytest.fixture
def camelyon(tmp_path: Path) -> Path:
    write_csv(tmp_path / "camelyon17_v1.0" / "metadata.csv", CAMELYON_HEADER, CAMELYON)
    return write(tmp_path, "camelyon17", [patch(row) for row in CAMELYON])


def test_camelyon17_hospitals_go_before_the_files_split_and_patients_keep_their_zeros(camelyon: Path) -> None:
    found = read(camelyon, "camelyon17")
    assert by_part(found) == {"train": [patch(CAMELYON[0]), patch(CAMELYON[5])], "val+test": [patch(CAMELYON[1])]}
    assert found.labels.tolist() == [1, 0, 0]
    assert found.columns["patient"] == ("004", "004", "060")
    assert found.columns["hospital"] == ("0", "0", "3")
    assert found.columns["slide"] == ("0", "0", "30")
    assert found.load(0).shape == (3, 3, 3)
    beyond = read(camelyon, "camelyon17", "ood_test")
    assert by_part(beyond) == {"test": [patch(CAMELYON[3]), patch(CAMELYON[4])]}
    assert beyond.columns["node"] == ("1", "0")


# --- FMoW ------------------------------------------------------------------------------------------------------------

FMOW_HEADER = ["img_filename", "category", "split", "country_code", "timestamp"]
FMOW = [
    ["a", "zoo", "train", "FRA", "2012-12-31T23:59:59Z"],
    ["b", "zoo", "seq", "FRA", "2010-01-01T00:00:00Z"],  # counted, and in no set
    ["c", "barn", "train", "FRA", "2013-01-01T00:00:00Z"],  # too late for training: unused
    ["d", "barn", "val", "XKX", "2012-12-31T23:30:00-01:00"],  # 2013 in UTC: OOD validation
    ["e", "airport", "val", "USA", "2013-01-01T00:30:00+01:00"],  # 2012 in UTC
    ["f", "airport", "test", "USA", "2002-08-01T10:00:00+00:00"],
    ["g", "zoo", "test", "ATA", "2015-12-31T23:59:59Z"],  # too early for the OOD test: unused
    ["h", "zoo", "test", "USA", "2016-01-01T00:00:00Z"],
    ["i", "barn", "test", "ATA", "2017-05-05T05:05:05.123Z"],
    ["j", "barn", "val", "USA", "2016-01-01T00:00:00Z"],  # unused
]
COUNTRIES = [["France", "FRA", "Europe"], ["United States", "USA", "Americas"], ["Antarctica", "ATA", ""]]


def write_fmow(root: Path, rows: Sequence[Sequence[object]] = FMOW) -> Path:
    write_csv(root / "fmow_v1.1" / "rgb_metadata.csv", FMOW_HEADER, rows)
    write_csv(root / "fmow_v1.1" / "country_code_mapping.csv", ["name", "alpha-3", "region"], COUNTRIES)
    return root


@pytest.fixture
def fmow(tmp_path: Path) -> Path:
    write(tmp_path, "fmow", [f"images/rgb_img_{i}.png" for i in range(len(FMOW)) if i != 1])
    return write_fmow(tmp_path)


def test_fmow_years_are_in_utc_and_images_are_numbered_by_the_complete_file(fmow: Path) -> None:
    found = read(fmow, "fmow")
    assert by_part(found) == {
        "train": ["images/rgb_img_0.png"],
        "val": ["images/rgb_img_4.png"],
        "test": ["images/rgb_img_5.png"],
    }
    assert found.labels.tolist() == [2, 0, 0]
    assert found.columns["region"] == ("Europe", "Americas", "Americas")
    assert found.columns["year"] == ("2012", "2012", "2002")
    beyond = read(fmow, "fmow", "ood_test")
    assert by_part(beyond) == {"test": ["images/rgb_img_7.png", "images/rgb_img_8.png"]}
    assert beyond.columns["region"] == ("Americas", "Other")
    assert beyond.columns["country"] == ("USA", "ATA")


def test_a_country_without_a_region_is_of_another(fmow: Path) -> None:
    rows = [list(row) for row in FMOW]
    rows[0][3] = "XKX"
    assert read(write_fmow(fmow, rows), "fmow").columns["region"][0] == "Other"


def test_an_fmow_file_without_sequences_was_filtered(fmow: Path) -> None:
    with pytest.raises(DataError, match=r"rgb_metadata.csv has 9 rows and none of the split 'seq'.*get the original"):
        read(write_fmow(fmow, [row for row in FMOW if row[2] != "seq"]), "fmow")


def test_an_fmow_file_shorter_than_its_images_was_filtered(fmow: Path) -> None:
    with pytest.raises(
        DataError, match=r"has 8 rows, .* 9 images, but rgb_img_8.png is the image of no row; .*filtered"
    ):
        read(write_fmow(fmow, FMOW[:8]), "fmow")


def test_an_fmow_image_that_is_absent_is_named_whether_its_row_is_used_or_not(fmow: Path) -> None:
    for number in (5, 2):
        (fmow / "fmow_v1.1" / "images" / f"rgb_img_{number}.png").unlink()
        for domain in ("id", "ood_test"):
            with pytest.raises(DataError, match=f"fmow: .*row {number} .* no image rgb_img_{number}.png; unpack the"):
                read(fmow, "fmow", domain)


def test_the_first_row_without_an_image_is_none_of_a_sequence(tmp_path: Path) -> None:
    rows = [FMOW[1], *(row for row in FMOW if row[2] != "seq"), FMOW[1], FMOW[0]]
    write(tmp_path, "fmow", [f"images/rgb_img_{i}.png" for i, row in enumerate(rows) if row[2] != "seq"])
    with pytest.raises(
        DataError, match=r"but row 10 \(the first is 0\) has no image rgb_img_10.png, and rgb_img_11.png"
    ):
        read(write_fmow(tmp_path, [*rows[:3], *rows[4:]]), "fmow")


SEQUENCES = [[name, "zoo", "seq", "FRA", "2010-01-01T00:00:00Z"] for name in "xyz"]


def write_images(root: Path, numbers: Sequence[int]) -> Path:
    return write(root, "fmow", [f"images/rgb_img_{i}.png" for i in numbers])


def test_sequences_may_all_have_images_or_none(tmp_path: Path) -> None:
    used = [row for row in FMOW if row[2] != "seq"]
    root = write_fmow(write_images(tmp_path, range(9)), [*used, *SEQUENCES])
    expected = read(root, "fmow").names
    write_images(tmp_path, range(12))
    assert read(root, "fmow").names == expected


@pytest.mark.parametrize(
    ("images", "dropped", "message"),
    [
        # The sequences stand last: without the late row, every number still has its row, and later labels are wrong.
        (9, 1, r"has 11 rows, 3 of them 'seq', .*but of the rows 'seq', 8 has an image and 9 has none; .*filtered"),
        (12, 1, r"has 11 rows, .*but rgb_img_11.png is the image of no row; .*filtered"),
        (12, 9, r"has 11 rows, 2 of them 'seq', .*but rgb_img_11.png is the image of no row"),
        (11, None, r"has 12 rows, .*but of the rows 'seq', 9 has an image and 11 has none; .*unpacked in part"),
    ],
)
def test_a_row_that_was_left_out_anywhere_is_told(
    tmp_path: Path, images: int, dropped: int | None, message: str
) -> None:
    rows = [*(row for row in FMOW if row[2] != "seq"), *SEQUENCES]
    root = write_fmow(write_images(tmp_path, range(images)), [row for i, row in enumerate(rows) if i != dropped])
    with pytest.raises(DataError, match=message):
        read(root, "fmow")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            2,
            "tset",
            "line 2: expected split to be one of 'train', 'val', 'test', 'seq', got 'tset'; did you mean 'test",
        ),
        (4, "yesterday", r"line 2: expected timestamp to be a time such as 2013-01-01T00:00:00Z, got 'yesterday'"),
        (1, "baarn", "line 2: 'baarn' is none of the suite's 3 classes; did you mean 'barn'"),
    ],
)
def test_a_value_that_the_release_does_not_have_is_named(fmow: Path, place: int, value: str, message: str) -> None:
    rows = [list(row) for row in FMOW]
    rows[0][place] = value
    with pytest.raises(DataError, match=message):
        read(write_fmow(fmow, rows), "fmow")


# --- iWildCam, RxRx1 -------------------------------------------------------------------------------------------------

WILDCAM_HEADER = ["split", "filename", "y", "location_remapped", "sequence_remapped", "datetime"]
WILDCAM = [
    ["test", "t.jpg", 3, 7, 70, "2013"],
    ["id_val", "v.jpg", 0, 1, 11, "2013"],
    ["train", "b.jpg", 1, 1, 12, "2013"],
    ["val", "o.jpg", 1, 5, 50, "2013"],
    ["train", "a.jpg", 0, 2, 13, "2013"],
    ["id_test", "s.jpg", 3, 2, 14, "2013"],
]


@pytest.fixture
def iwildcam(tmp_path: Path) -> Path:
    write_csv(tmp_path / "iwildcam_v2.0" / "metadata.csv", WILDCAM_HEADER, WILDCAM)
    return write(tmp_path, "iwildcam", [f"train/{row[1]}" for row in WILDCAM])


def test_iwildcam_images_all_lie_in_one_folder_and_keep_the_order_of_the_file(iwildcam: Path) -> None:
    found = read(iwildcam, "iwildcam")
    assert by_part(found) == {"val": ["train/v.jpg"], "train": ["train/b.jpg", "train/a.jpg"], "test": ["train/s.jpg"]}
    assert found.labels.tolist() == [0, 1, 0, 3]  # class 2 is nowhere, and its number stays its own
    assert found.classes == ("0", "1", "2", "3")
    assert found.columns["location"] == ("1", "1", "2", "2")
    assert found.columns["sequence"] == ("11", "12", "13", "14")
    assert by_part(read(iwildcam, "iwildcam", "ood_test")) == {"test": ["train/t.jpg"]}


def test_classes_without_images_pass_the_split(iwildcam: Path) -> None:
    found = read(iwildcam, "iwildcam", "ood_test")
    parts = split_places(found, SplitSpec(rule="assaying-given"), None, task="t", domain="d")
    assert {part: len(places) for part, places in parts.items()} == {"train": 0, "val": 0, "test": 1}


@pytest.mark.parametrize("label", ["4", "-1", "bear", "1.0"])
def test_a_label_out_of_range_is_an_error(iwildcam: Path, label: str) -> None:
    rows = [list(row) for row in WILDCAM]
    rows[2][2] = label
    write_csv(iwildcam / "iwildcam_v2.0" / "metadata.csv", WILDCAM_HEADER, rows)
    with pytest.raises(DataError, match=f"metadata.csv, line 4: expected a label of 0 to 3, got '{label}'"):
        read(iwildcam, "iwildcam")


def test_a_domain_without_a_row_is_told(iwildcam: Path) -> None:
    rows = [row for row in WILDCAM if row[0] != "test"]
    write_csv(iwildcam / "iwildcam_v2.0" / "metadata.csv", WILDCAM_HEADER, rows)
    with pytest.raises(DataError, match=r"iwildcam/ood_test: none of the 5 rows of .*metadata.csv is of this domain"):
        read(iwildcam, "iwildcam", "ood_test")


RXRX_HEADER = ["site_id", "well_id", "cell_type", "dataset", "experiment", "plate", "well", "site", "sirna_id"]
RXRX = [
    ["x", "x", "HEPG2", "train", "HEPG2-01", 1, "B02", 1, 4],
    ["x", "x", "HEPG2", "train", "HEPG2-01", 1, "B02", 2, 4],
    ["x", "x", "HUVEC", "train", "HUVEC-03", 2, "C05", 2, 0],
    ["x", "x", "HUVEC", "val", "HUVEC-17", 1, "C05", 1, 0],
    ["x", "x", "U2OS", "test", "U2OS-04", 4, "D11", 1, 1],
    ["x", "x", "U2OS", "test", "U2OS-04", 4, "D11", 2, 1],
]


@pytest.fixture
def rxrx1(tmp_path: Path) -> Path:
    write_csv(tmp_path / "rxrx1_v1.0" / "metadata.csv", RXRX_HEADER, RXRX)
    return write(tmp_path, "rxrx1", [f"images/{row[4]}/Plate{row[5]}/{row[6]}_s{row[7]}.png" for row in RXRX])


def test_rxrx1_trains_on_one_site_and_is_tested_on_the_other(rxrx1: Path) -> None:
    found = read(rxrx1, "rxrx1")
    assert by_part(found) == {
        "train": ["images/HEPG2-01/Plate1/B02_s1.png"],
        "val+test": ["images/HEPG2-01/Plate1/B02_s2.png", "images/HUVEC-03/Plate2/C05_s2.png"],
    }
    assert found.labels.tolist() == [4, 4, 0]
    assert found.columns["cell_type"] == ("HEPG2", "HEPG2", "HUVEC")
    assert (found.columns["plate"], found.columns["site"]) == (("1", "1", "2"), ("1", "2", "2"))
    beyond = read(rxrx1, "rxrx1", "ood_test")
    assert by_part(beyond) == {"test": ["images/U2OS-04/Plate4/D11_s1.png", "images/U2OS-04/Plate4/D11_s2.png"]}


@pytest.mark.parametrize(
    ("dataset", "place", "value", "message"),
    [
        ("iwildcam", 0, "trian", "expected split to be one of 'train', .*, got 'trian'; did you mean 'train'"),
        ("rxrx1", 3, "id_test", "expected dataset to be one of 'train', 'val', 'test', got 'id_test'"),
        ("rxrx1", 7, "3", "expected site to be one of '1', '2', got '3'"),
    ],
)
def test_a_set_or_site_that_the_release_does_not_have_is_named(
    iwildcam: Path, rxrx1: Path, dataset: str, place: int, value: str, message: str
) -> None:
    header, rows = (WILDCAM_HEADER, WILDCAM) if dataset == "iwildcam" else (RXRX_HEADER, RXRX)
    changed = [[*rows[0][:place], value, *rows[0][place + 1 :]], *rows[1:]]
    write_csv(iwildcam / FOLDERS[dataset][0] / "metadata.csv", header, changed)
    with pytest.raises(DataError, match=f"^{dataset}: .*metadata.csv, line 2: {message}"):
        read(iwildcam, dataset)


# --- what all four share ---------------------------------------------------------------------------------------------


def _without_release(folder: Path) -> None:
    (folder / "RELEASE_v1.0.txt").rename(folder / "RELEASE_v0.9.txt")


def _without_table(folder: Path) -> None:
    (folder / "metadata.csv").rename(folder / "metadata.csv.part")


def _without_columns(folder: Path) -> None:
    file = folder / "metadata.csv"
    file.write_text(file.read_text().replace("tumor", "tumour"))


def _cut_off(folder: Path) -> None:
    file = folder / "metadata.csv"
    file.write_text(file.read_text().rstrip()[:-6])


def _with_another_split(folder: Path) -> None:
    file = folder / "metadata.csv"
    file.write_text(file.read_text().replace("3,0\n", "3,7\n").replace("3,0\r\n", "3,7\r\n"))


def _with_a_sixth_hospital(folder: Path) -> None:
    file = folder / "metadata.csv"
    file.write_text(file.read_text().replace("30,3,0", "30,5,0"))


def _with_a_row_twice(folder: Path) -> None:
    lines = (folder / "metadata.csv").read_text().splitlines()
    (folder / "metadata.csv").write_text("\n".join([*lines, lines[2]]))


def _with_a_header_alone(folder: Path) -> None:
    (folder / "metadata.csv").write_text((folder / "metadata.csv").read_text().splitlines()[0] + "\n")


def _with_a_folder_as_table(folder: Path) -> None:
    (folder / "metadata.csv").unlink()
    (folder / "metadata.csv").mkdir()


def _without_any_release(folder: Path) -> None:
    (folder / "RELEASE_v1.0.txt").unlink()


def _one_folder_too_deep(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    folder.with_name("moved").rename(folder / folder.name)


def _without_images(folder: Path) -> None:
    (folder / "patches").rename(folder / "patch")


def _without_a_folder_of_images(folder: Path) -> None:
    (folder / "patches" / "patient_004_node_4").rename(folder / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _without_release,
            r"^camelyon17: expected version 1.0 of the archive in .*_v1.0, found 'RELEASE_v0.9.txt'; get version 1.0$",
        ),
        (
            _without_any_release,
            r"release file RELEASE_v1.0.txt in .*, found no release file; .* make an empty one if you",
        ),
        (_one_folder_too_deep, r"found no release file; it is in .*camelyon17_v1.0, one folder too deep: move what"),
        (_with_a_sixth_hospital, r"metadata.csv, line 7: expected center to be one of '0', .*'4', got '5'"),
        (_with_a_row_twice, r"metadata.csv, line 8: names the image patches/.*_22272.png, as line 3 does; .*original"),
        (_with_a_header_alone, r"metadata.csv has no row below its header; the file is cut off: get it again"),
        (_with_a_folder_as_table, r"expected the CSV file of the data set at .*metadata.csv, found a folder$"),
        (_without_table, r"expected the CSV file of the data set at .*metadata.csv, found nothing; did you mean"),
        (_without_columns, r"metadata.csv has no column 'tumor', expected .*, found .*; did you mean 'tumour'"),
        (_cut_off, r"metadata.csv, line 7: expected 9 values, got 7; the file is cut off"),
        (_with_another_split, r"metadata.csv, line 7: expected split to be one of '0', '1', got '7'"),
        (_without_images, r"expected the folder of images at .*patches, found nothing; did you mean 'patch'"),
        (_without_a_folder_of_images, r"2 of 3 images that the CSV names are not in .*, such as 'patches/patient_004"),
    ],
)
def test_an_incomplete_copy_is_an_error_that_names_the_file(
    camelyon: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(camelyon / "camelyon17_v1.0")
    with pytest.raises(DataError, match=message) as first:
        read(camelyon, "camelyon17")
    if damage is not _without_a_folder_of_images:
        # What both domains meet is one error.
        with pytest.raises(DataError, match=f"^{re.escape(str(first.value))}$"):
            read(camelyon, "camelyon17", "ood_test")


def test_a_copy_that_is_not_there_or_a_slip_of_the_suite_is_answered(camelyon: Path) -> None:
    with pytest.raises(DataError, match="expected the folder of an unpacked WILDS archive"):
        read(camelyon, "fmow")
    with pytest.raises(UsageError, match="got 'camelyon'; did you mean 'camelyon17'"):
        read(camelyon, "camelyon17", options={"dataset": "camelyon"})
    with pytest.raises(UsageError, match="needs the task's classes"):
        read(camelyon, "camelyon17", classes=None)
    with pytest.raises(DataError, match="has the domains 'id', 'ood_test', got 'ood_tset'; did you mean 'ood_test'"):
        read(camelyon, "camelyon17", "ood_tset")


def test_other_images_and_other_labels_have_other_fingerprints(camelyon: Path) -> None:
    before = read(camelyon, "camelyon17").fingerprint()
    assert read(camelyon, "camelyon17").fingerprint() == before
    Image.new("L", (3, 3), 200).save(camelyon / "camelyon17_v1.0" / patch(CAMELYON[0]))
    after = read(camelyon, "camelyon17").fingerprint()
    assert after != before
    rows = [[*row[:5], 1 - int(str(row[5])), *row[6:]] for row in CAMELYON]
    write_csv(camelyon / "camelyon17_v1.0" / "metadata.csv", CAMELYON_HEADER, rows)
    assert read(camelyon, "camelyon17").fingerprint() != after


def test_a_byte_order_mark_windows_lines_and_blank_lines_are_nothing(camelyon: Path) -> None:
    file = camelyon / "camelyon17_v1.0" / "metadata.csv"
    expected = read(camelyon, "camelyon17")
    text = file.read_text().replace("\r\n", "\n").replace("\n", "\n\n").replace("\n", "\r\n")
    file.write_text("\ufeff" + text, encoding="utf-8", newline="")
    found = read(camelyon, "camelyon17")
    assert (found.names, found.columns) == (expected.names, expected.columns)


def test_work_grows_with_the_rows_and_not_faster(tmp_path: Path) -> None:
    """The largest of the four has 450,000. Calls are counted: a clock would tell of the machine, too."""
    from tlbench.data.readers.address import Address
    from tlbench.data.readers.wilds_layouts import LAYOUTS, rows_of_table

    def calls(count: int) -> int:
        rows = [[i, f"{i % 50:03d}", i % 5, i, i, i % 2, i % 50, i % 5, 0] for i in range(count)]
        write_csv(tmp_path / "metadata.csv", CAMELYON_HEADER, rows)
        with cProfile.Profile() as profile:
            found = list(rows_of_table(Address("t", "d", tmp_path, "", "id"), LAYOUTS["camelyon17"]))
        assert sum(row.official == "ood_test" for _, row in found) == count / 5
        return sum(entry.callcount for entry in profile.getstats())

    calls(300)  # what is imported once
    assert calls(30_000) < 10.5 * calls(3_000)

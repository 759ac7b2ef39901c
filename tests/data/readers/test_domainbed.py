"""DomainBed's layout with the pitfalls of its copies, and hub copies in its place."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tlbench.data.digests import FileDigests
from tlbench.data.domain import Listing
from tlbench.data.readers.catalogue import read_domain
from tlbench.data.splits import split_places
from tlbench.errors import DataError, UsageError
from tlbench.suites.load import load_suite
from tlbench.suites.spec import SplitSpec, TaskSpec

Folders = Callable[..., Path]
ROOMS = ["Alarm_Clock", "Bed", "TV", "Table"]
FOUR = {"Alarm_Clock": 2, "Bed": 1, "TV": 1, "Table": 1}


def read(
    root: Path,
    domain: str = "Art",
    own: dict[str, Any] | None = None,
    classes: list[str] | None = None,
    memory: Path | None = None,
    **task: Any,
) -> Listing:
    spec = TaskSpec.model_validate(
        {
            "reader": "domainbed",
            "classes": classes or ROOMS,
            "domains": {domain: own or {}, "another": {}},
            **({"path": "office_home"} | task),
        }
    )
    return read_domain(spec, "OfficeHome", domain, root, digests=FileDigests(memory))


@pytest.fixture
def office(folders: Folders) -> Callable[..., Path]:
    def write(classes: dict[str, int] = FOUR, domain: str = "Art") -> Path:
        return folders({domain: classes}, root="data/office_home").parent

    return write


def test_files_beside_domains_and_classes_are_ignored(office: Callable[..., Path]) -> None:
    root = office()
    (root / "office_home" / "Art.txt").write_text("a list")
    (root / "office_home" / "ImageInfo.csv").write_text("a,b")
    (root / "office_home" / "Art" / "Thumbs.db").write_bytes(b"")
    (root / "office_home" / "Art" / "Bed" / "notes.md").write_text("")
    found = read(root)
    assert found.names == (
        "Alarm_Clock/000.png", "Alarm_Clock/001.png", "Bed/000.png", "TV/000.png", "Table/000.png",
    )  # fmt: skip
    assert found.labels.tolist() == [0, 0, 1, 2, 3]
    assert found.classes == tuple(ROOMS)


@pytest.mark.parametrize("folder", ["Real World", "Real_World", "real-world"])
@pytest.mark.parametrize("own", [{}, {"path": "Real World"}])
def test_real_world_is_found_however_it_is_spelled(
    office: Callable[..., Path], folder: str, own: dict[str, str]
) -> None:
    assert len(read(office(domain=folder), "Real_World", own)) == 5


def test_two_spellings_of_one_domain_are_an_error(office: Callable[..., Path]) -> None:
    root = office(domain="REAL_WORLD")
    office(domain="real world")
    with pytest.raises(DataError, match=r"expected one folder 'Real_World' in .*, found 'REAL_WORLD' and 'real world'"):
        read(root, "Real_World")


def test_a_copy_that_spells_its_classes_otherwise_is_the_same_data(
    office: Callable[..., Path], folders: Folders
) -> None:
    ours = read(office())
    # Sorted by their own names, 'table' comes before 'tv': positions among folders would swap two labels.
    others = {"alarm clock": 2, "bed": 1, "tv": 1, "table": 1}
    theirs = read(folders({"Art": others}, root="copy/office_home").parent)
    assert theirs.names == ours.names
    assert theirs.labels.tolist() == ours.labels.tolist()
    rule = SplitSpec(rule="assaying")
    for part, places in split_places(ours, rule, None, task="t", domain="d").items():
        assert split_places(theirs, rule, None, task="t", domain="d")[part].tolist() == places.tolist()
    assert theirs.load(3).shape == (16, 20, 3)


@pytest.mark.parametrize(
    ("folders_there", "message"),
    [
        (["Alarm_Clock", "Bed", "Table"], r"the suite's 4 classes in .*Art, found 3: missing 'TV'; labels would shift"),
        ([*ROOMS, "Lamp"], "found 5: not of the suite 'Lamp'"),
        (["Alarm_Clock", "Bad", "TV", "Table"], "missing 'Bed'; not of the suite 'Bad'; did you mean 'Bed'"),
        ([*ROOMS, "alarm clock"], "a second spelling of another class 'alarm clock'"),
    ],
)
def test_class_folders_must_be_the_suites(office: Callable[..., Path], folders_there: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(office(dict.fromkeys(folders_there, 1)))


def test_a_domain_may_be_declared_to_have_fewer_classes(office: Callable[..., Path]) -> None:
    assert read(office({"Bed": 1, "TV": 1}), own={"classes": ["Bed", "TV"]}).classes == ("Bed", "TV")


def test_an_empty_class_folder_is_named(office: Callable[..., Path]) -> None:
    root = office({"Alarm_Clock": 1, "Bed": 1, "TV": 1})
    (root / "office_home" / "Art" / "Table").mkdir()
    with pytest.raises(DataError, match="Table has no image"):
        read(root)


def test_folders_that_hold_nothing_are_no_classes(office: Callable[..., Path]) -> None:
    root = office()
    for stray in ("new folder/deeper", "@eaDir/000.png", "alarm clock"):
        (root / "office_home" / "Art" / stray).mkdir(parents=True)
    assert len(read(root)) == 5


def test_a_missing_domain_or_task_is_answered_with_what_is_there(office: Callable[..., Path]) -> None:
    root = office(domain="Arts")
    with pytest.raises(DataError, match=r"expected a folder of class folders at .*did you mean 'Arts'"):
        read(root)
    with pytest.raises(DataError, match=r"expected a folder of class folders at .*did you mean 'office_home'"):
        read(root, path="office_homes")


def test_the_suites_own_tasks_are_all_read_by_this_or_the_wilds_reader() -> None:
    readers = {name: task.reader for name, task in load_suite("ood172").tasks.items()}
    assert [name for name, reader in readers.items() if reader == "domainbed"] == [
        "DomainNet", "OfficeHome", "PACS", "SVIRO", "TerraIncognita", "VLCS",
    ]  # fmt: skip
    assert {reader for reader in readers.values()} == {"domainbed", "wilds"}


# --- images to leave out ---------------------------------------------------------------------------------------------

NET = {"path": "domain_net", "classes": ["ant", "The_Mona_Lisa"], "options": {"exclude": "duplicates.txt"}}


@pytest.fixture
def net(folders: Folders) -> Path:
    return folders({"clipart": {"ant": 3, "The_Mona_Lisa": 2}}, root="data/domain_net").parent


@pytest.mark.parametrize(
    "text",
    [
        "clipart/ant/001.png\nclipart/The_Mona_Lisa/000.png\nreal/ant/000.png\n",
        "domain_net/clipart/ant/001.png\r\ndomain_net/clipart/The_Mona_Lisa/000.png\r\n\r\n",
        "./clipart\\ant\\001.png\nclipart/the mona lisa/000.png\nclipart/ant/099.png",
        "\ufeffclipart/ant/001.png\nclipart/The_Mona_Lisa/000.png",
    ],
)
def test_images_that_a_file_names_are_left_out(net: Path, text: str) -> None:
    (net / "domain_net" / "duplicates.txt").write_text(text, encoding="utf-8", newline="")
    found = read(net, "clipart", **NET)
    assert found.names == ("The_Mona_Lisa/001.png", "ant/000.png", "ant/002.png")
    assert found.labels.tolist() == [1, 0, 0]
    assert found.hint == ""
    whole = read(net, "clipart", **{**NET, "options": {}})
    np.testing.assert_array_equal(found.load(2), whole.load(4))
    assert found.fingerprint() != whole.fingerprint()


def test_without_that_file_nothing_is_left_out_and_the_listing_hints_at_it(net: Path) -> None:
    found = read(net, "clipart", **NET)
    assert len(found) == 5
    assert "duplicates.txt is not there, so the images that it names" in found.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"<!DOCTYPE html>\n<html>",
            "duplicates.txt, line 1: expected <domain>/<class>/<file>, got '<!DOCTYPE html>';",
        ),
        (b"", "no line of .*duplicates.txt names an image of this task; get DomainBed's misc/duplicates.txt again"),
        (b"Art/Bed/000.png\n", "no line of .*duplicates.txt names an image of this task;"),
        (b"\xff\x00", "duplicates.txt cannot be read .*; get DomainBed's misc/duplicates.txt again, as text"),
        (None, "expected a list of images at .*duplicates.txt, found a folder;"),
    ],
)
def test_what_is_no_such_list_is_the_same_error_for_every_domain(
    net: Path, content: bytes | None, message: str
) -> None:
    file = net / "domain_net" / "duplicates.txt"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match=f"^OfficeHome: .*{message}") as first:
        read(net, "clipart", **NET)
    shutil.copytree(net / "domain_net" / "clipart", net / "domain_net" / "real")
    with pytest.raises(DataError) as second:
        read(net, "real", **NET)
    assert str(second.value) == str(first.value)


def test_a_list_that_names_no_image_of_a_domain_is_hinted_at(net: Path) -> None:
    (net / "domain_net" / "duplicates.txt").write_text("clipart/ant/099.png\nanother/ant/000.png\n")
    found = read(net, "clipart", **NET)
    assert len(found) == 5
    assert found.hint.endswith("duplicates.txt names an image of this domain")


# --- scenes, unreadable images ---------------------------------------------------------------------------------------


def test_a_name_that_does_not_fit_the_pattern_is_a_cluster_of_its_own(folders: Folders) -> None:
    root = folders({"x5": {"0": 1, "1": 1}}, root="data/sviro").parent
    for seat, label in enumerate("011"):
        name = f"x5_train_imageID_17_seatPosition_{seat}_GT_{label}.png"
        Image.new("L", (5, 9), 100).save(root / "sviro" / "x5" / label / name)
    found = read(
        root, "x5", path="sviro", classes=["0", "1"], options={"pattern": r"imageID_(?P<scene>\d+)"}, cluster="scene"
    )
    assert found.columns["scene"] == ("0/000.png", "17", "1/000.png", "17", "17")
    assert found.load(1).tolist() == np.full((9, 5, 3), 100).tolist()  # grey becomes RGB


@pytest.fixture
def torn(folders: Folders) -> Path:
    """Two of nine images are cut off or empty."""
    root = folders({"LabelMe": {"bird": 4, "car": 5}}, root="data/VLCS").parent
    (root / "VLCS/LabelMe/bird/001.png").write_bytes(b"")
    whole = (root / "VLCS/LabelMe/car/002.png").read_bytes()
    (root / "VLCS/LabelMe/car/002.png").write_bytes(whole[: len(whole) // 2])
    return root


VLCS: dict[str, Any] = {"path": "VLCS", "classes": ["bird", "car"]}


def test_unreadable_images_are_marked_where_the_suite_allows_for_them(torn: Path) -> None:
    found = read(torn, "LabelMe", {"options": {"unreadable": 2}}, **VLCS)
    assert {found.names[place] for place in found.unreadable} == {"bird/001.png", "car/002.png"}
    assert len(found) == 9
    assert found.fingerprint() != read(torn, "LabelMe", **VLCS).fingerprint()


def test_more_unreadable_images_than_allowed_are_an_error_that_names_them(torn: Path) -> None:
    with pytest.raises(DataError, match=r"at most 1 unreadable .*, found 2, such as 'bird/001.png', 'car/002.png'"):
        read(torn, "LabelMe", {"options": {"unreadable": 1}}, **VLCS)


def test_unreadable_images_are_looked_for_once(torn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlbench.data.readers import domainbed

    tried: list[int] = []
    decodes = domainbed._decodes
    monkeypatch.setattr(domainbed, "_decodes", lambda listing, place: tried.append(place) or decodes(listing, place))
    own = {"options": {"unreadable": 2}}
    first = read(torn, "LabelMe", own, memory=tmp_path / "memory", **VLCS)
    again = read(torn, "LabelMe", own, memory=tmp_path / "memory", **VLCS)
    assert again.unreadable == first.unreadable
    assert len(tried) == 9
    # A repaired file is another file.
    Image.new("RGB", (30, 30)).save(torn / "VLCS/LabelMe/bird/001.png")
    assert len(read(torn, "LabelMe", own, memory=tmp_path / "memory", **VLCS).unreadable) == 1
    assert len(tried) == 18


@pytest.mark.parametrize("most", [-1, "four", True])
def test_unreadable_is_a_number(torn: Path, most: object) -> None:
    with pytest.raises(UsageError, match="unreadable is a number of images"):
        read(torn, "LabelMe", {"options": {"unreadable": most}}, **VLCS)


# --- hub copies ------------------------------------------------------------------------------------------------------

HUB = {"hub": {"name": "somebody/rooms"}}
COPY = ["Table", "Alarm Clock", "Bed", "TV"]  # another order, another spelling


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def rooms(domain: Callable[[int], object], *, paths: bool = True, named: bool = True) -> pa.Table:
    """Return sixteen rows, two domains by turns, labels numbered in the copy's own order."""
    features = {"label": {"names": COPY, "_type": "ClassLabel"}} if named else {}
    return pa.table(
        {
            "image": pa.array(
                [{"bytes": picture(i), "path": f"{15 - i:05d}.jpg" if paths else None} for i in range(16)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "domain": [domain(i % 2) for i in range(16)],
            "label": [(i // 2) % 4 for i in range(16)],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(root: Path, table: pa.Table) -> Path:
    (root / "office_home" / "data").mkdir(parents=True)
    for number in range(2):  # a hub's two files, 70 % and 30 %
        rows = table.slice(0, 11) if not number else table.slice(11)
        pq.write_table(rows, root / "office_home" / "data" / f"{('train', 'test')[number]}-00000-of-00001.parquet")
    return root


def check_labels(found: Listing) -> None:
    """Hold labels against the pixels: red tells the row of the copy."""
    assert len(found) == 8
    assert found.classes == tuple(ROOMS)
    for place, name in enumerate(found.names):
        row = int(found.load(place)[0, 0, 0])
        assert row % 2 == 1
        expected = COPY[(row // 2) % 4].replace(" ", "_")
        assert found.classes[found.labels[place]] == name.split("/")[0] == expected


@pytest.mark.parametrize(
    ("domains", "spelled"),
    [
        ({}, ["Art", "Real World"]),
        ({"Real_World": "Real World"}, ["Art", "Real World"]),
        ({}, ["Art", "Real_World"]),
        ({"Art": 0, "Real_World": 1}, [0, 1]),
    ],
)
def test_a_parquet_copy_is_read_by_class_names_and_by_what_it_calls_the_domain(
    tmp_path: Path, domains: dict[str, object], spelled: list[object]
) -> None:
    root = write_parquet(tmp_path, rooms(lambda i: spelled[i]))
    hub = {"hub": {"name": "somebody/rooms", "domains": domains}}
    found = read(root, "Real_World", {"path": "Real World"}, **hub)
    check_labels(found)
    assert found.note == "members by file name"
    assert "Alarm_Clock/00004.jpg" in found.names
    assert found.columns == {}


def test_a_copy_without_file_names_says_that_its_members_are_rows(tmp_path: Path) -> None:
    found = read(write_parquet(tmp_path, rooms(lambda i: ["Art", "Real World"][i], paths=False)), "Real_World", **HUB)
    check_labels(found)
    assert found.note.startswith("members by row number")


def test_a_saved_copy_is_read_like_any_other(tmp_path: Path) -> None:
    import datasets

    table = rooms(lambda i: i, paths=False)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "domain": datasets.ClassLabel(names=["Art", "Real World"]),
            "label": datasets.ClassLabel(names=COPY),
        }
    )
    rows = {name: table.column(name).to_pylist() for name in table.column_names}
    whole = datasets.Dataset.from_dict(rows, features=features)
    parts = datasets.DatasetDict({"train": whole.select(range(11)), "test": whole.select(range(11, 16))})
    parts.save_to_disk(str(tmp_path / "office_home"))
    found = read(tmp_path, "Real_World", hub={"name": "x/y", "domains": {"Art": 0, "Real_World": 1}})
    check_labels(found)
    assert found.note.startswith("members by row number")


def test_a_copy_whose_labels_are_bare_numbers_is_an_error(tmp_path: Path) -> None:
    root = write_parquet(tmp_path, rooms(lambda i: ["Art", "Real World"][i], named=False))
    with pytest.raises(DataError, match=r"are numbers \(0, 1, 2, 3, ...\) without the names of their classes") as error:
        read(root, "Art", **HUB)
    convert = f"`tlbench data convert --task OfficeHome --from {root / 'office_home'} --names FILE`"
    assert convert in str(error.value)


def test_a_copy_with_other_classes_or_without_the_domain_is_an_error(tmp_path: Path) -> None:
    root = write_parquet(tmp_path, rooms(lambda i: ["Art", "Real World"][i]))
    with pytest.raises(DataError, match="missing 'Sofa'; not of the suite 'TV'"):
        read(root, "Art", classes=["Alarm_Clock", "Bed", "Sofa", "Table"], **HUB)
    with pytest.raises(
        DataError, match=r"column 'domain' has no 'Clipart', only 'Art', 'Real World'; .*-column"
    ) as error:
        read(root, "Clipart", **HUB)
    assert "domains in the suite's [tasks.OfficeHome.hub]" in str(error.value)
    with pytest.raises(DataError, match=r"parquet has no column 'place', only 'image', 'domain', 'label'; .*-column"):
        read(root, "Art", hub={"name": "x/y", "domain_column": "place"})


def test_a_task_is_not_read_from_folders_and_a_copy(tmp_path: Path, office: Callable[..., Path]) -> None:
    root = write_parquet(office(domain="another"), rooms(lambda i: ["Art", "Real World"][i]))
    two = {"domains": {"Art": {}, "another": {}}, **HUB}
    with pytest.raises(DataError, match=r"no folder .*, but .*office_home/another of another .*, and .*-00001.parquet"):
        read(root, "Art", **two)
    assert len(read(root, "another", **two)) == 5
    # What holds nothing is no folder of a domain, and what an archiver leaves behind is no Parquet file.
    shutil.rmtree(root / "office_home" / "another")
    for folder in ("another", "Art", "data/__MACOSX"):
        (root / "office_home" / folder).mkdir()
    (root / "office_home" / "data" / "__MACOSX" / "._train.parquet").write_bytes(b"x")
    assert len(read(root, "Art", **two)) == 8


def test_an_error_in_a_copy_names_its_file_and_row(tmp_path: Path) -> None:
    table = rooms(lambda i: ["Art", "Real World"][i], paths=False)
    stored = table.column("image").to_pylist()
    stored[13] = {"bytes": b"no image", "path": None}
    root = write_parquet(tmp_path, table.set_column(0, "image", pa.array(stored, table.schema.field("image").type)))
    found = read(root, "Real_World", **HUB)
    # Row 13 is row 2 of the second file, which comes first by its name.
    place = next(i for i, name in enumerate(found.names) if name.endswith("00000002"))
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet, row 2: cannot be decoded .*\(no image format"):
        found.load(place)
    labels = table.column("label").to_pylist()
    labels[3] = 9
    shutil.rmtree(root / "office_home")
    write_parquet(root, table.set_column(2, "label", pa.array(labels)))
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet, row 3 has label 9, expected 0 to 3"):
        read(root, "Real_World", **HUB)


@pytest.mark.parametrize(("reproduces", "note"), [("members", "by file name"), ("counts", "by row number"), (3, "")])
def test_converted_folders_say_what_their_names_are_worth(
    office: Callable[..., Path], reproduces: object, note: str
) -> None:
    root = office()
    assert read(root).note == ""
    (root / "office_home" / "conversion.json").write_text(json.dumps({"reproduces": reproduces}))
    assert note in read(root).note
    assert bool(read(root).note) == bool(note)

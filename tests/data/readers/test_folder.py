from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tlbench.data.domain import Listing
from tlbench.data.readers.catalogue import read_domain
from tlbench.errors import DataError, TlbenchError, UnknownNameError, UsageError
from tlbench.suites.spec import TaskSpec

Folders = Callable[..., Path]


def read(root: Path, domain: str = "photo", own: dict[str, object] | None = None, **task: object) -> Listing:
    spec = TaskSpec.model_validate({"reader": "folder", "domains": {domain: own or {}, "another": {}}, **task})
    return read_domain(spec, "pets", domain, root)


def test_it_lists_what_torchvision_lists(folders: Folders, tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    root = folders({"photo": {"cat": 3, "dog": 2, "cat/a": 2, "cat/a.b": 1, "Eel": 1}})
    expected = ImageFolder(str(root / "photo"))
    found = read(root)
    assert found.classes == tuple(expected.classes)
    assert [str(root / "photo" / name) for name in found.names] == [path for path, _ in expected.samples]
    assert found.labels.tolist() == expected.targets
    for place in (0, 5, 8):
        np.testing.assert_array_equal(found.load(place), np.asarray(expected[place][0]))


def test_pacs_is_listed_as_torchvision_lists_it(pacs_root: Path) -> None:
    from torchvision.datasets import ImageFolder

    expected = ImageFolder(str(pacs_root / "PACS" / "photo"))
    found = read(pacs_root, path="PACS")
    assert [str(pacs_root / "PACS" / "photo" / name) for name in found.names] == [path for path, _ in expected.samples]
    assert found.labels.tolist() == expected.targets


def test_hidden_entries_and_files_beside_the_classes_are_ignored(folders: Folders) -> None:
    root = folders({"photo": {"cat": 2, ".thumbnails": 3, "cat/.old": 1}})
    (root / "photo" / "list.txt").write_text("cat")
    (root / "photo" / "cover.png").write_bytes(b"")
    (root / "photo" / "cat" / "._000.png").write_bytes(b"")
    (root / "photo" / "cat" / "notes.md").write_text("")
    assert read(root).names == ("cat/000.png", "cat/001.png")


def test_suffixes_are_known_in_any_case(folders: Folders) -> None:
    root = folders({"photo": {"cat": 1}})
    for suffix in ("JPG", "jpeg", "bmp", "WEBP", "ppm", "tif", "TIFF"):
        (root / "photo" / "cat" / f"x.{suffix}").write_bytes(b"")
    assert len(read(root)) == 8


def test_a_blank_and_an_underscore_are_the_same(folders: Folders) -> None:
    root = folders({"Real World": {"cat": 1}})
    assert read(root, "Real_World").names == read(root, "photo", {"path": "Real World"}).names == ("cat/000.png",)


def test_a_pattern_gives_columns(folders: Folders) -> None:
    root = folders({"photo": {"cat": 2, "dog": 1}})
    found = read(root, options={"pattern": r"^(?P<kind>\w+)/(?P<number>\d+)\.png$"})
    assert found.columns == {"kind": ("cat", "cat", "dog"), "number": ("000", "001", "000")}


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        (r"(?P<kind>dog)/", DataError, "file 'cat/000.png' does not fit"),
        (r"(?P<kind>", UsageError, "is not a regular expression"),
        (r"cat", UsageError, "no named group"),
    ],
)
def test_a_pattern_that_does_not_fit_is_an_error(
    folders: Folders, pattern: str, error: type[TlbenchError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(folders({"photo": {"cat": 1}}), options={"pattern": pattern})


def test_a_missing_folder_is_answered_with_the_nearest(folders: Folders) -> None:
    root = folders({"photos": {"cat": 1}})
    with pytest.raises(DataError, match=r"expected a folder of class folders at .*did you mean 'photos'"):
        read(root)
    with pytest.raises(DataError, match="the nearest folder that exists is"):
        read(root, path="PACS/kfold")


def test_what_lies_in_place_of_a_folder_is_told(folders: Folders) -> None:
    root = folders({"PACS/PACS/photo": {"cat": 1}})
    with pytest.raises(DataError, match=r"found nothing; it is in .*PACS/PACS, one folder too deep: move what is"):
        read(root, path="PACS")
    with pytest.raises(DataError, match=r"found nothing; it is in .*PACS: use --data-root .*PACS$"):
        read(root / "PACS")
    with pytest.raises(DataError, match=r"; the data root seems to be this folder itself: use --data-root .*data/PACS"):
        read(root / "PACS" / "PACS", path="pacs")
    (root / "photo").write_bytes(b"")
    with pytest.raises(DataError, match=r"expected a folder of class folders at .*photo, found a file$") as error:
        read(root)
    assert "did you mean" not in str(error.value)
    with pytest.raises(DataError, match=r"^pets: expected a folder at .*photo, found a file; unpack it"):
        read(root, path="photo")
    with pytest.raises(DataError, match=r"found a file at .*photo \(--data"):
        read(root, path="photo/deeper")
    (root / "photo").unlink()
    (root / "photo").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match=r"found a link to nothing at .*photo"):
        read(root)
    (root / "photo").unlink()
    (root / "photo.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"photo.zip is not unpacked: unpack it"):
        read(root)


def test_other_domains_and_other_numbers_are_no_misspellings(folders: Folders) -> None:
    root = folders({"location_43": {"cat": 1}, "100": {"cat": 1}, "others": {"cat": 1}})
    for missing in ("location_46", "other"):
        with pytest.raises(DataError, match="found nothing; the nearest folder that exists is") as error:
            read(root, missing, {}, domains={missing: {}, "others": {}})
        assert "did you mean" not in str(error.value)


def test_a_folder_may_lack_the_first_word_of_its_name(folders: Folders) -> None:
    with pytest.raises(DataError, match="did you mean '100'"):
        read(folders({"100": {"cat": 1}, "location_43": {"cat": 1}}), "location_100")


def test_a_folder_without_class_folders_says_what_it_holds(folders: Folders) -> None:
    root = folders({"photo": {"": 3}})
    with pytest.raises(DataError, match=r"expected one folder for every class in .*photo, found 3 files"):
        read(root)


def test_an_empty_folder_does_not_stand_before_a_full_one(folders: Folders) -> None:
    root = folders({"Real_World": {"cat": 1}})
    (root / "Real World" / "@eaDir").mkdir(parents=True)
    (root / "real-world").mkdir()
    assert read(root, "photo", {"path": "Real World"}).names == ("cat/000.png",)


def test_an_empty_class_folder_is_named(folders: Folders) -> None:
    root = folders({"photo": {"cat": 1}})
    (root / "photo" / "dog").mkdir()
    with pytest.raises(DataError, match="dog has no image"):
        read(root)
    assert read(root, own={"classes": ["cat"]}).classes == ("cat",)


@pytest.mark.parametrize(("task_path", "own"), [("../elsewhere", {}), ("/etc", {}), ("", {"path": "../../x"})])
def test_a_suite_does_not_lead_out_of_the_data_root(folders: Folders, task_path: str, own: dict[str, object]) -> None:
    with pytest.raises(DataError, match="leads out of the data root"):
        read(folders({"photo": {"cat": 1}}), own=own, path=task_path)


def test_an_option_or_a_reader_that_nobody_knows_is_answered_with_the_nearest(folders: Folders) -> None:
    root = folders({"photo": {"cat": 1}})
    with pytest.raises(UsageError, match="got 'patern'; did you mean 'pattern'"):
        read(root, options={"patern": "x"})
    with pytest.raises(UnknownNameError, match="did you mean 'folder'"):
        read(root, reader="folders")

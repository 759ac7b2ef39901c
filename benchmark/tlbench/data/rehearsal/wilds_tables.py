"""The four WILDS archives in small: their tables, with the columns of the originals, and the images these name."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from types import MappingProxyType

from tlbench.seeds import derive


@dataclass(frozen=True)
class Amounts:
    """Images a class of every part, and images in all of the part that is not used."""

    train: int
    halved: int
    measured: int
    unused: int


@dataclass(frozen=True)
class RowImage:
    """The image of a row: its path, its class, and whose colours it has."""

    path: str
    label: int
    style: str


@dataclass(frozen=True)
class MadeUpArchive:
    """Tables of an archive by path, and the images that they name."""

    version: str
    tables: Mapping[str, str]
    images: tuple[RowImage, ...]


Row = tuple[int, str]
"""A label and the name of an official part."""


def _rows(classes: int, **parts: int) -> list[Row]:
    """Return so many rows a class of every part, in an order that mixes classes and parts as the originals do."""
    rows = [
        (label, part, number)
        for part, n in parts.items()
        if part != "ood_val"
        for label in range(classes)
        for number in range(n)
    ]
    rows += [(number % classes, "ood_val", number) for number in range(parts.get("ood_val", 0))]
    rows.sort(key=lambda row: derive("rehearsal row", *row))
    return [(label, part) for label, part, _ in rows]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def _camelyon17(classes: Sequence[str], amounts: Amounts) -> MadeUpArchive:
    """Lymph nodes: hospitals 0, 3 and 4 train, 1 is OOD validation, 2 the OOD test; two slides a hospital or more."""
    centres = {"train": (0, 3, 4), "id_val": (0, 3, 4), "ood_val": (1,), "ood_test": (2,)}
    rows = _rows(
        len(classes), train=amounts.train, id_val=amounts.halved, ood_val=amounts.unused, ood_test=amounts.measured
    )
    table: list[list[object]] = []
    images: list[RowImage] = []
    for number, (label, part) in enumerate(rows):
        centre = centres[part][number % len(centres[part])]
        # Twenty patients a hospital, of whom a few have their lymph nodes marked.
        patient, node = f"{20 * centre + 4 + number % 5:03d}", number % 5
        x, y = 3328 + 32 * (number % 100), 21792 + 32 * (number // 100)
        # Hospitals 1 and 2 carry a value of the original split, too, which their centre overrides.
        split = {"train": 0, "id_val": 1}.get(part, number % 2)
        table.append([number, patient, node, x, y, label, 10 * centre + number % 5, centre, split])
        name = f"patient_{patient}_node_{node}"
        images.append(RowImage(f"patches/{name}/patch_{name}_x_{x}_y_{y}.png", label, f"centre {centre}"))
    columns = ["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"]
    return MadeUpArchive("1.0", {"metadata.csv": _table(columns, table)}, tuple(images))


_COUNTRIES = (
    ("United States of America", "USA", "Americas"),
    ("France", "FRA", "Europe"),
    ("China", "CHN", "Asia"),
    ("Kenya", "KEN", "Africa"),
    ("Australia", "AUS", "Oceania"),
)


def _fmow(classes: Sequence[str], amounts: Amounts) -> MadeUpArchive:
    """Satellite images: the parts follow from the split and the year; rows of sequences are numbered, and left out."""
    rows = _rows(
        len(classes),
        train=amounts.train,
        id_val=amounts.measured,
        id_test=amounts.measured,
        ood_val=amounts.unused,
        ood_test=amounts.measured,
    )
    known = {
        "train": ("train", 2002, 2012),
        "id_val": ("val", 2002, 2012),
        "id_test": ("test", 2002, 2012),
        "ood_val": ("val", 2013, 2015),
        "ood_test": ("test", 2016, 2017),
        "late_train": ("train", 2013, 2017),
        "sequence": ("seq", 2002, 2017),
    }
    # Every so often a row that nobody uses: names are numbers of rows, and must be counted before these are dropped.
    spread = max(2, len(rows) // amounts.unused)
    mixed: list[Row] = []
    for number, row in enumerate(rows):
        if number % spread == 0:
            mixed += [(row[0], "sequence"), (row[0], "late_train")]
        mixed.append(row)
    table: list[list[object]] = []
    images: list[RowImage] = []
    for number, (label, part) in enumerate(mixed):
        split, first, last = known[part]
        draw = derive("rehearsal year", number)
        year, month, day = first + draw % (last - first + 1), 1 + draw // 100 % 12, 1 + draw // 10_000 % 28
        when = f"{year}-{month:02d}-{day:02d}T{draw % 24:02d}:{draw % 60:02d}:00Z"
        table.append([split, when, classes[label], _COUNTRIES[draw % len(_COUNTRIES)][1]])
        if part != "sequence":
            images.append(RowImage(f"images/rgb_img_{number}.png", label, f"since {first}"))
    tables = {
        "rgb_metadata.csv": _table(["split", "timestamp", "category", "country_code"], table),
        "country_code_mapping.csv": _table(["name", "alpha-3", "region"], _COUNTRIES),
    }
    return MadeUpArchive("1.1", tables, tuple(images))


def _iwildcam(classes: Sequence[str], amounts: Amounts) -> MadeUpArchive:
    """Camera traps: images of all parts lie in one folder; places of the OOD parts are nobody else's."""
    rows = _rows(
        len(classes),
        train=amounts.train,
        id_val=amounts.measured,
        id_test=amounts.measured,
        ood_val=amounts.unused,
        ood_test=amounts.measured,
    )
    called = {"ood_val": "val", "ood_test": "test"}
    table: list[list[object]] = []
    images: list[RowImage] = []
    frames: dict[str, int] = {}
    for number, (label, part) in enumerate(rows):
        # A sequence is three frames of one part in one place.
        frame = frames[part] = frames.get(part, -1) + 1
        sequence = derive("rehearsal sequence", part, frame // 3) % 10**6
        place = 6 * (2 if part == "ood_test" else 1 if part == "ood_val" else 0) + sequence % 6
        name = f"{derive('rehearsal frame', number):016x}.jpg"
        when = f"2013-{1 + sequence % 12:02d}-{1 + sequence % 28:02d} {sequence % 24:02d}:00:0{frame % 3}.000"
        table.append([called.get(part, part), name, label, place, sequence, when])
        images.append(RowImage(f"train/{name}", label, f"place {place}"))
    columns = ["split", "filename", "y", "location_remapped", "sequence_remapped", "datetime"]
    return MadeUpArchive("2.0", {"metadata.csv": _table(columns, table)}, tuple(images))


_WELLS = tuple(f"{letter}{number:02d}" for letter in "BCDEFGHIJKLMNO" for number in range(2, 24))


def _rxrx1(classes: Sequence[str], amounts: Amounts) -> MadeUpArchive:
    """Cells: every experiment has each treatment once, on plates of 308 wells, and a well is photographed at two sites.

    Site 1 of a training experiment trains, site 2 is the ID test; here the first few experiments alone have a site 2.
    """
    table: list[list[object]] = []
    images: list[RowImage] = []

    def experiment(dataset: str, cell_type: str, number: int, sites: Sequence[int], labels: Sequence[int]) -> None:
        name = f"{cell_type}-{number:02d}"
        for place, label in enumerate(sorted(labels, key=lambda label: derive("rehearsal well", name, label))):
            plate, well = 1 + place // len(_WELLS), _WELLS[place % len(_WELLS)]
            for site in sites:
                row = [f"{name}_{plate}_{well}_{site}", f"{name}_{plate}_{well}", cell_type, dataset, name, plate]
                table.append([*row, well, site, _well_type(label), label])
                images.append(RowImage(f"images/{name}/Plate{plate}/{well}_s{site}.png", label, name))

    every = range(len(classes))
    for number, cell_type in zip(range(1, amounts.train + 1), cycle(("HEPG2", "HUVEC", "RPE")), strict=False):
        experiment("train", cell_type, number, (1, 2) if number <= amounts.halved else (1,), every)
    # More than one experiment a class where there are few classes, both sites of each.
    for number in range(ceil(amounts.measured / 2)):
        experiment("test", "U2OS", number + 4, (1, 2) if amounts.measured > 1 else (1,), every)
    experiment("val", "U2OS", 3, (1, 2), every[: max(1, amounts.unused // 2)])
    columns = ["site_id", "well_id", "cell_type", "dataset", "experiment", "plate", "well", "site", "well_type"]
    return MadeUpArchive("1.0", {"metadata.csv": _table([*columns, "sirna_id"], table)}, tuple(images))


def _well_type(label: int) -> str:
    if label < 1108:
        return "treatment"
    return "positive_control" if label < 1138 else "negative_control"


WILDS_TABLES: Mapping[str, Callable[[Sequence[str], Amounts], MadeUpArchive]] = MappingProxyType(
    {"camelyon17": _camelyon17, "fmow": _fmow, "iwildcam": _iwildcam, "rxrx1": _rxrx1}
)

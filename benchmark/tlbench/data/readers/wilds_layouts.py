"""The four WILDS archives: which CSV file says what, and how its rows become the official splits.

Facts as in the data set classes of WILDS 2.0.0 (Koh et al., 2021), read and told anew.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tlbench.data.readers.address import Address
from tlbench.data.splits import BOTH
from tlbench.errors import DataError, listed, nearest

UNUSED = ""
_OOD: Mapping[str, str] = {"ood_test": "test"}
_THIRTEEN, _SIXTEEN = datetime(2013, 1, 1, tzinfo=UTC), datetime(2016, 1, 1, tzinfo=UTC)
_COUNTRIES = "country_code_mapping.csv"
_HOSPITALS = ("0", "1", "2", "3", "4")


class Row(NamedTuple):
    """One row of a CSV file.

    Attributes
    ----------
    official : str
        The official set: train, id_val, id_test, ood_val, ood_test, or empty for a row in none.
    name : str
        Path of the image below the data set's folder.
    label : str
        As it stands in the file.
    facts : tuple of str
        In the order of the layout's ``facts``.
    sequence : bool
        Whether the row is of FMoW's split ``seq``, which may be without an image.
    """

    official: str
    name: str
    label: str
    facts: tuple[str, ...]
    sequence: bool = False


Reading = Callable[[int, Sequence[str]], Row]
"""From the number of a row and its values, in the order of the layout's columns; ValueError tells what is wrong."""


@dataclass(frozen=True)
class Layout:
    """One data set's archive.

    Attributes
    ----------
    version : str
        Of the archive, as in its release file.
    table : str
        The CSV file.
    columns : tuple of str
        What is needed of it.
    folder : str
        Where the images are.
    facts : tuple of str
        Names of what a row tells besides.
    domains : mapping
        Part of every official set, by domain.
    reading : callable
        ``reading(address)`` gives the function that reads a row.
    labels_are_names : bool
    numbered_by_row : bool
        Whether images are called after the row's number in the complete file.
    """

    version: str
    table: str
    columns: tuple[str, ...]
    folder: str
    facts: tuple[str, ...]
    domains: Mapping[str, Mapping[str, str]]
    reading: Callable[[Address], Reading]
    labels_are_names: bool = False
    numbered_by_row: bool = False


def rows_of_table(address: Address, layout: Layout) -> Iterator[tuple[str, Row]]:
    """Yield every row of a layout's CSV file with its place for a message.

    Raises
    ------
    DataError
        If the file or a column is missing, a row cannot be what the release has, or names an image a second
        time. Every domain meets these, so they are told of the task.
    """
    file = address.place / layout.table
    read = layout.reading(address)
    sequestered, n = False, 0
    lines: dict[str, int] = {}
    for n, (line, values) in enumerate(_table(address, file, layout.columns), 1):
        where = f"{address.task}: {file}, line {line}"
        try:
            row = read(n - 1, values)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if (first := lines.setdefault(row.name, line)) != line:
            raise DataError(
                f"{where}: names the image {row.name}, as line {first} does; the file was edited: get the original"
            )
        sequestered = sequestered or row.sequence
        yield where, row
    if layout.numbered_by_row and n and not sequestered:
        raise DataError(
            f"{address.task}: {file} has {n} rows and none of the split 'seq'; images are numbered by the rows of the "
            f"complete file, so one that was filtered names wrong images; get the original"
        )


def _table(address: Address, file: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the values of some columns with the number of their line; empty lines are none."""
    if not file.is_file():
        raise address.missing(file, "the CSV file of the data set", kind="file", shared=True)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream)
            header = next(lines, [])
            for name in columns:
                if name not in header:
                    raise DataError(
                        f"{address.task}: {file} has no column '{name}', expected {listed(columns)}, found "
                        f"{listed(header) or 'nothing'}{nearest(name, header) or '; get the file again'}"
                    )
            pick = itemgetter(*(header.index(name) for name in columns))
            for values in lines:
                if len(values) == len(header):
                    yield lines.line_num, pick(values)
                elif values:
                    raise DataError(
                        f"{address.task}: {file}, line {lines.line_num}: expected {len(header)} values, got "
                        f"{len(values)}; the file is cut off or was edited: get it again"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{address.task}: {file} cannot be read as CSV ({error}); get it again") from error


def _one_of(value: str, known: Sequence[str], column: str) -> str:
    if value not in known:
        raise ValueError(f"expected {column} to be one of {listed(known)}, got '{value}'{nearest(value, known)}")
    return value


def _camelyon17(_address: Address) -> Reading:
    def read(_number: int, values: Sequence[str]) -> Row:
        split, patient, node, x, y, tumor, slide, center = values
        _one_of(split, ("0", "1"), "split")
        _one_of(center, _HOSPITALS, "center")
        # Two hospitals are out of distribution, whatever the file's split says of their patches.
        official = {"1": "ood_val", "2": "ood_test"}.get(center) or ("train" if split == "0" else "id_val")
        # Text, not numbers: patient 004 is in folder patient_004_node_4.
        folder = f"patient_{patient}_node_{node}"
        name = f"patches/{folder}/patch_{folder}_x_{x}_y_{y}.png"
        return Row(official, name, tumor, (patient, node, slide, center))

    return read


def _fmow(address: Address) -> Reading:
    regions = dict(_pairs(address, address.place / _COUNTRIES, ("alpha-3", "region")))
    sets = {"train": "train", "val": "id_val", "test": "id_test"}

    def read(number: int, values: Sequence[str]) -> Row:
        split, timestamp, category, country = values
        _one_of(split, (*sets, "seq"), "split")
        taken = _moment(timestamp)
        official = UNUSED
        if taken < _THIRTEEN:
            official = sets.get(split, UNUSED)
        elif split == "val" and taken < _SIXTEEN:
            official = "ood_val"
        elif split == "test" and taken >= _SIXTEEN:
            official = "ood_test"
        facts = (regions.get(country) or "Other", country, str(taken.year))
        return Row(official, f"images/rgb_img_{number}.png", category, facts, sequence=split == "seq")

    return read


def _pairs(address: Address, file: Path, columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for _, (key, value) in _table(address, file, columns):
        yield key, value


def _moment(text: str) -> datetime:
    """Return a time in UTC; one without a zone is taken for UTC.

    >>> _moment("2012-12-31T23:30:00-01:00").year, _moment("2013-01-01T00:00:00Z").year
    (2013, 2013)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected timestamp to be a time such as 2013-01-01T00:00:00Z, got '{text}'") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _iwildcam(_address: Address) -> Reading:
    sets = {"train": "train", "id_val": "id_val", "id_test": "id_test", "val": "ood_val", "test": "ood_test"}
    known = tuple(sets)

    def read(_number: int, values: Sequence[str]) -> Row:
        split, file, label, location, sequence = values
        # The images of all five sets lie in one folder, called train.
        return Row(sets[_one_of(split, known, "split")], f"train/{file}", label, (location, sequence))

    return read


def _rxrx1(_address: Address) -> Reading:
    in_distribution = {"1": "train", "2": "id_test"}
    beyond = {"val": "ood_val", "test": "ood_test"}

    def read(_number: int, values: Sequence[str]) -> Row:
        split, site, experiment, plate, well, cell_type, sirna = values
        _one_of(split, ("train", *beyond), "dataset")
        _one_of(site, ("1", "2"), "site")
        official = beyond.get(split) or in_distribution[site]
        name = f"images/{experiment}/Plate{plate}/{well}_s{site}.png"
        return Row(official, name, sirna, (experiment, plate, well, site, cell_type))

    return read


_ONE_EACH: Mapping[str, str] = {"train": "train", "id_val": "val", "id_test": "test"}

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "camelyon17": Layout(
            version="1.0",
            table="metadata.csv",
            columns=("split", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center"),
            folder="patches",
            facts=("patient", "node", "slide", "hospital"),
            domains={"id": {"train": "train", "id_val": BOTH}, "ood_test": _OOD},
            reading=_camelyon17,
        ),
        "fmow": Layout(
            version="1.1",
            table="rgb_metadata.csv",
            columns=("split", "timestamp", "category", "country_code"),
            folder="images",
            facts=("region", "country", "year"),
            domains={"id": _ONE_EACH, "ood_test": _OOD},
            reading=_fmow,
            labels_are_names=True,
            numbered_by_row=True,
        ),
        "iwildcam": Layout(
            version="2.0",
            table="metadata.csv",
            columns=("split", "filename", "y", "location_remapped", "sequence_remapped"),
            folder="train",
            facts=("location", "sequence"),
            domains={"id": _ONE_EACH, "ood_test": _OOD},
            reading=_iwildcam,
        ),
        "rxrx1": Layout(
            version="1.0",
            table="metadata.csv",
            columns=("dataset", "site", "experiment", "plate", "well", "cell_type", "sirna_id"),
            folder="images",
            facts=("experiment", "plate", "well", "site", "cell_type"),
            domains={"id": {"train": "train", "id_test": BOTH}, "ood_test": _OOD},
            reading=_rxrx1,
        ),
    }
)

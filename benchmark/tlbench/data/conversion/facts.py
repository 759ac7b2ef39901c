"""What the rows of a copy say about its images: domain and class in the suite's words, and a safe file name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tlbench.data.conversion.copies import FACTS_A_BATCH, Copy, Part
from tlbench.data.conversion.stored_image import holds_images, stored_paths
from tlbench.data.readers.rows import as_text
from tlbench.data.readers.spelling import canonical
from tlbench.errors import DataError, SuiteError, UsageError, listed, nearest
from tlbench.suites.spec import HubCopy, TaskSpec

_SHOWN = 20
_CLASSES_SHOWN = 7
_ROW_WAY_OUT = "get the copy again, or leave this row out of it"
_LONGEST_NAME_BYTES = 200
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of every row before any image is read.

    Attributes
    ----------
    domains : int64 array, shape (n,)
        Place of each row's domain in the task's domains.
    labels : int64 array, shape (n,)
        Place of each row's class in the task's classes.
    names : tuple of str, length n, or None
        Stored file names, where every row has one that can be kept and no two of a class are equal.
    reason : str
        Why the stored names cannot be kept; empty where they can.
    """

    domains: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: tuple[str, ...] | None
    reason: str


@dataclass(frozen=True)
class LabelNames:
    """The names of a copy's label numbers, as a file gives them: one a line, the first for 0."""

    path: Path
    names: tuple[str, ...]

    def check(self, theirs: Sequence[str], where: str) -> None:
        """Raise DataError where a copy names its own numbers and the file names them otherwise."""
        for label in range(max(len(theirs), len(self.names))):
            ours = self.names[label] if label < len(self.names) else None
            copys = theirs[label] if label < len(theirs) else None
            if ours is None or copys is None or canonical(ours) != canonical(copys):
                told = f"no class {label}" if copys is None else f"class {label} is '{copys}'"
                found = "ends before it" if ours is None else f"has '{ours}'"
                raise DataError(
                    f"{where}: names its own classes, and its {told}, where line {label + 1} of {self.path} {found}; "
                    f"--names is for a copy that names none: leave it out, and the copy's own names count"
                )


def read_facts(copy: Copy, name: str, task: TaskSpec, columns: HubCopy, label_names: LabelNames | None = None) -> Facts:
    """Read domain, class and stored file name of every row; no image is read.

    Parameters
    ----------
    copy : Copy
    name : str
        The task's.
    task : TaskSpec
        With its classes.
    columns : HubCopy
        Names of the columns, and the values that stand for domains where these are not the domains' names.
    label_names : LabelNames, optional
        Names of the numbers in the label column, where the copy carries none.

    Raises
    ------
    DataError
        If a column is missing or of no use, a domain or a label is none of the suite's, two labels of the copy
        mean one class, or the copy names its labels otherwise than ``label_names``.
    UsageError
        If ``label_names`` is given for labels that are no numbers.
    """
    for column, option in (
        (columns.image, "--image"),
        (columns.label, "--label"),
        (columns.domain_column, "--domain-column"),
    ):
        copy.require(column, option)
    domain_of, class_of = _Domains(copy, name, task, columns), _Classes(copy, task, columns.label, label_names)
    domains: list[int] = []
    labels: list[int] = []
    names: list[str | None] = []
    for part in copy.parts:
        if not holds_images(kind := part.schema.field(columns.image).type):
            raise DataError(
                f"{part.place}: column '{columns.image}' holds {kind}, expected the stored bytes of images or paths to "
                f"them (--image names another)"
            )
        domain_of.open(part)
        class_of.open(part)
        for domain, label, path in _rows(part, columns):
            row = len(names)
            domains.append(domain_of(domain, row))
            labels.append(class_of(label, row))
            names.append(safe_name(path))
    domain_of.check()
    kept, reason = _kept_names(names, domains, labels)
    return Facts(
        np.array(domains, dtype=np.int64),
        np.array(labels, dtype=np.int64),
        tuple(name for name in names if name) if kept else None,
        reason,
    )


def read_label_names(path: Path, classes: Sequence[str]) -> LabelNames:
    """Return the names of a file, one a line, in the order of the numbers that a copy uses for them.

    Raises
    ------
    DataError
        If the file cannot be read, is empty or has an empty line, or a name is no class of the suite.
    """
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        told = (error.strerror if isinstance(error, OSError) else None) or error
        raise DataError(
            f"{path}: cannot be read as text ({told}); --names takes a file of class names, one a line in label order"
        ) from error
    if not names:
        raise DataError(f"{path}: expected class names, one a line in label order, found nothing")
    meant = _spellings(classes)
    for number, name in enumerate(names, 1):
        if name not in classes and canonical(name) not in meant:
            raise DataError(f"{path}, line {number}: '{name}' is no class of the suite{nearest(name, classes)}")
    return LabelNames(path, names)


def safe_name(path: str | None) -> str | None:
    """Return the last name of a stored path, if it can be the name of a visible file; else None.

    >>> safe_name("kfold/photo/dog/056_0001.jpg"), safe_name("../.."), safe_name(".hidden.png")
    ('056_0001.jpg', None, None)
    """
    name = (path or "").replace("\\", "/").rpartition("/")[2]
    ok = (
        name
        and name.isprintable()
        and not name.startswith((".", " "))
        and not name.endswith((".", " "))
        and name.partition(".")[0].casefold() not in _RESERVED
        and len(name.encode()) <= _LONGEST_NAME_BYTES
    )
    return name if ok else None


class _Domains:
    """Values of the domain column to places of the task's domains."""

    def __init__(self, copy: Copy, name: str, task: TaskSpec, columns: HubCopy) -> None:
        self._copy, self._column, self._task = copy, columns.domain_column, name
        self._names = tuple(task.domains)
        for own in columns.domains:
            if own not in task.domains:
                raise SuiteError(
                    f"[tasks.{name}.hub] of the suite, domains: '{own}' is no domain of the task"
                    f"{nearest(own, self._names)}"
                )
        self._spelled: dict[str, int] = {}
        for place, (own, spec) in enumerate(task.domains.items()):
            for word in (own, spec.path or own, str(columns.domains.get(own, own))):
                self._spelled[canonical(word)] = place
        self._found: set[str] = set()
        self._unknown: tuple[str, int] | None = None
        self._places: dict[Any, int] = {}
        self._spoken: Sequence[str] | None = None

    def open(self, part: Part) -> None:
        _check_plain(part, self._column, "--domain-column")
        self._places, self._spoken = {}, part.class_names(self._column)

    def __call__(self, value: Any, row: int) -> int:
        if value not in self._places:
            self._places[value] = self._place(value, row)
        return self._places[value]

    def check(self) -> None:
        """Raise DataError if there was a value that is no domain: only now are all values known."""
        if self._unknown is not None:
            value, row = self._unknown
            found = sorted(self._found)
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise DataError(
                f"{self._copy.where(row)}: '{value}' in column '{self._column}' is no domain of the suite"
                f"{nearest(value, self._names)}; expected {listed(self._names)}, found {listed(found[:_SHOWN])}{more}. "
                f"--domain-column names another column; where only the words differ, a copy of the suite's file says "
                f"what they mean, such as [tasks.{self._task}.hub] domains = {{ {json.dumps(self._unfound())} = "
                f"{json.dumps(value, ensure_ascii=False)} }}"
            )

    def _unfound(self) -> str:
        """Return a domain that no value names, as an example."""
        named = {self._spelled.get(canonical(text)) for text in self._found}
        return next((name for place, name in enumerate(self._names) if place not in named), self._names[0])

    def _place(self, value: Any, row: int) -> int:
        if value is None or value == "":
            raise DataError(
                f"{self._copy.where(row)}: has no domain in column '{self._column}', expected one of "
                f"{listed(self._names)}; {_ROW_WAY_OUT} (--domain-column names another column)"
            )
        text = as_text(value)
        # A copy that names its numbers is believed before the suite, which knows one revision of one copy.
        if self._spoken and isinstance(value, int) and 0 <= value < len(self._spoken):
            text = self._spoken[value]
        place = self._spelled.get(canonical(text))
        self._found.add(text)
        if place is None and self._unknown is None:
            self._unknown = (text, row)
        return -1 if place is None else place


class _Classes:
    """Labels to places of the task's classes, by name."""

    def __init__(self, copy: Copy, task: TaskSpec, column: str, names: LabelNames | None) -> None:
        self._copy, self._column, self._names = copy, column, names
        self._classes = task.classes or ()
        self._exact = {name: place for place, name in enumerate(self._classes)}
        self._spelled = {word: self._exact[name] for word, name in _spellings(self._classes).items()}
        self._meaning: dict[int, str] = {}
        self._places: dict[Any, int] = {}
        self._spoken: Sequence[str] | None = None

    def open(self, part: Part) -> None:
        _check_plain(part, self._column, "--label")
        self._places, self._spoken = {}, part.class_names(self._column)
        kind = part.schema.field(self._column).type
        numbers = pa.types.is_integer(kind.value_type if pa.types.is_dictionary(kind) else kind)
        if self._names is not None and not numbers:
            raise UsageError(
                f"{part.place}: column '{self._column}' holds names, not numbers: --names has nothing to name there; "
                f"leave it out"
            )
        if self._names is not None and self._spoken:
            self._names.check(self._spoken, f"{part.place}, column '{self._column}'")
        elif self._names is not None:
            self._spoken = self._names.names
        if numbers and not self._spoken and not all(name.isdecimal() for name in self._classes):
            raise DataError(
                f"{part.place}: column '{self._column}' holds numbers without class names, and copies number their "
                f"classes differently; --names FILE gives the names, one a line in label order"
            )

    def __call__(self, value: Any, row: int) -> int:
        if value not in self._places:
            self._places[value] = self._place(value, row)
        return self._places[value]

    def _place(self, value: Any, row: int) -> int:
        where = self._copy.where(row)
        if value is None:
            raise DataError(
                f"{where}: has no label in column '{self._column}', expected one of {self._some_classes()}; "
                f"{_ROW_WAY_OUT} (--label names another column)"
            )
        name = as_text(value)
        if self._spoken and isinstance(value, int):
            if not 0 <= value < len(self._spoken):
                whose = f"{self._names.path} names" if self._names else "the copy names"
                raise DataError(
                    f"{where}: label {value} in column '{self._column}' has no name, expected 0 to "
                    f"{len(self._spoken) - 1}, which {whose}; {_ROW_WAY_OUT} (--label names another column)"
                )
            name = self._spoken[value]
        place = self._exact.get(name, self._spelled.get(canonical(name)))
        if place is None:
            raise DataError(
                f"{where}: label '{name}' in column '{self._column}' is no class of the suite"
                f"{nearest(name, self._classes)}; expected one of {self._some_classes()}. Take a copy with these "
                f"classes, or leave the rows of others out of it (--label names another column)"
            )
        if self._meaning.setdefault(place, name) != name:
            raise DataError(
                f"{where}: labels '{self._meaning[place]}' and '{name}' of the copy would both be class "
                f"'{self._classes[place]}'; take a copy that spells it in one way"
            )
        return place

    def _some_classes(self) -> str:
        more = len(self._classes) - _CLASSES_SHOWN
        return listed(self._classes[:_CLASSES_SHOWN]) + (f" and {more} more classes" if more > 0 else "")


def _spellings(classes: Sequence[str]) -> Mapping[str, str]:
    """Return the class that each spelling can only mean."""
    times = Counter(canonical(name) for name in classes)
    return {canonical(name): name for name in classes if times[canonical(name)] == 1}


def _rows(part: Part, columns: HubCopy) -> Iterator[tuple[Any, Any, str | None]]:
    for table in part.batches([columns.domain_column, columns.label], FACTS_A_BATCH, path_of=columns.image):
        domains = table.column(columns.domain_column).to_pylist()
        labels = table.column(columns.label).to_pylist()
        paths = stored_paths(table.column(columns.image)) if columns.image in table.schema.names else repeat(None)
        yield from zip(domains, labels, paths, strict=False)


def _check_plain(part: Part, column: str, option: str) -> None:
    kind = part.schema.field(column).type
    held = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    if not any(test(held) for test in tests):
        raise DataError(
            f"{part.place}: column '{column}' holds {kind}, expected names or whole numbers ({option} names another)"
        )


def _kept_names(names: Sequence[str | None], domains: Sequence[int], labels: Sequence[int]) -> tuple[bool, str]:
    """Return whether stored names can be kept, and if not, why; rows are counted from 0."""
    seen: dict[tuple[int, int, str], int] = {}
    for row, (domain, label, name) in enumerate(zip(domains, labels, names, strict=True)):
        if name is None:
            return False, f"row {row} has no file name stored that could be kept"
        first = seen.setdefault((domain, label, name), row)
        if first != row:
            return False, f"rows {first} and {row}, of one class, are both called '{name}'"
    return True, ""

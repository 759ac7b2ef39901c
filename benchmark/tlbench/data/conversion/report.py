"""``conversion.json``: which copy the folders beside it were made from, so that the same command can go on.

What the same conversion made is used. Everything else that stands where a domain is to go is somebody's, and stays.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tlbench.data.conversion.result import Columns, Conversion, ConvertedDomain
from tlbench.errors import DataError, StoreError

REPORT = "conversion.json"


@dataclass(frozen=True)
class Origin:
    """What the folders of a conversion were made from, and how.

    Attributes
    ----------
    source : str
        The copy's name and, where it is known, its revision.
    fingerprint : str
        Changes with the copy's rows.
    columns : Columns
    identity : str
        Equal ones write equal files: over the fingerprint, the columns' content and the suite's classes.
    """

    source: str
    fingerprint: str
    columns: Columns
    identity: str

    def difference(self, now: Origin) -> str:
        """Return in which way folders of this origin are not those that another one now would write."""
        if self.fingerprint != now.fingerprint:
            if self.source == now.source:
                return f"converted from {self.source} when it held other rows than now"
            return f"converted from {self.source}, whose rows are not those of {now.source}"
        for role, name in asdict(now.columns).items():
            if (theirs := asdict(self.columns)[role]) not in (None, name):
                return f"converted from {self.source} with '{theirs}' as the column of {role}s, and now it is '{name}'"
        return (
            f"converted from {self.source} with other names of classes or values of domains than now, from another "
            f"folder of images, or by another version of tlbench"
        )


@dataclass(frozen=True)
class Report:
    """What ``conversion.json`` says."""

    origin: Origin
    domains: Mapping[str, ConvertedDomain]


def read_report(folder: Path) -> Report | None:
    """Return the report beside converted domains, None where there is none.

    Raises
    ------
    StoreError
        If there is a file of this name that is something else.
    """
    path = folder / REPORT
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        source = told["source"]
        origin = Origin(
            source["name"] + (f" at {source['revision']}" if source["revision"] else ""),
            source["fingerprint"],
            Columns(**told.get("columns", {})),
            told["identity"],
        )
        return Report(origin, {one["domain"]: ConvertedDomain(**one) for one in told["domains"]})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: expected the report of a conversion, found something else ({type(error).__name__}: {error}); "
            f"remove it and the folders of this task's domains beside it, or name another --out"
        ) from error


def write_report(conversion: Conversion, origin: Origin) -> None:
    """Write what was converted so far, in one rename."""
    document = {**conversion.document(), "columns": asdict(origin.columns), "identity": origin.identity}
    fresh = conversion.folder / f".{REPORT}.new"
    fresh.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.rename(conversion.folder / REPORT)


def check_unreported(targets: Iterable[Path], report: Report | None) -> None:
    """Raise DataError for a folder that holds something and that no conversion can have made: none left a report."""
    for target in targets if report is None else ():
        if _occupied(target):
            raise DataError(
                f"{target}: already there and not empty, and no conversion made it: there is no {REPORT} beside it. "
                f"Move it away, or name another --out"
            )


def finished(
    targets: Mapping[str, Path], files: Mapping[str, Mapping[str, int]], origin: Origin, report: Report | None
) -> dict[str, ConvertedDomain]:
    """Return the domains that the same conversion has finished before.

    Parameters
    ----------
    targets : mapping of str to Path
        Where every domain goes.
    files : mapping of str to mapping of str to int
        How many files every class of a domain gets.
    origin : Origin
        Of the conversion that is to go on.
    report : Report or None

    Raises
    ------
    DataError
        If a domain's folder holds something that this conversion did not make, or not all of what it made.
    """
    check_unreported(targets.values(), report)
    done = {}
    for name, target in targets.items():
        if report is None or not _occupied(target):
            continue
        if report.origin.identity != origin.identity:
            raise DataError(
                f"{target}: already there, {report.origin.difference(origin)}. Remove the folders that {REPORT} beside "
                f"it names, or name another --out"
            )
        if name not in report.domains or not report.domains[name].files:
            raise DataError(
                f"{target}: already there and not empty, and this conversion did not make it: {REPORT} beside it does "
                f"not name it. Move it away, or name another --out"
            )
        if changed := _change(target, files[name]):
            raise DataError(
                f"{target}: converted before, and changed since: {changed}. Remove this folder, and the same command "
                f"writes it again, or name another --out"
            )
        done[name] = report.domains[name]
    return done


def _occupied(target: Path) -> bool:
    return os.path.lexists(target) and (not target.is_dir() or any(target.iterdir()))


def _change(target: Path, expected: Mapping[str, int]) -> str:
    """Return the first class whose number of files is not that of its rows, empty where there is none."""
    found: Counter[str] = Counter()
    for folder, _, files in os.walk(target):
        kind = Path(folder).relative_to(target).as_posix()
        found[kind] += len(files)
    for kind in [*expected, *sorted(found)]:
        if found[kind] != expected.get(kind, 0):
            there = found[kind] if (target / kind).is_dir() else "no such folder"
            return f"expected {expected.get(kind, 0)} files in {'it' if kind == '.' else repr(kind)}, found {there}"
    return ""

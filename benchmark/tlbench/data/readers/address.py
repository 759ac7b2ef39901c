"""Where a domain's images lie and how they are to be read: what every reader is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tlbench.data.digests import FileDigests
from tlbench.data.readers.instead import Kind, found_instead
from tlbench.data.readers.spelling import canonical
from tlbench.errors import DataError, UsageError, listed, nearest
from tlbench.suites.spec import HubCopy

Option = str | int | float | bool
_SHOWN = 20


@dataclass(frozen=True)
class Address:
    """One domain of one task, as its reader needs it.

    Attributes
    ----------
    task, domain : str
    base : Path
        The data root: nothing outside of it is read.
    path : str
        The task's path below ``base``, empty for ``base`` itself; the hub reader may take it for a hub name.
    entry : str
        The domain's own folder, file, split or value: its ``path`` in the suite, or else its name.
    classes : tuple of str, or None
        The only classes to list, where the suite names them.
    options : mapping
        Options of the reader, the domain's over the task's.
    digests : FileDigests
    hub : HubCopy, optional
        How a copy of the data on the Hugging Face hub calls its columns and domains.
    others : tuple of str
        Entries of the task's other domains.
    """

    task: str
    domain: str
    base: Path
    path: str
    entry: str
    classes: tuple[str, ...] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    digests: FileDigests = field(default_factory=lambda: FileDigests(None))
    hub: HubCopy | None = None
    others: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """``"task/domain"``, the start of every message."""
        return f"{self.task}/{self.domain}"

    @property
    def place(self) -> Path:
        """The task's folder or file.

        Raises
        ------
        DataError
            If the suite's path leads out of the data root.
        """
        return self.inside(self.base, self.path)

    def inside(self, folder: Path, path: str) -> Path:
        """Return a path of the suite below a folder.

        Raises
        ------
        DataError
            If it is absolute or climbs: a suite is somebody's file, and reads below the data root only.
        """
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(f"{self.where}: path '{path}' leads out of the data root; name a path below {folder}")
        return folder / path

    def meant(self, values: Iterable[str]) -> set[str]:
        """Return which values of a domain column mean this domain: its own, or what the hub copy calls it."""
        found = set(values)
        if self.entry in found or self.hub is None:
            return found & {self.entry}
        own = {canonical(name) for name in (self.entry, self.domain, str(self.hub.domains.get(self.domain, "")))}
        return {value for value in found if value and canonical(value) in own}

    def check_options(self, *known: str) -> None:
        """Raise UsageError for an option that the reader does not have."""
        for name in self.options:
            if name not in known:
                choices = listed(known) or "none"
                raise UsageError(
                    f"{self.where}: the reader's options are {choices}, got '{name}'{nearest(name, known)}"
                )

    def text(self, option: str, default: str) -> str:
        """Return an option as text."""
        return str(self.options.get(option, default))

    def stored(self, root: Path, files: Sequence[Path]) -> list[str]:
        """Return the content hash of every file below a folder, remembered ones unread.

        Raises
        ------
        DataError
            If a file cannot be read.
        """
        try:
            return self.digests.of(root, files)
        except OSError as error:
            raise DataError(f"{self.where}: {error.filename} cannot be read ({error.strerror})") from error

    def missing(self, path: Path, expected: str, *, kind: Kind = "folder", shared: bool = False) -> DataError:
        """Return the error for a folder or file that is not there, with what is there instead.

        Parameters
        ----------
        path : Path
        expected : str
        kind : {"folder", "file"}
        shared : bool
            Whether every domain of the task needs it: the error is then the same for all, and told once.
        """
        if self.place.is_file() and path != self.place:
            return DataError(
                f"{self.task}: expected a folder at {self.place}, found a file; unpack it, or move it away"
            )
        found = found_instead(path, self.base, kind, self.others)
        root = "" if self.place.is_dir() or "--data-root" in found else " (--data-root sets the root)"
        return DataError(f"{self.task if shared else self.where}: expected {expected} at {path}, found {found}{root}")

    def no_such_value(self, column: str, values: Iterable[str]) -> DataError:
        """Return the error for a copy whose domain column never says this domain."""
        known = sorted(set(values))
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        source = self.place if self.place.exists() else self.path
        return DataError(
            f"{self.where}: {source}: column '{column}' has no '{self.entry}', only {listed(known[:_SHOWN])}{more}"
            f"{nearest(self.entry, known)}{self._way_to_domains(values_found=True)}"
        )

    def no_column(self, path: Path | str, column: str, found: Sequence[str]) -> DataError:
        """Return the error for a table without a column."""
        way = ""
        if self.hub is not None and column == self.hub.domain_column:
            way = self._way_to_domains(values_found=False)
        elif self.hub is not None:
            option = "--image" if column == self.hub.image else "--label"
            way = f"; another is named in the suite's [tasks.{self.task}.hub], or with `tlbench data convert {option}`"
        return DataError(
            f"{self.where}: {path} has no column '{column}', only {listed(found) or 'none'}"
            f"{nearest(column, found)}{way}"
        )

    def _way_to_domains(self, *, values_found: bool) -> str:
        if self.hub is None:
            return "; a domain's 'path' in the suite says what it is called here" if values_found else ""
        key = "domains" if values_found else "domain_column"
        return (
            f"; say what it is called with {key} in the suite's [tasks.{self.task}.hub], or name another column with "
            f"`tlbench data convert --domain-column`"
        )

"""The names of readers that a suite may use, each imported when first read with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from tlbench.data.digests import FileDigests
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.rows import restricted
from tlbench.errors import DataError, UnknownNameError, nearest
from tlbench.suites.spec import TaskSpec

Reader = Callable[[Address], Listing]


def _later(module: str, function: str) -> Reader:
    def read(address: Address) -> Listing:
        reader: Reader = getattr(import_module(f"tlbench.data.readers.{module}"), function)
        return reader(address)

    return read


def _embedded(address: Address) -> Listing:
    from tlbench.data.readers.embedded import read_embedded

    address.check_options()
    return restricted(read_embedded(address.entry), address)


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "embedded": _embedded,
        "folder": _later("folder", "read_folder"),
        "domainbed": _later("domainbed", "read_domainbed"),
        "wilds": _later("wilds", "read_wilds"),
        "parquet": _later("parquet", "read_parquet"),
        "hub": _later("hub", "read_hub"),
        "torchvision": _later("torchvision", "read_torchvision"),
    }
)


IN_FOLDERS = frozenset({"folder", "parquet", "domainbed", "wilds"})
"""Readers of what lies below the data root: a task whose path is not there is missing, not wrong."""


def read_domain(spec: TaskSpec, task: str, domain: str, base: Path, *, digests: FileDigests | None = None) -> Listing:
    """Return what a domain holds, by the reader that its task names.

    Parameters
    ----------
    spec : TaskSpec
    task, domain : str
    base : Path
        The data root.
    digests : FileDigests, optional
        Where content hashes of files are remembered.

    Returns
    -------
    Listing
        Its classes are the domain's own (its subset, where the suite declares one), not yet the task's.

    Raises
    ------
    UnknownNameError
        If there is no such reader.
    DataError
        If the data are not what the suite says, or two images have one name.
    """
    if spec.reader not in READERS:
        raise UnknownNameError(f"task '{task}': there is no reader '{spec.reader}'{nearest(spec.reader, READERS)}")
    own = spec.domains[domain]
    address = Address(
        task=task,
        domain=domain,
        base=base,
        path=spec.path or "",
        entry=own.path or domain,
        classes=own.classes or spec.classes,
        options={**spec.options, **own.options},
        digests=digests or FileDigests(None),
        hub=spec.hub,
        others=tuple(spec.domains[name].path or name for name in spec.domains if name != domain),
    )
    listing = READERS[spec.reader](address)
    if not len(listing):
        raise DataError(f"{address.where}: holds no image in {address.place}; get the whole data set")
    if len(set(listing.names)) != len(listing):
        twice, _ = Counter(listing.names).most_common(1)[0]
        raise DataError(
            f"{address.where}: two images in {address.place} are called '{twice}'; two copies were put together, or "
            f"rows were copied: get the original"
        )
    return listing

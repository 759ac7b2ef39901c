"""Names that copies of a data set spell differently: ``Real World`` and ``Real_World``, ``alarm-clock``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tlbench.errors import DataError, listed, nearest

_SHOWN = 5


def canonical(name: str) -> str:
    """Return what all spellings of a name share: the case of letters and the kind of gap do not count.

    >>> canonical("Real World") == canonical("real_world"), canonical("T-Shirt")
    (True, 't_shirt')
    """
    return re.sub(r"[\s_-]", "_", name.strip()).casefold()


def same_classes(where: str, place: Path, expected: Sequence[str], found: Sequence[str]) -> dict[str, str]:
    """Return what the data call every class of the suite: exactly so, or else in another spelling.

    Parameters
    ----------
    where : str
        Start of an error's message.
    place : Path
        Where the names were found, for the message.
    expected : sequence of str
        Classes of the suite.
    found : sequence of str
        Classes of the data.

    Raises
    ------
    DataError
        If a class is missing, is there twice in two spellings, or is none of the suite's: labels are positions
        in a list of names, so one name too few or too many would shift those that follow.
    """
    spelled = Counter(canonical(name) for name in expected)
    by_spelling = {canonical(name): name for name in expected if spelled[canonical(name)] == 1}
    exact = set(expected)
    own = {name: name if name in exact else by_spelling.get(canonical(name)) for name in found}
    # The exact name comes last, and so wins over another spelling of it.
    by_exactness = sorted(own.items(), key=lambda pair: pair[0] in exact)
    names = {suite: data for data, suite in by_exactness if suite is not None}
    missing = [name for name in expected if name not in names]
    strange = [name for name, suite in own.items() if suite is None]
    twice = [data for data, suite in own.items() if suite is not None and names[suite] != data]
    if not missing and not strange and not twice:
        return names
    told = []
    if missing:
        told.append(f"missing {_some(missing)}")
    if strange:
        told.append(f"not of the suite {_some(strange)}{nearest(strange[0], missing)}")
    if twice:
        told.append(f"a second spelling of another class {_some(twice)}")
    raise DataError(
        f"{where}: expected the suite's {len(expected)} classes in {place}, found {len(found)}: {'; '.join(told)}; "
        f"labels would shift: get the whole data set, or move what is not part of it away"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return listed(names[:_SHOWN]) + more

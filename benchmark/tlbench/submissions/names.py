"""Names that a reader takes for one another: other alphabets, capitals, separators, one letter more or less."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

LONG: Final = 8
"""Letters from which one letter more, less or other is a slip of the eye; ``knn`` and ``ncm`` are two names."""

_LATIN: Final = str.maketrans(
    # NFKC folds wide, bold and joined letters; these look alike and are letters of other alphabets.
    "абвгеикмнорстухѕіјԁԛԝһӏ" + "αβγικνορτυχω",
    "abbreukmhopctyxsijdqwhl" + "abyikvoptuxw",
)
_LIKE: Final = str.maketrans("01i|", "olll")


def mistaken_for(name: str, others: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names that a name can be taken for, each with the reason.

    Parameters
    ----------
    name : str
    others : iterable of str
        Its own may be among them.

    Examples
    --------
    >>> mistaken_for("Lp_Ft", ["lp-ft", "finetune"])
    [('lp-ft', 'they differ in capitals, separators or letters that look alike')]
    >>> mistaken_for("finetunes", ["finetune"])
    [('finetune', 'they differ in one letter')]
    >>> mistaken_for("mine(lr=0.1)", ["mine(lr=0.2)"])
    []
    """
    letters = _letters(name)
    found = []
    for other in others:
        if other == name:
            continue
        theirs = _letters(other)
        if _shape(letters) == _shape(theirs):
            found.append((other, "they differ in capitals, separators or letters that look alike"))
        elif max(len(letters), len(theirs)) >= LONG and _one_letter_apart(letters, theirs):
            found.append((other, "they differ in one letter"))
    return found


def _letters(name: str) -> str:
    """Return a name without what the eye passes over: marks, separators, capitals, other alphabets."""
    # Decomposed, so that an accent is a mark of its own (category M), as invisible letters are (C).
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    kept = "".join(letter for letter in plain if unicodedata.category(letter)[0] not in "MC").translate(_LATIN)
    # The point in 0.1 is no separator.
    return re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w.|]|_", "", kept)


def _shape(letters: str) -> str:
    return letters.translate(_LIKE).replace("rn", "m").replace("vv", "w")


def _one_letter_apart(one: str, other: str) -> bool:
    """Return whether one letter was changed, left out or put in; digits and points are settings, and do not count."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next((place for place, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    rest = start + (len(short) == len(long))
    if short[rest:] != long[start + 1 :]:
        return False
    differs = {long[start], *short[start:rest]}
    return all(letter.isalpha() for letter in differs)

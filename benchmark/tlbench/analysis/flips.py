"""The images that one of two models has right and the other wrong: how many, which, and whether chance would do it.

::

    from tlbench.analysis.flips import find_flips

    found = find_flips(tlbench.load_predictions("digits", "lp-ft"), tlbench.load_predictions("digits", "finetune"))
    found.images.head(10)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import bdtr

from tlbench.analysis.paired import side_by_side

_CELL: Final = ["task", "source", "target"]
_IMAGE: Final = [*_CELL, "id"]
_COUNTS: Final = ["both_right", "first_only", "second_only", "both_wrong"]
_TOLD: Final = ["label", "first_predicted", "second_predicted"]


@dataclass(frozen=True)
class Flips:
    """Where two models differ in which images they have right.

    Attributes
    ----------
    pairs : DataFrame
        One row a pair: ``task``, ``source``, ``target``, ``images``, ``seeds``; ``both_right``, ``first_only`` (right
        in the first and wrong in the second), ``second_only`` and ``both_wrong``, counted over images and seeds;
        ``first_images`` and ``second_images``, the images that the first, or the second, has right in more seeds than
        the other; ``p``, McNemar's exact test of these two: over images only, see `mcnemar`.
    images : DataFrame
        One row an image of a pair that flips, most flips first: ``task``, ``source``, ``target``, ``image``, ``id``,
        ``cluster``, ``flips`` (how many seeds), ``first_only``, ``second_only``, ``label``, ``first_predicted`` and
        ``second_predicted``, the classes of all seeds in their order, one where they agree. What no predictions tell
        is null.
    rows : DataFrame
        One row a flip: ``task``, ``source``, ``target``, ``seed``, ``image``, ``id``, ``cluster``, ``right``
        (``"first"`` or ``"second"``), ``label``, ``first_predicted`` and ``second_predicted``.
    """

    pairs: pd.DataFrame
    images: pd.DataFrame
    rows: pd.DataFrame


def mcnemar(first: int, second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    It is over images only: as if they were independent of each other, which images of one cluster are not, and the
    two networks the only ones of their methods. An interval over clusters and seeds says more, and usually less.

    Parameters
    ----------
    first, second : int
        Images that one has right and the other wrong, and the reverse.

    Returns
    -------
    float
        1 where there are none.

    References
    ----------
    McNemar (1947), "Note on the sampling error of the difference between correlated proportions or percentages".

    Examples
    --------
    >>> round(mcnemar(1, 9), 6)
    0.021484
    """
    if first < 0 or second < 0:
        raise ValueError(f"expected counts, got {first} and {second}")
    return float(min(1.0, 2 * bdtr(min(first, second), first + second, 0.5)))


def find_flips(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    role: str = "ood-test",
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Flips:
    """Return the images that one of two models has right and the other wrong.

    Parameters
    ----------
    first, second : DataFrame
        As for ``analysis.paired.compare``, seeds matched as there. Without ``label`` or ``predicted`` these are not
        told.
    role : {"ood-test", "id-test", "id-val"}
    classes : mapping from a task to its classes, optional
        Labels and predictions are then told by name.

    Returns
    -------
    Flips
        ``find_flips(b, a)`` is ``find_flips(a, b)`` with first and second exchanged.

    Raises
    ------
    ValueError
        As for ``analysis.paired.compare``.
    """
    both = side_by_side(first, second, role=role)
    right = both[["first", "second"]].to_numpy() > 0
    kinds = (right[:, 0] & right[:, 1], right[:, 0] & ~right[:, 1], ~right[:, 0] & right[:, 1], ~right.any(axis=1))
    both = both.assign(**{name: kind.astype(np.int64) for name, kind in zip(_COUNTS, kinds, strict=True)})
    by_image = both.groupby(_IMAGE, sort=True)[["first_only", "second_only"]].sum().reset_index()
    flipped = both.merge(by_image.loc[by_image[["first_only", "second_only"]].any(axis=1), _IMAGE], on=_IMAGE)
    flipped = _with_classes(flipped, first, second, role, classes or {})
    return Flips(_pairs(both, by_image), _images(flipped), _rows(flipped))


def _pairs(both: pd.DataFrame, by_image: pd.DataFrame) -> pd.DataFrame:
    counts = both.groupby(_CELL, sort=True)[_COUNTS].sum()
    counts.insert(0, "images", by_image.groupby(_CELL, sort=True).size())
    counts.insert(1, "seeds", both.groupby(_CELL, sort=True)["seed"].nunique())
    lead = np.sign(by_image["first_only"] - by_image["second_only"])
    better = by_image.assign(first_images=lead > 0, second_images=lead < 0)
    counts = counts.join(better.groupby(_CELL, sort=True)[["first_images", "second_images"]].sum().astype(np.int64))
    counts["p"] = [mcnemar(int(a), int(b)) for a, b in counts[["first_images", "second_images"]].to_numpy()]
    return counts.reset_index()


def _images(flipped: pd.DataFrame) -> pd.DataFrame:
    ordered = flipped.sort_values([*_IMAGE, "seed"])
    images = ordered.groupby(_IMAGE, sort=True)
    frame = images[["image", "cluster", "label"]].first()
    frame[["first_only", "second_only"]] = images[["first_only", "second_only"]].sum()
    frame["flips"] = frame["first_only"] + frame["second_only"]
    place = images.ngroup().to_numpy()
    for name in ("first_predicted", "second_predicted"):
        frame[name] = pd.array(_over_seeds(ordered[name], place, len(frame)), dtype="str")
    frame = frame.reset_index()
    # An image that every source's networks disagree on tells more than one of a single pair.
    everywhere = frame.groupby(["task", "target", "id"])["flips"].transform("sum")
    order = frame.assign(most=-frame["flips"], everywhere=-everywhere).sort_values(["most", "everywhere", *_IMAGE])
    columns = [*_CELL, "image", "id", "cluster", "flips", "first_only", "second_only", *_TOLD]
    return frame.loc[order.index, columns].reset_index(drop=True)


def _rows(flipped: pd.DataFrame) -> pd.DataFrame:
    mine = flipped[(flipped["first_only"] + flipped["second_only"]) > 0]
    right = pd.Series(np.where(mine["first_only"] > 0, "first", "second"), index=mine.index, dtype="str")
    columns = [*_CELL, "seed", "image", "id", "cluster", "right", *_TOLD]
    return mine.assign(right=right)[columns].sort_values([*_CELL, "seed", "id"], ignore_index=True)


def _with_classes(
    flipped: pd.DataFrame,
    first: pd.DataFrame,
    second: pd.DataFrame,
    role: str,
    classes: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Return the rows with the label and what was predicted, as text."""
    found = flipped
    for side, table in (("first", first), ("second", second)):
        own = table[(table["role"] == role) & (table["condition"] == "clean")]
        if own["variant"].nunique() > 1:
            own = own[own["headline"].astype(bool)]
        # One fit of a deterministic method stands for every seed.
        key = _IMAGE if own["deterministic"].all() else [*_IMAGE, "seed"]
        known = own[[*key, *(name for name in ("label", "predicted") if name in own.columns)]].drop_duplicates(key)
        renamed = known.rename(columns={"label": f"{side}_label", "predicted": f"{side}_predicted"})
        found = found.merge(renamed, on=key, how="left")
    blank = pd.Series(pd.NA, index=found.index, dtype="Int64")
    labels = [found.get(f"{side}_label", blank).astype("Int64") for side in ("first", "second")]
    told = {"label": labels[0].fillna(labels[1])}
    told |= {name: found.get(name, blank).astype("Int64") for name in ("first_predicted", "second_predicted")}
    return found.assign(**{name: _named(found["task"], codes, classes) for name, codes in told.items()})


def _named(tasks: pd.Series[Any], codes: pd.Series[Any], classes: Mapping[str, Sequence[str]]) -> pd.Series[Any]:
    def name(task: str, code: Any) -> str | None:
        if code is pd.NA or pd.isna(code):
            return None
        known = classes.get(task, ())
        return known[int(code)] if int(code) < len(known) else str(int(code))

    values = [name(str(task), code) for task, code in zip(tasks, codes, strict=True)]
    return pd.Series(values, index=tasks.index, dtype="str")


def _over_seeds(values: pd.Series[Any], place: NDArray[np.integer[Any]], images: int) -> list[str | None]:
    """Return each image's classes over its seeds, one where they agree, None where nothing is known."""
    told: list[list[str]] = [[] for _ in range(images)]
    for number, value in zip(place, values, strict=True):
        if isinstance(value, str):
            told[number].append(value)
    return [None if not own else own[0] if len(set(own)) == 1 else ", ".join(own) for own in told]

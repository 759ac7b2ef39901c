"""What a comparison of two rows looks like when a command prints it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from tlbench.cli.console import printable, show_table, wrapped

if TYPE_CHECKING:
    import pandas as pd

    from tlbench.analysis.compared import Compared

_ROLE: Final = {"ood-test": "OOD", "id-test": "ID", "id-val": "ID-val"}
_LONGEST: Final = 34  # letters of an image's name: its end tells images apart
_P: Final = (
    "p: McNemar's exact test, over images only. It takes images for independent of each other and these networks for "
    "the only ones of their methods; the intervals above ask what other images, clusters and seeds would do."
)
_SEEDS: Final = "p rests on 'A more' and 'B more', the images that one has right in more seeds than the other."


def as_json(found: Compared, flips: int) -> dict[str, Any]:
    """Return what `tlbench compare --json` prints; rates are fractions."""
    return {
        "suite": found.suite,
        "suite_version": found.suite_version,
        "suite_hash": found.suite_hash,
        "first": found.first,
        "second": found.second,
        "metric": found.metric,
        "role": found.role,
        "seeds": list(found.differences.seeds),
        "seeds_resampled": found.differences.seeds_resampled,
        "notes": list(found.notes),
        "differences": _rows(found.frame),
        "flips": _rows(found.images.head(flips)),
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def show(found: Compared, flips: int) -> None:
    """Print the differences, how many images flip, and those that flip most."""
    for line in _heading(found):
        print(line)
    print()
    _show_differences(found)
    print()
    _show_flips(found)
    if flips:
        print()
        _show_images(found, flips)


def _heading(found: Compared) -> list[str]:
    print(f"{found.suite}, version {found.suite_version} (hash {found.suite_hash[:12]})")
    seeds = found.differences.seeds
    told = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} alone"
    measure, better = {
        "accuracy": ("accuracy, in percentage points", "above zero A is better"),
        "nll": ("NLL, in nats", "below zero A is better"),
        "brier": ("Brier score", "below zero A is better"),
    }[found.metric]
    lines = [
        f"A  {printable(found.first)}",
        f"B  {printable(found.second)}",
        "",
        wrapped(
            f"A minus B: {_ROLE[found.role]} {measure}, {told}; {better}. Intervals of 95 %, for these pairs only."
        ),
    ]
    if not found.differences.seeds_resampled:
        lines.append(wrapped("One fit of each: the intervals tell of other images only, of these networks and not of "
                             "their methods."))  # fmt: skip
    return [*lines, *(wrapped(f"Note: {printable(note)}.", indent="  ") for note in found.notes)]


def _show_differences(found: Compared) -> None:
    frame = found.frame
    several = len(found.differences.tasks) > 1
    shown = frame if several else frame[frame["level"] != "task"]
    reasons = [str(row["reason"]) for row in _rows(found.differences.pairs) if row["reason"]]
    marks = {reason: "*" * number for number, reason in enumerate(dict.fromkeys(reasons), start=1)}
    rows = []
    for row in _rows(shown):
        low = row["low"]
        rows.append(
            [
                _where(row, several),
                row["images"],
                row["clusters"],
                _signed(found, row["difference"]),
                "" if low is None else f"{_signed(found, low)} to {_signed(found, row['high'])}",
                "" if row["seeds_sd"] is None else _signed(found, row["seeds_sd"]).lstrip("+"),
                _verdict(row, marks),
            ]
        )
    columns = ["", "images", "clusters", "A - B", "interval", "seeds sd", "A is"]
    show_table(columns, [[_cell(value) for value in row] for row in rows], right=(1, 2, 3, 4, 5))
    for reason, mark in marks.items():
        print(wrapped(f"{mark} no interval: {reason}.", indent="  "))


def _where(row: dict[str, Any], several: bool) -> str:
    match row["level"]:
        case "all":
            return f"all {row['pairs']} pairs"
        case "judged":
            return f"{row['pairs']} with interval"
        case "task":
            return f"{printable(row['task'])}, {row['pairs']} pairs"
        case _:
            return ("  " if several else "") + _pair(row)


def _pair(row: dict[str, Any]) -> str:
    return printable(f"{row['source']} to {row['target']}")


def _verdict(row: dict[str, Any], marks: dict[str, str]) -> str:
    if row["low"] is None:
        return marks[row["reason"]] if row["level"] == "pair" else "no interval"
    return str(row["verdict"])


def _signed(found: Compared, value: float) -> str:
    if not math.isfinite(value):
        return f"{value:+}"
    return f"{100 * value:+.1f}" if found.metric == "accuracy" else f"{value:+.3f}"


def _show_flips(found: Compared) -> None:
    pairs = found.flips.pairs
    many = bool((pairs["seeds"] > 1).any())
    several = pairs["task"].nunique() > 1
    rows: list[list[object]] = []
    for row in _rows(pairs):
        name = f"{printable(row['task'])}: {_pair(row)}" if several else _pair(row)
        counts = [row["both_right"], row["first_only"], row["second_only"], row["both_wrong"]]
        counted = [row["first_images"], row["second_images"]] if many else []
        rows.append([name, *counts, *counted, _p(row["p"])])
    sums = pairs[["both_right", "first_only", "second_only", "both_wrong"]].sum()
    rows.insert(0, ["all pairs", *map(int, sums), *(["", ""] if many else []), ""])
    headers = ["right in", "both", "A only", "B only", "neither", *(["A more", "B more"] if many else []), "p"]
    show_table(headers, rows, right=range(1, len(headers)))
    print(wrapped(f"{_P} Here {_SEEDS}" if many else _P))


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _show_images(found: Compared, flips: int) -> None:
    images = found.images
    several = images["task"].nunique() > 1
    if not len(images):
        print("No image is right in one and wrong in the other.")
        return
    known = bool(images[["first_predicted", "second_predicted"]].notna().any(axis=None))
    rows = []
    for row in _rows(images.head(flips)):
        name = f"{printable(row['task'])}: {_pair(row)}" if several else _pair(row)
        told = [row["label"], row["first_predicted"], row["second_predicted"]] if known else [row["label"]]
        rows.append([name, _image(row), row["first_only"], row["second_only"], *map(_cell, told)])
    headers = ["", "image", "A only", "B only", "label", *(["A says", "B says"] if known else [])]
    show_table(headers, rows, right=(2, 3))
    print(
        wrapped(
            f"{min(flips, len(images)):,} of {len(images):,} images of a pair that flip; 'A only' and 'B only' count "
            "seeds" + ("; what they say is given seed by seed where the seeds differ." if known else ".")
        )
    )


def _image(row: dict[str, Any]) -> str:
    if row["image"] is None:
        return f"image {row['id']}"
    name = printable(str(row["image"]))
    return name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]


def _cell(value: object) -> str:
    return "" if value is None else printable(str(value))

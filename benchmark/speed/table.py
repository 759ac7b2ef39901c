"""Rows as a Markdown page, as lines for a terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from speed.peers import version
from speed.rows import Bar, Outcome, Part, Row, Work

HEAD = ("work", "peer", "peer, ms", "ours, ms", "ratio", "bar", "result", "numbers")
PROSE = """\
# Speed

tlbench beside the tools that people use for the same work: both sides in one run, on one thread, taking turns.
`tox -e speed` measures this table again and `python -m speed --write docs/speed.md` writes it; it exits 1 where a bar
is missed or numbers differ. Times are medians of processor time of at least {repetitions} repetitions after a warm-up,
in milliseconds per what the first column says. A ratio is the peer's time over ours, unless its bar reads "at most".
"Numbers" is the largest difference found and the largest allowed; a row whose numbers differ fails whatever its speed.
Treat ratios within 15 % of a bar as ties: another machine, or another hour, may fall on the other side.
"""


def as_json(rows: Sequence[Row], machine: Mapping[str, str], repetitions: int) -> str:
    """Return everything that was measured as JSON."""
    told = {"machine": dict(machine), "repetitions": repetitions, "rows": [row.as_json() for row in rows]}
    return json.dumps(told, indent=2) + "\n"


def outcomes_of(text: str, works: Mapping[str, Work]) -> tuple[dict[str, str], list[Outcome]]:
    """Return the machine and the outcomes of an earlier run; rows that are no longer measured are left out.

    Raises
    ------
    ValueError
        If the text is no such JSON.
    """
    try:
        told = json.loads(text)
        found = [_outcome(row) for row in told["rows"] if row["key"] in works]
        return dict(told["machine"]), found
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected what --json writes, got JSON without {error}") from error


def _outcome(told: Mapping[str, Any]) -> Outcome:
    names = ("key", "peer_seconds", "ours_seconds", "difference", "absent", "failure", "note")
    return Outcome(**{name: told[name] for name in names}, parts=tuple(Part(**part) for part in told["parts"]))


def markdown(rows: Sequence[Row], machine: Mapping[str, str], repetitions: int) -> str:
    """Return the page of the docs: the machine, the table, what was missed and why, and the tables within rows."""
    pieces = [PROSE.format(repetitions=repetitions), _machine(machine), _grid(HEAD, [cells(row) for row in rows])]
    pieces += [f"{_count(rows)}\n", *_remarks(rows), *(_parts(row) for row in rows if row.outcome.parts)]
    return "\n".join(pieces).rstrip() + "\n"


def plain(rows: Sequence[Row], machine: Mapping[str, str]) -> str:
    """Return the same for a terminal."""
    lines = [f"{name}: {value}" for name, value in machine.items()] + [""]
    table = [HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEAD))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    lines += ["", _count(rows)]
    lines += [f"{row.work.key}: {why(row)}" for row in rows if why(row)]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's cells, in the order of `HEAD`."""
    work, outcome = row.work, row.outcome
    return (
        f"{work.work} (per {work.unit})",
        _peer(work),
        _milliseconds(outcome.peer_seconds),
        _milliseconds(outcome.ours_seconds),
        _ratio(row),
        _bar(work),
        row.status,
        _numbers(row),
    )


def why(row: Row) -> str:
    """Return what is to be said of a row beyond its cells."""
    reason = row.work.reason if row.status == "missed" else ""
    return "; ".join(text for text in (row.outcome.failure, row.outcome.absent, reason, row.outcome.note) if text)


def _peer(work: Work) -> str:
    shown = [version(package) for package in work.packages]
    return work.peer if len(shown) != 1 or not shown[0] else f"{work.peer} {shown[0]}"


def _ratio(row: Row) -> str:
    if row.ratio is None or row.status == "not measured":
        return "-"
    if row.work.ratio == "seconds":
        return "-"
    if row.work.ratio == "share":
        return f"{row.ratio:.3f} of it"
    return f"{row.ratio:.2f}x"


def _bar(work: Work) -> str:
    return "-" if work.bar is None else _limit(work, work.bar)


def _limit(work: Work, bar: Bar) -> str:
    if work.ratio == "seconds":
        return f"about {bar.limit:g} s" if bar.guide else f"at most {bar.limit:g} s"
    if bar.side == "most":
        return f"at most {bar.limit:.2f} of it"
    return f"at least {bar.limit:g}x"


def _numbers(row: Row) -> str:
    if not row.work.agreement or row.outcome.difference is None:
        return "-"
    found, allowed = _small(row.outcome.difference), _small(row.work.tolerance)
    return f"{row.work.agreement}: {found} (at most {allowed})"


def _small(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else str(value)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{_digits(seconds * 1e3)}"


def _digits(value: float) -> str:
    """Return about four significant digits without an exponent."""
    if value <= 0:
        return "0"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(value)))}f}".replace(",", " ") if value < 1e9 else f"{value:g}"


def _count(rows: Sequence[Row]) -> str:
    states = [row.status for row in rows]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) + "."


def _machine(machine: Mapping[str, str]) -> str:
    return "Measured on: " + "; ".join(f"{name} {value}" for name, value in machine.items()) + ".\n"


def _remarks(rows: Sequence[Row]) -> list[str]:
    said = [f"* **{row.work.work}, {row.work.peer}** ({row.status}): {why(row)}." for row in rows if why(row)]
    return ["## Remarks\n", *said, ""] if said else []


def _parts(row: Row) -> str:
    lines = [
        (
            part.name,
            _milliseconds(part.peer_seconds),
            _milliseconds(part.ours_seconds),
            f"{part.peer_seconds / part.ours_seconds:.1f}x" if part.ours_seconds else "-",
            part.agreement or "-",
        )
        for part in row.outcome.parts
    ]
    head = ("", f"{row.work.peer}, ms", "ours, ms", "ratio", "numbers")
    return f"## {row.work.work}, by part\n\nMilliseconds per {row.work.unit}.\n\n{_grid(head, lines)}"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    written = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in written) + "\n"

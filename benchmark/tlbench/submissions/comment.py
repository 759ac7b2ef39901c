"""A review as Markdown for a pull request. Whatever a stranger has written is shown as code, and does nothing."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from tlbench.submissions.facts import CheckFact, Review, Reviews, RowFact, SectionFact

MARK: Final = "<!-- tlbench-submission -->"
"""The first line of a comment, by which it is found and replaced."""
MAX_LETTERS: Final = 60_000  # GitHub takes 65,536
_LONGEST: Final = 300
_MEANING: Final = (
    "*Recomputed* means that every number follows from the stored predictions; not that the model made them."
)
_SIGN: Final = {"ok": "✓", "warning": "⚠", "mismatch": "✗", "not checked": "–"}
_WORDS: Final = {
    "id_accuracy": "ID accuracy", "ood_accuracy": "OOD accuracy", "accuracy_gap": "gap", "nll": "NLL",
    "brier": "Brier", "ece": "ECE", "ece_scaled": "ECE scaled", "mean_corruption_accuracy": "corrupted",
    "mean_robust_accuracy": "attacked", "mean_consistency": "consistent", "demographic_disparity": "disparity",
    "fit_seconds": "fit seconds",
}  # fmt: skip
_PLAIN: Final = ("nll", "brier", "fit_seconds")


def code(text: object, longest: int = _LONGEST) -> str:
    """Return a stranger's text as a Markdown code span on one line, in which nothing is a tag, a link or a mention.

    >>> code("a|b `c` @all <script>")
    "`a¦b 'c' @all <script>`"
    """
    spaced = re.sub(r"\s+", " ", str(text)).strip()
    # Category C: control characters, and marks that turn the direction of what follows.
    kept = "".join(letter for letter in spaced if unicodedata.category(letter)[0] != "C")
    # A code span has no escapes: what ends it, or a table's cell, is replaced by its like.
    kept = kept.replace("`", "'").replace("|", "¦")
    kept = kept if len(kept) <= longest else kept[: longest - 1] + "…"
    return f"`{kept or '-'}`"


def as_markdown(reviews: Reviews) -> str:
    """Return what is posted to a pull request: one table a submission, and what it rests on."""
    lines = [MARK, "## Submission", ""]
    if reviews.problems:
        lines += ["**Refused**: this pull request is no submission.", ""]
        lines += [f"- {code(problem)}" for problem in reviews.problems[:50]]
        lines += ["", "A submission is a folder as `tlbench submit` writes it, and nothing else."]
    elif not reviews.reviews:
        lines.append("There are no results in this pull request.")
    for one in reviews.reviews:
        lines += ["", *_review(one)]
    text = "\n".join(lines).rstrip() + "\n"
    if len(text) <= MAX_LETTERS:
        return text
    kept = text[:MAX_LETTERS].rpartition("\n")[0]
    return f"{kept}\n\nThe rest did not fit; it is in the summary of the workflow.\n"


def _review(one: Review) -> Iterator[str]:
    yield f"### {code(one.model)} on {code(one.suite)}"
    yield ""
    wrong = [check for check in one.checks if check.status == "mismatch"]
    if wrong:
        yield f"**Does not verify**: {len(wrong)} of {len(one.checks)} checks."
    elif one.level == "self-reported":
        yield "**Not recomputed**: nothing is wrong, but some of it could not be checked; see the warnings."
    else:
        yield f"**Verified**, {one.numbers:,} numbers: level {code(one.level)}. {_MEANING}"
    yield from _checks(wrong)
    for section in one.sections:
        yield ""
        yield from _section(one, section)
    told = [*(f"{check.name}: {check.summary}" for check in one.checks if check.status == "warning"), *one.warnings]
    told += [f"{check.name}: not checked: {check.summary}" for check in one.checks if check.status == "not checked"]
    if told:
        yield ""
        yield "Warnings:"
        yield ""
        yield from (f"- {code(text)}" for text in told)
    yield ""
    yield from _details(one.checks)


def _checks(wrong: list[CheckFact]) -> Iterator[str]:
    if wrong:
        yield ""
        yield from (f"- {code(check.name)}: {code(check.summary)}" for check in wrong)


def _details(checks: Iterable[CheckFact]) -> Iterator[str]:
    checks = list(checks)
    if checks:
        yield f"<details><summary>All {len(checks)} checks</summary>"
        yield ""
        yield from _table(
            ["", "check", "found"],
            ([_SIGN[check.status], code(check.name), code(check.summary)] for check in checks),
        )
        yield ""
        yield "</details>"


def _section(one: Review, section: SectionFact) -> Iterator[str]:
    row = section.row
    yield f"**{_standing(section)}** in {', '.join(code(part) for part in section.title)}, by {code(one.metric)}."
    if one.these_pairs_only:
        yield ""
        yield "For these pairs only: with so few tasks nothing is said of other ones."
    yield ""
    heads = ["rank", "row", "score", "95 % of measurement", "ties", "ranks it may have"]
    yield from _table(heads, (_line(one, other) for other in section.neighbours), right=(0, 2))
    yield ""
    if section.ties:
        names = ", ".join(code(name) for name in section.ties[:20])
        yield f"Not told apart from {names}{' and others' if len(section.ties) > 20 else ''}."
        yield ""
    if section.generalisation_low is not None:
        yield (
            f"Interval for tasks like these: {_interval(one, section.generalisation_low, section.generalisation_high)}."
        )
        yield ""
    if section.previous is not None and row.score is not None:
        change = _change(one, row.score, section.previous)
        yield f"Replaces a row with score {_number(one, section.previous)}: {change}."
        yield ""
    yield from _table(
        ["task", "score", "± standard error", "best row"],
        (
            [code(t.task), _number(one, t.score), _number(one, t.standard_error), _number(one, t.best)]
            for t in section.tasks
        ),
        right=(1, 2, 3),
    )
    measures = [(name, value) for name, value in section.measures.items() if value is not None and name in _WORDS]
    if measures:
        yield ""
        yield from _table(
            [_WORDS[name] for name, _ in measures],
            [[f"{value:.3f}" if name in _PLAIN else f"{100 * value:.2f}" for name, value in measures]],
            right=range(len(measures)),
        )


def _standing(section: SectionFact) -> str:
    row = section.row
    if row.rank is not None:
        return f"Rank {row.rank} of {section.ranked}"
    return {"control": "A control, never ranked", "variant": "A variant, never ranked"}.get(
        row.standing, "Not complete" if row.standing == "incomplete" else "Not ranked"
    )


def _line(one: Review, row: RowFact) -> list[str]:
    ranks = f"{row.rank_low} to {row.rank_high}" if row.rank_low is not None and row.rank_high is not None else "–"
    name = f"**{code(row.name)}**" if row.own else code(row.name)
    return [
        str(row.rank) if row.rank is not None else "–",
        name,
        _number(one, row.score),
        _interval(one, row.low, row.high),
        f"group {row.tie_group}" if row.tie_group is not None else "–",
        ranks,
    ]


def _number(one: Review, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.2f}" if one.percent else f"{value:.4f}"


def _change(one: Review, now: float, before: float) -> str:
    return f"{100 * (now - before):+.2f}" if one.percent else f"{now - before:+.4f}"


def _interval(one: Review, low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{_number(one, low)} to {_number(one, high)}"


def _table(heads: list[str], rows: Iterable[list[str]], *, right: Iterable[int] = ()) -> Iterator[str]:
    numeric = set(right)
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join("--:" if place in numeric else ":--" for place in range(len(heads))) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"

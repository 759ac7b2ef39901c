"""What is posted to a pull request, whatever strangers have written into it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tlbench.submissions.comment import MAX_LETTERS, as_markdown, code
from tlbench.submissions.facts import CheckFact, Review, Reviews, RowFact, SectionFact, TaskFact

HOSTILE = (
    "<script>alert(1)</script>|`x` [a](javascript:b) ![i](http://e.org/i) @all #1 https://e.org \\| \x1b[31m\u202e"
)


def row(name: str, rank: int | None, *, own: bool = False) -> RowFact:
    return RowFact(
        name=name, standing="ranked", rank=rank, own=own, score=0.8123, low=0.8, high=0.82, tie_group=1, rank_low=1,
        rank_high=3,
    )  # fmt: skip


def review(name: str = "mine", **changes: Any) -> Review:
    section = SectionFact(
        title=("source-only", "full", "float32", name),
        ranked=9,
        row=row(name, 2, own=True),
        neighbours=(row("first", 1), row(name, 2, own=True)),
        ties=("first",),
        generalisation_low=0.7,
        generalisation_high=0.9,
        tasks=(TaskFact(task="t", score=0.5, standard_error=None, best=0.6),),
        measures={"nll": 0.25, "ece": None},
        previous=0.8,
    )
    facts: dict[str, Any] = {
        "suite": "digits",
        "suite_version": 2,
        "model": name,
        "ok": True,
        "level": "recomputed",
        "numbers": 12,
        "metric": "accuracy",
        "checks": (
            CheckFact(name="values", status="ok", summary=name),
            CheckFact(name="x", status="warning", summary=name),
        ),
        "sections": (section,),
        "warnings": (name,),
    }  # fmt: skip
    return Review(**{**facts, **changes})


def tokens(text: str) -> list[Any]:
    parsed = MarkdownIt("commonmark").enable("table").parse(text)
    return [inner for token in parsed for inner in (token, *(token.children or []))]


def test_it_tells_score_interval_ties_neighbours_tasks_and_warnings() -> None:
    text = as_markdown(Reviews(reviews=(review(),)))
    assert "**Rank 2 of 9**" in text
    assert "| 2 | **`mine`** | 81.23 | 80.00 to 82.00 | group 1 | 1 to 3 |" in text
    assert "| 1 | `first` |" in text
    assert "Not told apart from `first`" in text
    assert "Interval for tasks like these: 70.00 to 90.00" in text
    assert "| `t` | 50.00 | – | 60.00 |" in text
    assert "Replaces a row with score 80.00: +1.23" in text
    assert "- `x: mine`" in text
    assert "not that the model made them" in text


def test_a_name_is_shown_and_does_nothing() -> None:
    text = as_markdown(Reviews(reviews=(review(HOSTILE),), problems=()))
    kinds = {token.type for token in tokens(text)}
    assert "link_open" not in kinds
    assert "image" not in kinds
    assert "html_inline" not in kinds
    html = [token.content.strip() for token in tokens(text) if token.type == "html_block"]
    assert html == ["<!-- tlbench-submission -->", "<details><summary>All 2 checks</summary>", "</details>"]
    # What a mention, an issue number or an address would be made from stands in code alone.
    outside = "".join(token.content for token in tokens(text) if token.type == "text")
    assert "@" not in outside
    assert "#1" not in outside
    assert "https:" not in outside
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_name_moves_no_cell_of_a_table() -> None:
    plain, hostile = (
        [t.type for t in tokens(as_markdown(Reviews(reviews=(review(name),)))) if t.type in ("td_open", "tr_open")]
        for name in ("mine", HOSTILE)
    )
    assert plain == hostile
    assert plain.count("tr_open") == 2 + 1 + 1 + 2 + 4


@given(st.text(max_size=80))
def test_any_text_is_one_code_span(text: str) -> None:
    parsed = tokens(code(text))
    assert [token.type for token in parsed if token.type not in ("paragraph_open", "paragraph_close", "inline")] == [
        "code_inline"
    ]
    cells = [t for t in tokens(f"| a | b |\n| - | - |\n| {code(text)} | x |\n") if t.type == "td_open"]
    assert len(cells) == 2


def test_a_refused_request_says_why_and_shows_no_score() -> None:
    text = as_markdown(Reviews(problems=("a <b>link</b>",)))
    assert "**Refused**" in text
    assert "- `a <b>link</b>`" in text
    wrong = review(ok=False, sections=(), checks=(CheckFact(name="values", status="mismatch", summary="0.9 is 0.8"),))
    text = as_markdown(Reviews(reviews=(wrong,)))
    assert "**Does not verify**: 1 of 1 checks" in text
    assert "`0.9 is 0.8`" in text
    assert "Rank" not in text


def test_a_comment_stays_below_what_the_forge_takes() -> None:
    many = Reviews(reviews=(review("x" * 900),) * 100)
    text = as_markdown(many)
    assert len(text) < MAX_LETTERS + 200
    assert text.endswith("in the summary of the workflow.\n")


@pytest.mark.parametrize("standing", ["control", "incomplete", "unranked", "variant"])
def test_a_row_without_a_rank_says_so(standing: str) -> None:
    one = review()
    section = one.sections[0].model_copy(
        update={"row": one.sections[0].row.model_copy(update={"standing": standing, "rank": None})}
    )
    text = as_markdown(Reviews(reviews=(one.model_copy(update={"sections": (section,)}),)))
    assert "Rank" not in text.replace("ranks", "")

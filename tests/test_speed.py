"""The speed table's own arithmetic, on made-up rows, and one row measured for real; no test asserts a time."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

# At the end: where a wheel is installed, tlbench stays the wheel's.
sys.path.append(str(Path(__file__).parents[1] / "benchmark"))

from speed import run, table
from speed.measure import Effort, alternate
from speed.rows import Bar, Outcome, Part, Row, Work, exit_code
from speed.works import WORKS

MACHINE = {"processor": "a processor", "threads": "1"}


def row(bar=None, peer=None, ours=None, *, tolerance=None, **outcome):
    agreement = {} if tolerance is None else {"agreement": "apart", "tolerance": tolerance}
    work = Work("made-up", "theme", "some work", "a peer", "ours", bar, **agreement)
    return Row(work, Outcome("made-up", peer, ours, **outcome))


@pytest.mark.parametrize(
    ("made", "status", "code"),
    [
        (row(Bar(4.0), 8.0, 2.0), "met", 0),
        (row(Bar(4.0), 7.9, 2.0), "missed", 1),
        (row(None, 1.0, 2.0), "shown", 0),
        (row(Bar(4.0, guide=True), 1.0, 2.0), "shown", 0),
        (row(Bar(4.0), absent="a-peer not installed"), "not measured", 0),
        (row(Bar(4.0), failure="ValueError: no"), "failed", 1),
        (row(Bar(4.0)), "failed", 1),
    ],
)
def test_a_row_is_judged_by_its_bar(made, status, code):
    assert made.status == status
    assert exit_code([row(Bar(1.0), 2.0, 1.0), made]) == code
    assert exit_code([made], bars=False) == (0 if made.status == "missed" else code)


@pytest.mark.parametrize("difference", [0.2, math.nan, None])
def test_a_row_whose_numbers_disagree_fails_whatever_its_speed(difference):
    made = row(Bar(4.0), 100.0, 1.0, tolerance=0.1, difference=difference)
    assert made.status == "disagrees"
    assert exit_code([made]) == 1
    assert row(Bar(4.0), 100.0, 1.0, tolerance=0.1, difference=0.1).status == "met"


def test_a_share_stays_within_its_bar():
    work = Work("made-up", "theme", "all of it", "a part of it", "ours", Bar(1.1, "most"), ratio="share")
    assert Row(work, Outcome("made-up", 10.0, 11.0)).status == "met"
    assert Row(work, Outcome("made-up", 10.0, 11.1)).status == "missed"


def some_works():
    return [
        Work("quick", "one", "some work", "a peer", "ours", Bar(2.0)),
        Work("slow", "one", "other work", "a peer", "ours", Bar(2.0)),
        Work("without", "two", "more work", "nobody", "ours", Bar(2.0), ("no-such-package-anywhere",)),
        Work("broken", "three", "hard work", "a peer", "ours", Bar(2.0)),
    ]


def some_outcomes(calls=None):
    def one(wanted, effort):
        yield Outcome("quick", 4.0, 1.0)
        yield Outcome("slow", 1.5, 1.0, note="as it is")

    def two(wanted, effort):
        raise AssertionError("a row whose peer is absent must not be measured")
        yield

    def three(wanted, effort):
        raise ValueError("the peer fell over")
        yield

    return list(run.measured(some_works(), Effort(), {"one": one, "two": two, "three": three}))


def test_a_peer_that_is_absent_and_one_that_fails_leave_the_others_measured():
    found = {outcome.key: outcome for outcome in some_outcomes()}
    assert found["without"].absent == "no-such-package-anywhere not installed"
    assert found["broken"].failure == "ValueError: the peer fell over"
    rows = [Row(work, found[work.key]) for work in some_works()]
    assert [row.status for row in rows] == ["met", "missed", "not measured", "failed"]


def test_a_failure_costs_only_its_own_row():
    def theme(wanted, effort):
        for key in wanted:
            if key == "quick":
                raise ValueError("no")
            yield Outcome(key, 4.0, 1.0)

    found = {outcome.key: outcome for outcome in run.measured(some_works()[:2], Effort(), {"one": theme})}
    assert found["quick"].failure
    assert found["slow"].ours_seconds == 1.0


def test_a_theme_that_forgets_a_row_has_not_measured_it():
    found = list(
        run.measured(some_works()[:2], Effort(), {"one": lambda wanted, effort: iter([Outcome("quick", 4, 1)])})
    )
    assert [outcome.key for outcome in found if outcome.failure] == ["slow"]


def test_the_page_says_what_was_missed_and_what_was_not_measured():
    found = {outcome.key: outcome for outcome in some_outcomes()}
    page = table.markdown([Row(work, found[work.key]) for work in some_works()], MACHINE, 3)
    assert "| some work (per call) | a peer | 4 000 | 1 000 | 4.00x | at least 2x | met | - |" in page
    assert "| other work (per call) | a peer | 1 500 | 1 000 | 1.50x | at least 2x | missed | - |" in page
    assert "**other work, a peer** (missed): as it is." in page
    assert "no-such-package-anywhere not installed" in page
    assert "1 met, 1 missed, 1 not measured, 1 failed." in page
    assert "processor a processor" in page


def test_the_reason_for_a_miss_is_told_where_the_bar_is_missed_only():
    work = Work("made-up", "theme", "some work", "a peer", "ours", Bar(4.0), reason="the disk is slow")
    assert table.why(Row(work, Outcome("made-up", 7.0, 2.0, note="on 8 images"))) == "the disk is slow; on 8 images"
    assert table.why(Row(work, Outcome("made-up", 8.0, 2.0, note="on 8 images"))) == "on 8 images"


def test_parts_of_a_row_have_a_table_of_their_own():
    made = row(Bar(2.0), 4.0, 1.0, parts=(Part("fog", 0.3, 0.1, "1 level on 0 % of values"),))
    assert "| fog | 300.0 | 100.0 | 3.0x | 1 level on 0 % of values |" in table.markdown([made], MACHINE, 3)


def test_what_was_found_comes_back_from_json():
    works = {work.key: work for work in some_works()}
    found = {outcome.key: outcome for outcome in some_outcomes()}
    text = table.as_json([Row(work, found[key]) for key, work in works.items()], MACHINE, 3)
    statuses = {told["key"]: told["status"] for told in json.loads(text)["rows"]}
    assert statuses == {"quick": "met", "slow": "missed", "without": "not measured", "broken": "failed"}
    machine, outcomes = table.outcomes_of(text, works)
    assert machine == MACHINE
    assert {outcome.key: outcome for outcome in outcomes} == found


def test_sides_take_turns_and_the_slower_one_is_slower_by_the_clock_given():
    now, order = 0.0, []

    def side(name, seconds):
        def work():
            nonlocal now
            now += seconds
            order.append(name)
            return name

        return work

    timed = alternate({"a": side("a", 3.0), "b": side("b", 1.0)}, repetitions=3, clock=lambda: now)
    assert order == list("ababbaab")  # once uncounted, then in turns
    assert (timed["a"].median, timed["b"].median) == (3.0, 1.0)
    assert (timed["a"].result, len(timed["b"].seconds)) == ("a", 3)


def test_what_is_too_quick_for_the_clock_is_repeated():
    now, calls = 0.0, 0

    def work():
        nonlocal now, calls
        now, calls = now + 0.004, calls + 1

    timed = alternate({"quick": work}, repetitions=2, clock=lambda: now)
    assert calls == 1 + 2 * 5
    assert timed["quick"].median == pytest.approx(0.004)


def test_every_row_of_the_table_has_a_module_and_a_bar_or_none():
    for key, work in WORKS.items():
        assert key == work.key
        assert (Path(run.__file__).parent / f"{work.theme}.py").is_file()
        assert bool(work.agreement) or work.ratio in ("share", "seconds")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "gradeint"], "there is no row 'gradeint'; did you mean 'gradient'?"),
        (["--repetitions", "0"], "expected at least 1"),
        (["--json", "no-such-folder/rows.json"], "there is no no-such-folder"),
        (["--write", "page.md", "--quick"], "leave out --quick"),
        (["--write", "page.md", "--only", "gradient"], "the page is of all rows"),
        (["--only", "gradient", "--keep", "no-such-file.json"], "--keep no-such-file.json"),
    ],
)
def test_a_wrong_call_is_told_and_exits_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        run.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_rows_are_listed_without_measuring(capsys):
    assert run.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(WORKS)


def test_the_clean_forward_pass_is_measured_and_its_logits_agree(tmp_path, capsys):
    path = tmp_path / "found.json"
    run.main(["--only", "forward-64", "--quick", "--repetitions", "1", "--json", str(path)])
    assert "the plain model" in capsys.readouterr().out
    (told,) = json.loads(path.read_text())["rows"]
    assert told["difference"] <= told["tolerance"]
    assert told["status"] in ("met", "missed")
    assert told["peer_seconds"] > 0

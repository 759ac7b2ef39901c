from __future__ import annotations

import io

from tlbench.engine.progress import Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def worked(stream: io.StringIO, **options: object) -> str:
    with Reporter(4, stream=stream, **options) as reporter:
        reporter.doing("fit left")
        reporter.step(10, 30)
        reporter.say("fitted left")
        reporter.doing("left to dark: clean")
        reporter.predicted(12)
        reporter.advance(2)
    return stream.getvalue()


def test_away_from_a_terminal_there_are_plain_lines() -> None:
    lines = worked(io.StringIO(), seconds=0).splitlines()
    assert lines[:4] == ["0/4  fit left", "0/4  fit left (10/30 steps)", "fitted left", "0/4  left to dark: clean"]
    assert lines[-1].startswith("2/4  left to dark: clean")
    assert lines[-1].endswith("about 0 s left")
    assert "\x1b" not in "".join(lines)


def test_lines_come_every_few_seconds_and_not_with_every_image() -> None:
    assert worked(io.StringIO(), seconds=60) == "fitted left\n"


def test_on_a_terminal_the_line_is_live_and_what_was_said_stays() -> None:
    shown = worked(Terminal())
    assert "fitted left" in shown
    assert "\x1b[" in shown


def test_quiet_says_nothing() -> None:
    assert worked(io.StringIO(), quiet=True, seconds=0) == ""
    assert worked(Terminal(), quiet=True) == ""


def test_more_work_than_was_counted_leaves_no_negative_time() -> None:
    stream = io.StringIO()
    reporter = Reporter(1, stream=stream, seconds=0)
    reporter.advance(3)
    assert stream.getvalue() == "3/1  starting  about 0 s left\n"

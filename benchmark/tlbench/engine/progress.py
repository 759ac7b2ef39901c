"""What a user sees while work goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

_PLAIN_SECONDS = 15.0


class Reporter:
    """Counts units of work and images, and tells how far they are.

    Parameters
    ----------
    total : int
        Units of work (fits and measurements) to be done.
    quiet : bool
        Say nothing.
    stream : text file, optional
        Standard error by default, so that standard output stays for results.
    seconds : float
        Between two plain lines, away from a terminal.
    """

    def __init__(
        self, total: int, *, quiet: bool = False, stream: TextIO | None = None, seconds: float = _PLAIN_SECONDS
    ) -> None:
        self.total = total
        self.done = 0
        self.images = 0
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self.seconds = seconds
        self._text = "starting"
        self._step = ""
        self._started = time.monotonic()
        self._last_line = self._started
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Reporter:
        if not self.quiet and self.stream.isatty():
            columns = (
                # What is being done gives way to how far it is, where the terminal is narrow.
                TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._live = Progress(*columns, console=Console(file=self.stream), transient=True, expand=True)
            self._live.start()
            self._task = self._live.add_task("starting", total=self.total, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self.stream, flush=True)

    def doing(self, text: str) -> None:
        """Tell what is being done now."""
        self._text = text
        self._show()

    def step(self, done: int, total: int) -> None:
        """Tell how far the training at hand is."""
        self._step = f" ({done}/{total} steps)"
        self._show()
        self._step = ""

    def predicted(self, images: int) -> None:
        """Count images that were passed through a predictor."""
        self.images += images
        self._show()

    def advance(self, units: int = 1) -> None:
        """Count finished work."""
        self.done += units
        self._show()

    def _show(self) -> None:
        """Bring the live line up to date; away from a terminal, print a line every few seconds."""
        if self.quiet:
            return
        text = self._text + self._step
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self.done, total=self.total, description=text, rate=self._rate())
        elif time.monotonic() - self._last_line > self.seconds:
            self._last_line = time.monotonic()
            parts = (f"{self.done}/{self.total}", text, self._rate(), self._left())
            print("  ".join(part for part in parts if part), file=self.stream, flush=True)

    def _rate(self) -> str:
        seconds = time.monotonic() - self._started
        return f"{self.images / seconds:.0f} images/s" if seconds > 1 and self.images else ""

    def _left(self) -> str:
        if not self.done:
            return ""
        seconds = (time.monotonic() - self._started) / self.done * max(self.total - self.done, 0)
        return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


class ImagesTold:
    """Tells a reporter how far work on images is, from the labels and numbers that ``SuiteData`` and others give.

    Parameters
    ----------
    reporter : Reporter
        Its units are images.
    done : str
        What has been done to a domain's images once they are through, such as ``"prepared"``.
    """

    def __init__(self, reporter: Reporter, done: str) -> None:
        self._reporter, self._word = reporter, done
        self._label = ""
        self._done = 0

    def __call__(self, label: str, done: int, total: int) -> None:
        if label.endswith(": reading"):
            self._reporter.doing(f"{label} ({done}/{total} files)")
            return
        if label != self._label:
            # What an earlier run has done counts neither as done now nor towards the speed.
            self._label, self._done = label, done - 1
            self._reporter.doing(label)
        self._reporter.images += done - self._done
        self._reporter.advance(done - self._done)
        self._done = done
        if done == total:
            self._reporter.say(f"{label}: {total} images {self._word}")

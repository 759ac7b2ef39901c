"""What a command prints: aligned tables, JSON, and one line for everything that went wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from textwrap import fill
from typing import Any

import typer

from tlbench.errors import LeftOutWarning, TlbenchError, nearest

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_STORAGE = {
    errno.ENOSPC: "the disk is full; the same command resumes once there is room",
    errno.EDQUOT: "the disk quota is used up; the same command resumes once there is room",
    errno.EROFS: "the folder is read-only; name another",
    errno.EACCES: "permission denied; name another folder, or change its permissions",
    errno.EPERM: "permission denied; name another folder, or change its permissions",
}


def say(text: str = "") -> None:
    """Print a line for people, on stderr: stdout holds results and nothing else."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def results_only() -> Iterator[None]:
    """Send to stderr what a plug-in prints meanwhile: stdout holds results, which a program may read."""
    with redirect_stdout(sys.stderr):
        yield


def show_json(value: Any) -> None:
    """Print a value as JSON on stdout; NaN and infinities, which JSON lacks, are null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


_WIDEST = 118  # letters; longer lines are hard to read


def wrapped(text: str, *, first: str = "", indent: str = "") -> str:
    """Return prose in lines that fit the terminal, at most 118 letters wide; blank lines part paragraphs.

    Paths, addresses and options are to be copied: none of them is broken.
    """
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
    return "\n\n".join(
        fill(
            paragraph,
            width,
            initial_indent=first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for paragraph in paragraphs
    )


def show_table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Collection[int] = ()) -> None:
    """Print a table on stdout: boxed on a terminal, aligned columns of text elsewhere.

    Columns of numbers, and those of the places in ``right``, end in line.
    """
    texts = [[_cell(value) for value in row] for row in rows]
    numeric = [
        i in right or (bool(rows) and all(isinstance(row[i], int | float | None) for row in rows))
        for i in range(len(headers))
    ]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(headers))
        for header, number in zip(headers, numeric, strict=True):
            table.add_column(header, justify="right" if number else "left", overflow="fold")
        for row in texts:
            table.add_row(*row)
        # Square brackets in names are text, not rich's markup.
        Console(markup=False, highlight=False).print(table)
        return
    widths = [max(len(row[i]) for row in [list(headers), *texts]) for i in range(len(headers))]
    for row in [list(headers), *texts] if any(headers) else texts:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """Return text that anyone may have written: what would steer a terminal is shown, not obeyed."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def run(command: Callable[[], object]) -> int:
    """Run a command and return its exit code; whatever goes wrong is one line on stderr.

    Returns
    -------
    int
        0 done, 1 something failed, 2 a user's mistake, 4 verification mismatch, 130 interrupted.
    """
    try:
        with _warnings_as_lines():
            code = command()
        sys.stdout.flush()
        if code == INTERRUPTED:
            raise KeyboardInterrupt  # typer turns Ctrl-C into this code, without a word
        return code if isinstance(code, int) else 0
    except TlbenchError as problem:
        return _fail(problem, problem.exit_code)
    except typer.TyperException as problem:
        return _fail(_usage(problem), USAGE)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted; the same command resumes")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; flushing at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        if problem.errno not in _STORAGE:
            return _unexpected(problem)
        where = f"{problem.filename}: " if problem.filename else ""
        return _fail(f"{where}{_STORAGE[problem.errno]}", USAGE)
    except Exception as problem:
        return _unexpected(problem)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print a warning of what is left out as one line, once however often it is given; others as Python does."""
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftOutWarning)
        otherwise = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, LeftOutWarning):
                otherwise(message, category, *place, **more)
            elif str(message) not in told:
                told.add(str(message))
                say(printable(f"warning: {' '.join(str(message).split())}"))

        warnings.showwarning = show
        yield


def _fail(message: object, code: int) -> int:
    if os.environ.get("TLBENCH_DEBUG"):
        traceback.print_exc()
    # A message is one line; only the rows of a table, which it sets apart by two blanks, keep theirs.
    first, *rows = str(message).split("\n  ")
    for text in [f"error: {' '.join(first.split())}", *(f"  {row.rstrip()}" for row in rows)]:
        say(printable(text))
    return code


def _unexpected(problem: Exception) -> int:
    return _fail(f"{type(problem).__name__}: {problem} (unexpected; TLBENCH_DEBUG=1 shows the traceback)", FAILED)


def _usage(problem: typer.TyperException) -> str:
    """Return a mistake in the words of the command line, with the nearest option and where to read more."""
    context = getattr(problem, "ctx", None)
    option = getattr(problem, "option_name", None)
    message = problem.format_message().rstrip(".").replace("Value error, ", "")
    if message.startswith("No such option"):
        known = [name for parameter in context.command.params for name in parameter.opts] if context else []
        message = f"there is no option '{option}'{nearest(str(option), known)}"
    help_ = f" (see {context.command_path} --help)" if context is not None else ""
    return f"{message}{help_}"

"""How a script of the repository ends: as the command line does, in one line for what went wrong."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from subprocess import CalledProcessError

from tlbench.cli.console import run
from tlbench.errors import UsageError


def run_step(main: Callable[[], int]) -> int:
    """Run a script and return its exit code; a file that is not there, or a program that fails, is told in one line.

    Parameters
    ----------
    main : callable
        Returns an exit code.
    """

    def told() -> int:
        try:
            return main()
        except CalledProcessError as problem:
            words = problem.cmd if isinstance(problem.cmd, str) else shlex.join(map(str, problem.cmd))
            said = problem.stderr or b""
            lines = (said.decode("utf-8", "replace") if isinstance(said, bytes) else said).strip().splitlines()
            why = lines[-1].removeprefix("fatal: ") if lines else f"exit code {problem.returncode}"
            raise UsageError(f"{words[:300]}: {why}") from None
        except OSError as problem:
            raise UsageError(f"{problem.filename}: {problem.strerror or problem}") from None

    return run(told)

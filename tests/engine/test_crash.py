"""Killed at any moment, run by several processes at once, interrupted: the same command ends with the same records."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tlbench import api, cli
from tlbench.records.store import stores

if not hasattr(os, "fork"):
    pytest.skip("these tests fork, so that PyTorch is imported once", allow_module_level=True)

OPTIONS = {"seeds": [0, 1], "threads": 1}
FITS = 4  # two sources, two seeds


def numbers(run_dir: Path, suite: Path) -> pd.DataFrame:
    frame = api.load_results(suite, run_dir=run_dir, published=False)
    columns = ["source", "target", "role", "seed", "condition", "severity", "epsilon", "metric"]
    return frame.sort_values(columns).reset_index(drop=True)


def start(work: Callable[[], int], errors: Path | None = None) -> int:
    """Do some work in a process of its own, its standard error in a file; return the process."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        # Nothing of the test runner's: not its captured streams, not its way of ending.
        output = os.open(errors or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = work()
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; return its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def evaluation(suite: Path, run_dir: Path, **options: object) -> Callable[[], int]:
    def work() -> int:
        result = api.evaluate(suite, "finetune", run_dir=run_dir, **{"quiet": True, **OPTIONS, **options})
        return 0 if result.complete else 1

    return work


def at_rename(number: int, sent: signal.Signals, work: Callable[[], int]) -> Callable[[], int]:
    """Send a signal to the process just before its file system is asked for the given rename, counted from 0."""

    def struck() -> int:
        left = number
        rename, replace = Path.rename, Path.replace

        def counted(plain: Callable[..., Path]) -> Callable[..., Path]:
            def method(self: Path, target: Path) -> Path:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), sent)
                left -= 1
                return plain(self, target)

            return method

        Path.rename, Path.replace = counted(rename), counted(replace)  # type: ignore[method-assign]
        return work()

    return struck


def check_whole(run_dir: Path) -> None:
    for folder in run_dir.rglob("measurements/[!.]*"):
        assert (folder / "records.parquet").is_file()
    for folder in run_dir.glob("*/fits/[!.]*"):
        assert (folder / "fit.json").is_file()


def leftovers(run_dir: Path) -> list[Path]:
    return [path for path in run_dir.rglob(".*")]


@pytest.fixture(scope="module")
def undisturbed(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, float]:
    """The records of a run that nothing happened to, and its seconds."""
    run_dir = tmp_path_factory.mktemp("undisturbed")
    evaluation(blobs, tmp_path_factory.mktemp("warm"), seeds=[0], only=["source=right"])()
    started = time.monotonic()
    assert ended(start(evaluation(blobs, run_dir))) == 0
    return numbers(run_dir, blobs), time.monotonic() - started


def test_killed_at_random_moments_and_run_again(
    blobs: Path, tmp_path: Path, undisturbed: tuple[pd.DataFrame, float]
) -> None:
    records, seconds = undisturbed
    rng = random.Random(0)
    for _ in range(4):
        child = start(evaluation(blobs, tmp_path))
        time.sleep(rng.uniform(0.1, 0.7) * seconds)
        os.kill(child, signal.SIGKILL)
        assert ended(child) in (-signal.SIGKILL, 0)
        check_whole(tmp_path)
    assert ended(start(evaluation(blobs, tmp_path))) == 0
    pd.testing.assert_frame_equal(numbers(tmp_path, blobs), records)
    assert leftovers(tmp_path) == []


def test_killed_before_any_rename_and_run_again(
    blobs: Path, tmp_path: Path, undisturbed: tuple[pd.DataFrame, float]
) -> None:
    records, _ = undisturbed
    errors = tmp_path / "errors"
    runs = tmp_path / "runs"
    # suite.json, the card, the first fit, its variants, its row, its first measurement; then somewhere further on.
    for number in (0, 1, 2, 3, 3, 3, 11):
        before = len(list(runs.rglob("*.parquet")))
        assert ended(start(at_rename(number, signal.SIGKILL, evaluation(blobs, runs)), errors)) == -signal.SIGKILL
        check_whole(runs)
        assert leftovers(runs) != []
        assert len(list(runs.rglob("*.parquet"))) >= before
    assert ended(start(evaluation(blobs, runs, quiet=False), errors)) == 0
    pd.testing.assert_frame_equal(numbers(runs, blobs), records)
    assert leftovers(runs) == []
    (store,) = stores(runs, "blobs")
    assert store.model("finetune").fits().num_rows == FITS


def test_two_processes_at_once_share_the_work(
    blobs: Path, tmp_path: Path, undisturbed: tuple[pd.DataFrame, float]
) -> None:
    records, _ = undisturbed
    runs = tmp_path / "runs"
    logs = [tmp_path / "first", tmp_path / "second"]
    children = [start(evaluation(blobs, runs, quiet=False), log) for log in logs]
    assert [ended(child) for child in children] == [0, 0]
    fitted = [[line for line in log.read_text().splitlines() if line.startswith("fitted")] for log in logs]
    assert all(fitted)
    # No fit was made twice, and none by nobody.
    assert len({line.partition(" in ")[0] for part in fitted for line in part}) == FITS
    assert sum(map(len, fitted)) == FITS
    pd.testing.assert_frame_equal(numbers(runs, blobs), records)
    assert leftovers(runs) == []


def test_a_wrapper_and_what_it_wraps_at_once_wait_for_no_one_for_ever(blobs: Path, tmp_path: Path) -> None:
    def work(model: str) -> Callable[[], int]:
        def evaluate() -> int:
            result = api.evaluate(blobs, model, run_dir=tmp_path / "runs", seeds=[0], threads=1, metrics=["accuracy"])
            return 0 if result.complete else 1

        return evaluate

    log = tmp_path / "log"
    children = [start(work(model), log) for model in ("temperature(finetune)", "finetune")]
    assert [ended(child) for child in children] == [0, 0], log.read_text()
    (store,) = stores(tmp_path / "runs", "blobs")
    assert len(list(store.folder.glob("fits/*/fit.json"))) == 4
    assert "it is fitted again" not in log.read_text()


def test_an_interruption_is_exit_code_130_and_resumes(
    blobs: Path, tmp_path: Path, undisturbed: tuple[pd.DataFrame, float]
) -> None:
    records, _ = undisturbed
    runs, errors = tmp_path / "runs", tmp_path / "errors"
    words = ["evaluate", "--suite", str(blobs), "--model", "finetune", "--run-dir", str(runs), "--threads", "1"]
    assert ended(start(at_rename(9, signal.SIGINT, lambda: cli.main(words)), errors)) == 130
    assert errors.read_text().endswith("interrupted; the same command resumes\n")
    # Unlike a kill, an interruption leaves nothing behind.
    assert leftovers(runs) == []
    check_whole(runs)
    (store,) = stores(runs, "blobs")
    done = store.model("finetune").records().num_rows
    assert 0 < done < len(records)
    assert ended(start(evaluation(blobs, runs))) == 0
    pd.testing.assert_frame_equal(numbers(runs, blobs), records)

"""The steps of the submission workflow, on a good submission and on hostile ones."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tlbench
from tlbench.errors import StoreError
from tlbench.records.inventory import FileFact, PlacedFact, read_inventory
from tlbench.records.levels import level_of
from tlbench.records.published import PublishedModel, published_folder, published_models
from tlbench.submissions.comment import as_markdown
from tlbench.submissions.download import Policy
from tlbench.submissions.facts import Review, Reviews
from tlbench.suites.load import load_suite

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "submission"

pytestmark = pytest.mark.skipif(not published_models("digits"), reason="no published results in this checkout")


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tlbench_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(name: str, *words: str | Path, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(tlbench.__file__).parents[1])}
    command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment)


def git(place: Path, *words: str, given: bytes = b"") -> str:
    names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *words], cwd=place, check=True, capture_output=True, input=given, env={**os.environ, **names}
    )
    return done.stdout.decode().strip()


def committed(place: Path) -> str:
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "x")
    return git(place, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def submissions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good submissions: a control, and a model that is ranked."""
    make = loaded(ROOT / "tests" / "published_run.py").submission_of_published
    return {name: make(name, tmp_path_factory.mktemp(name)) for name in ("majority", "ncm")}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout in which one other model is published."""
    place = tmp_path / "repository"
    # As nobody has verified it, whatever the published folder says of it by now.
    unverified = shutil.ignore_patterns("verification.json")
    published = published_folder() / "digits" / "linear-probe"
    shutil.copytree(published, place / "results" / "digits" / "linear-probe", ignore=unverified)
    git(tmp_path, "init", "-q", "-b", "main", str(place))
    committed(place)
    return place


def test_a_good_submission_goes_all_the_way(repository: Path, submissions: dict[str, Path], tmp_path: Path) -> None:
    base = git(repository, "rev-parse", "HEAD")
    shutil.copytree(submissions["ncm"], repository / "results" / "digits" / "ncm")
    head = committed(repository)
    git(repository, "switch", "-q", "--detach", base)
    data = tmp_path / "data"
    changed = script("changed.py", base, head, "--out", data, place=repository)
    assert changed.returncode == 0, changed.stderr
    (tmp_path / "changed.json").write_text(changed.stdout)
    told = json.loads(changed.stdout)
    assert told["submissions"] == [{"suite": "digits", "model": "ncm", "path": "results/digits/ncm"}]
    for path in submissions["ncm"].iterdir():
        assert (data / "results" / "digits" / "ncm" / path.name).read_bytes() == path.read_bytes()
    out = tmp_path / "review.json"
    check = script("check.py", data, "--changed", tmp_path / "changed.json", "--out", out, place=repository)
    assert check.returncode == 0, check.stdout + check.stderr
    assert "**Rank 2 of 2** in `source-only`" in check.stdout
    assert "| 1 | `linear-probe` | 40.60 |" in check.stdout
    assert "| 2 | **`ncm`** | 38.98 |" in check.stdout
    assert "| `digits` | 38.98 |" in check.stdout
    assert "level `recomputed`" in check.stdout
    assert as_markdown(Reviews.model_validate_json(out.read_text())) == check.stdout

    git(repository, "switch", "-q", "main")
    merge = script("merge.py", base, place=repository)
    assert merge.returncode == 0, merge.stderr
    folder = repository / "results" / "digits" / "ncm"
    assert level_of(folder) == "recomputed"
    other = repository / "results" / "digits" / "linear-probe"
    assert level_of(other) == "self-reported"
    # What did not change is verified on request.
    merge = script("merge.py", "--all", place=repository)
    assert merge.returncode == 0, merge.stderr
    assert (level_of(folder), level_of(other)) == ("recomputed", "recomputed")


def test_what_is_no_submission_is_refused_and_not_copied(
    repository: Path, submissions: dict[str, Path], tmp_path: Path
) -> None:
    base = git(repository, "rev-parse", "HEAD")
    folder = repository / "results" / "digits" / "majority"
    shutil.copytree(submissions["majority"], folder)
    (folder / "verification.json").write_text("{}")
    (folder / "plugin.py").symlink_to("/etc/passwd")
    (folder / "card.toml").chmod(0o755)
    (repository / "conftest.py").write_text("raise SystemExit")
    shutil.rmtree(repository / "results" / "digits" / "linear-probe")
    # Git's own commands make no such tree, but anybody can.
    head = committed(repository)
    blob = git(repository, "hash-object", "-w", "--stdin", given=b"x")
    inner = git(repository, "mktree", given=f"100644 blob {blob}\trecords.parquet\n".encode())
    climbing = git(repository, "mktree", given=f"040000 tree {inner}\t..\n".encode())
    results = git(repository, "ls-tree", f"{head}:results") + f"\n040000 tree {climbing}\tdigits2\n"
    top = git(repository, "ls-tree", head).replace(git(repository, "rev-parse", f"{head}:results"), "%")
    top = top.replace("%", git(repository, "mktree", given=results.encode()))
    tree = git(repository, "mktree", given=f"{top}\n".encode())
    head = git(repository, "commit-tree", tree, "-p", base, "-m", "x")
    changed = script("changed.py", base, head, "--out", tmp_path / "data", place=repository)
    assert changed.returncode == 4
    problems = "\n".join(json.loads(changed.stdout)["problems"])
    for said in (
        "'conftest.py': expected results/<suite>/<model>/<file> and nothing else",
        "'results/digits/majority/verification.json': is written by the board alone",
        "'results/digits/majority/plugin.py': expected a plain file, got a link",
        "'results/digits/majority/card.toml': expected a plain file, got a program",
        "'results/digits2/../records.parquet': expected a plain path, got one that climbs",
        "results/digits/linear-probe: is removed",
    ):
        assert said in problems, problems
    assert not (tmp_path / "data").exists()
    (tmp_path / "changed.json").write_text(changed.stdout)
    check = script("check.py", tmp_path / "data", "--changed", tmp_path / "changed.json", place=repository)
    assert check.returncode == 4
    assert "**Refused**" in check.stdout


def refreshed(folder: Path) -> None:
    """State the hashes of the files as they are now, as a liar would."""
    inventory = read_inventory(folder)
    assert inventory is not None
    files = {path.name: FileFact.of(path) for path in folder.iterdir() if path.name != "submission.json"}
    (folder / "submission.json").write_text(inventory.model_copy(update={"files": files}).to_json())


@pytest.fixture
def submission(submissions: dict[str, Path], tmp_path: Path) -> Path:
    """A good submission of one's own, to spoil."""
    folder = tmp_path / "data" / "results" / "digits" / "majority"
    shutil.copytree(submissions["majority"], folder)
    return folder


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return loaded(SCRIPTS / "check.py")


def reviewed(check: ModuleType, folder: Path) -> Review:
    found: Review = check.reviewed(PublishedModel(folder, "digits", "majority"), folder / "no-board")
    # Whatever was found can be told.
    assert as_markdown(Reviews(reviews=(found,)))
    return found


def wrong(one: Review) -> dict[str, str]:
    return {found.name: found.summary for found in one.checks if found.status == "mismatch"}


def edit(path: Path, column: str, change: Callable[[np.ndarray], None], rows: slice = slice(None)) -> None:
    table = pq.read_table(path)
    values = table.column(column).to_numpy().copy()
    change(values)
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type, from_pandas=True)), path)


def test_an_edited_number_is_found(submission: Path, check: ModuleType) -> None:
    def better(values: np.ndarray) -> None:
        values[np.flatnonzero((values > 0.05) & (values < 0.5))[0]] += 0.01

    edit(submission / "records.parquet", "value", better)
    assert "files" in wrong(reviewed(check, submission))
    refreshed(submission)
    found = reviewed(check, submission)
    assert not found.ok
    assert "values" in wrong(found)
    assert "files" not in wrong(found)
    # Of what does not verify no score is told.
    assert found.sections == ()


@pytest.mark.parametrize(
    ("column", "change"),
    [("label", lambda v: np.put(v, 0, (v[0] + 1) % 10)), ("id", lambda v: np.put(v, 0, 3_000_000))],
)
def test_predictions_of_other_images_or_labels_are_found(
    submission: Path, check: ModuleType, column: str, change: Callable[[np.ndarray], None]
) -> None:
    edit(submission / "predictions.parquet", column, change)
    refreshed(submission)
    assert "images" in wrong(reviewed(check, submission))


def test_a_missing_pair_is_found(submission: Path, check: ModuleType) -> None:
    table = pq.read_table(submission / "records.parquet")
    frame = table.to_pandas()
    kept = ~((frame["role"] == "ood-test") & (frame["target"] == frame[frame["role"] == "ood-test"]["target"].iloc[0]))
    pq.write_table(table.filter(pa.array(kept.to_numpy())), submission / "records.parquet")
    refreshed(submission)
    assert "completeness" in wrong(reviewed(check, submission))


def test_another_version_of_the_suite_is_found(submission: Path, check: ModuleType) -> None:
    for name in ("records", "fits"):
        path = submission / f"{name}.parquet"
        table = pq.read_table(path)
        place = table.schema.get_field_index("suite_hash")
        other = pa.array(["0" * 64] * len(table))
        pq.write_table(table.set_column(place, table.schema.field(place), other), path)
    refreshed(submission)
    assert "suite" in wrong(reviewed(check, submission))


def test_a_suite_of_one_s_own_is_no_board(submission: Path, check: ModuleType) -> None:
    other: Review = check.reviewed(PublishedModel(submission, "mine", "majority"), submission / "no-board")
    assert "there is no suite 'mine'" in wrong(other)["readable"]


def number(value: int) -> bytes:
    """Return a 64-bit number as Parquet's footer holds it."""
    value, out = 2 * value, b""
    while value > 127:
        value, out = value >> 7, out + bytes([value & 127 | 128])
    return b"\x16" + out + bytes([value])


def test_a_file_that_claims_billions_of_rows_is_refused_unread(submission: Path, check: ModuleType) -> None:
    rows, path = 12_345, submission / "records.parquet"
    pq.write_table(pa.table({name: np.zeros(rows, np.int8) for name in ("suite", "value")}), path, compression="zstd")
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8].replace(number(rows), number(4_000_000_000))
    path.write_bytes(content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert path.stat().st_size < 3000
    assert pq.read_metadata(path).num_rows == 4_000_000_000
    refreshed(submission)
    assert "expected at most 2,000,000,000 bytes when unpacked" in wrong(reviewed(check, submission))["schema"]


def test_a_link_in_a_submission_is_not_followed(submission: Path, check: ModuleType, tmp_path: Path) -> None:
    (submission / "records.parquet").rename(tmp_path / "elsewhere.parquet")
    (submission / "records.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    found = wrong(reviewed(check, submission))
    assert "got a link" in found["schema"]


def test_tags_in_a_card_are_text(submission: Path, check: ModuleType) -> None:
    evil = "<script>alert(1)</script> | `x` @all"
    (submission / "card.toml").write_text(f'name = "{evil}"\nbackbone = "{evil}"\n')
    refreshed(submission)
    text = as_markdown(Reviews(reviews=(reviewed(check, submission),)))
    assert "the card is that of '<script>alert(1)</script> ¦ 'x' @all', the row is 'majority'" in text
    assert "**Verified**" in text
    (submission / "card.toml").write_text(f'name = "{"x" * 10_000}"\n')
    refreshed(submission)
    assert "schema" in wrong(reviewed(check, submission))


def test_a_folder_without_records_is_told(submission: Path, check: ModuleType) -> None:
    (submission / "records.parquet").unlink()
    assert [found.model for found in check.below(submission.parents[2])] == ["majority"]
    assert "schema" in wrong(reviewed(check, submission))


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[tuple[Path, Policy]]:
    """A folder that is served, and the rules under which it may be fetched from."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    place = f"127.0.0.1:{server.server_port}"
    yield folder, Policy(hosts=(place,), redirected=(), schemes=("http",), private=True, pause=5.0)
    server.shutdown()
    server.server_close()
    thread.join()


def moved(submission: Path, served: Path, policy: Policy) -> None:
    """Put the predictions where they are served, and say so."""
    inventory = read_inventory(submission)
    assert inventory is not None
    (submission / "predictions.parquet").rename(served / "predictions.parquet")
    (host,) = policy.hosts
    fact = inventory.files["predictions.parquet"]
    placed = PlacedFact(**fact.model_dump(), url=f"http://{host}/predictions.parquet")
    files = {name: one for name, one in inventory.files.items() if name != "predictions.parquet"}
    told = inventory.model_copy(update={"files": files, "elsewhere": {"predictions.parquet": placed}})
    (submission / "submission.json").write_text(told.to_json())


def test_what_could_not_be_fetched_is_told_in_the_review(submission: Path, tmp_path: Path) -> None:
    inventory = read_inventory(submission)
    assert inventory is not None
    fact = inventory.files["predictions.parquet"]
    placed = {"predictions.parquet": PlacedFact(**fact.model_dump(), url="https://localhost/x")}
    files = {name: one for name, one in inventory.files.items() if name not in placed}
    told = inventory.model_copy(update={"files": files, "elsewhere": placed})
    (submission / "submission.json").write_text(told.to_json())
    (submission / "predictions.parquet").unlink()
    refused = tmp_path / "refused.txt"
    fetched = script("fetch.py", submission.parents[2], tmp_path / "nowhere", "--refused", refused, place=tmp_path)
    assert fetched.returncode == 4
    lines = refused.read_text().splitlines()
    assert len(lines) == 2
    assert any(line.startswith("results/digits/majority: ") and "localhost" in line for line in lines)
    check = script("check.py", submission.parents[2], "--fetched", refused, place=tmp_path)
    assert check.returncode == 4
    assert "localhost" in check.stdout


def test_a_submission_whose_row_says_what_is_not_so_is_refused(submission: Path, check: ModuleType) -> None:
    for name in ("records", "fits"):
        path = submission / f"{name}.parquet"
        table = pq.read_table(path)
        place = table.column_names.index("control")
        free = pa.array([False] * len(table))
        pq.write_table(table.set_column(place, table.schema.field(place), free), path)
    refreshed(submission)
    assert wrong(reviewed(check, submission))["identity"].startswith("control: expected True of majority, got False")
    (submission / "submission.json").unlink()
    assert "submission.json is missing" in wrong(reviewed(check, submission))["identity"]


def test_predictions_that_lie_elsewhere_are_fetched_and_verified(
    submission: Path, check: ModuleType, forge: tuple[Path, Policy]
) -> None:
    moved(submission, *forge)
    here = {path.name for path in submission.iterdir()}
    report = loaded(SCRIPTS / "merge.py").verified(submission, submission / "no-board", forge[1])
    assert report.level == "recomputed"
    # To verify what lies elsewhere leaves nothing in the results.
    assert {path.name for path in submission.iterdir()} == here
    loaded(SCRIPTS / "merge.py").write_level(submission, report)
    assert level_of(submission) == "recomputed"
    (submission / "verification.json").unlink()
    fetch = loaded(SCRIPTS / "fetch.py").fetch
    assert [path.name for path in fetch(submission, forge[1])] == ["predictions.parquet"]
    found = reviewed(check, submission)
    assert (found.ok, found.level) == (True, "recomputed")


def test_predictions_that_are_others_than_stated_are_refused(
    submission: Path, forge: tuple[Path, Policy], tmp_path: Path
) -> None:
    moved(submission, *forge)
    served = forge[0] / "predictions.parquet"
    served.write_bytes(served.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match="SHA-256"):
        loaded(SCRIPTS / "fetch.py").fetch(submission, forge[1])
    # The rules of the workflow know no such host at all.
    done = script("fetch.py", tmp_path / "data", place=tmp_path)
    assert done.returncode == 4
    assert "expected an address that begins with https://" in done.stderr
    assert not (submission / "predictions.parquet").exists()


def test_a_merge_leaves_what_does_not_verify_self_reported(repository: Path, submissions: dict[str, Path]) -> None:
    base = git(repository, "rev-parse", "HEAD")
    folder = repository / "results" / "digits" / "majority"
    shutil.copytree(submissions["majority"], folder)
    edit(folder / "records.parquet", "value", lambda values: np.put(values, 0, 0.123))
    refreshed(folder)
    committed(repository)
    done = script("merge.py", base, place=repository)
    assert done.returncode == 4
    assert "1 submissions stay self-reported" in done.stderr
    assert level_of(folder) == "self-reported"
    assert not (folder / "verification.json").exists()


@pytest.mark.parametrize("text", ["[]", "{}{", '{"reviews": [{"suite": 3}]}', '{"format": 2}'])
def test_a_table_is_made_of_a_review_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "review.json").write_text(text)
    table = loaded(SCRIPTS / "table.py")
    before, sys.argv = sys.argv, ["table.py", str(tmp_path / "review.json")]
    try:
        assert table.main() == 2
    finally:
        sys.argv = before


def test_the_suite_of_these_tests_is_the_published_one(submissions: dict[str, Path]) -> None:
    inventory = read_inventory(submissions["majority"])
    assert inventory is not None
    assert inventory.suite_hash == load_suite("digits").hash

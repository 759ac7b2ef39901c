"""Which submissions a difference writes, and what a pull request may not do."""

from __future__ import annotations

import pytest

from tlbench.submissions.changes import Change, Entry, Touched, read_changes, read_tree, touched, tree_problems

PLACE = Touched("digits", "m", "results/digits/m")


def refused(path: str, *, mode: str = "100644", status: str = "A") -> str:
    _, problems = touched([Change(status, mode, path)])
    assert len(problems) == 1, problems
    return problems[0]


def test_the_known_files_of_a_submission_are_its_own() -> None:
    names = ("records.parquet", "card.toml", "plugin.py", "submission.json", "outcomes.parquet")
    found, problems = touched([Change("A", "100644", f"results/digits/a%2Fb/{name}") for name in names])
    assert problems == []
    assert found == [Touched("digits", "a/b", "results/digits/a%2Fb")]


@pytest.mark.parametrize(
    "path",
    [
        "results/digits/../../x/records.parquet",
        "results/../benchmark/x/records.parquet",
        "results/digits/./records.parquet",
        "/results/digits/m/records.parquet",
        "results//m/records.parquet",
    ],
)
def test_a_path_that_climbs_out_is_refused(path: str) -> None:
    assert "climbs" in refused(path)


@pytest.mark.parametrize(
    "path",
    [
        "benchmark/tlbench/submissions/verify.py",
        ".github/workflows/submission.yml",
        "results/README.md",
        "results/digits/records.parquet",
        "results/digits/m/deep/records.parquet",
    ],
)
def test_anything_beside_a_submission_is_refused(path: str) -> None:
    assert "nothing else" in refused(path)
    assert "nothing else" in refused(path, status="D")


def test_an_unknown_file_is_refused_with_the_nearest_known() -> None:
    assert "did you mean 'records.parquet'" in refused("results/digits/m/record.parquet")
    assert "expected a file of a submission" in refused("results/digits/m/setup.sh")


@pytest.mark.parametrize(
    ("mode", "said"), [("120000", "a link"), ("160000", "another repository"), ("100755", "a program")]
)
def test_links_and_programs_are_refused(mode: str, said: str) -> None:
    assert said in refused("results/digits/m/card.toml", mode=mode)


def test_a_submitter_does_not_write_the_verification_but_may_replace_what_it_spoke_of() -> None:
    path = "results/digits/m/verification.json"
    assert "by the board alone" in refused(path)
    assert "by the board alone" in refused(path, status="M")
    assert touched([Change("D", "000000", path)]) == ([PLACE], [])


@pytest.mark.parametrize("name", ["a b%20", "%2e%2e", "..%2F", "a%2Gb", "é", "a\x1b[31m", "a\u202eb", "%6D", "m" * 300])
def test_a_folder_that_submit_would_not_make_is_refused(name: str) -> None:
    assert refused(f"results/digits/{name}/card.toml")


def test_what_is_shown_of_a_name_is_plain_ascii() -> None:
    assert refused("results/digits/\x1b]0;x\x07\u202e/card.toml").isascii()


def test_git_s_lists_are_read_whole() -> None:
    blob = "0" * 40
    raw = f":000000 100644 {blob} {blob} A\0results/digits/m/a\nb\0:100644 000000 {blob} {blob} D\0x\0".encode()
    assert read_changes(raw) == [Change("A", "100644", "results/digits/m/a\nb"), Change("D", "000000", "x")]
    assert read_changes(b"") == []
    with pytest.raises(ValueError, match="two modes"):
        read_changes(b"nonsense\0path\0")
    tree = f"100644 blob {blob}      12\tresults/digits/m/card.toml\x00160000 commit {blob}       -\tx\0".encode()
    assert read_tree(tree) == [
        Entry("100644", "results/digits/m/card.toml", blob, 12),
        Entry("160000", "x", blob, 0),
    ]


def test_a_folder_is_judged_as_a_whole() -> None:
    good = Entry("100644", f"{PLACE.path}/records.parquet", "0", 10)
    assert tree_problems(PLACE, [good]) == []
    assert "withdrawn by a maintainer" in tree_problems(PLACE, [])[0]
    assert "a link" in tree_problems(PLACE, [good, Entry("120000", f"{PLACE.path}/card.toml", "0", 1)])[0]
    huge = Entry("100644", f"{PLACE.path}/predictions.parquet", "0", 10**9)
    assert "expected at most" in tree_problems(PLACE, [good, huge])[0]
    assert "there is 'M' already" in tree_problems(PLACE, [good], ["M", "m", "n"])[0]

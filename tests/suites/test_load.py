"""Suites are found by name or file, and every mistake is one line with its place and the way out."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.errors import SuiteError, UnknownNameError
from tlbench.suites.load import check_names, find_suite, load_suite, suite_names, suite_schema, suites_folder

BASE = """name = "mine"
[tasks.pacs]
reader = "folder"
domains = ["photo", "sketch", "art"]
"""
PAIR = '[[tasks.pacs.pairs]]\nsource = "photo"\ntarget = "sketch"\n'
FOG = '[[conditions]]\nkind = "corruption"\ntypes = ["fog", "snow"]\n'


def message(tmp_path: Path, text: str) -> str:
    """Return the error of a suite file, without the file's name."""
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError) as caught:
        load_suite(file)
    words = str(caught.value)
    assert words.startswith(str(file))
    assert "\n" not in words
    return words.removeprefix(str(file)).lstrip(":, ")


def complaint(file: Path) -> str:
    """Return what is wrong with a suite file, or nothing; anything but a SuiteError passes through."""
    try:
        load_suite(file)
    except SuiteError as problem:
        return str(problem)
    return ""


def test_a_bare_name_is_one_of_ours() -> None:
    assert "digits" in suite_names()
    assert find_suite("digits") == suites_folder() / "digits.toml"


def test_every_suite_of_ours_is_named_as_its_file() -> None:
    assert [load_suite(name).name for name in suite_names()] == list(suite_names())


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="there is no suite 'digit'; did you mean 'digits'"):
        load_suite("digit")


def test_a_name_without_its_suffix_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(BASE)
    with pytest.raises(UnknownNameError, match=r"a file is given with its suffix: mine\.toml"):
        load_suite("mine")
    assert load_suite("mine.toml").name == "mine"
    assert load_suite("./mine.toml").name == "mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BASE + 'readr = "x"\n', "tasks.pacs: unknown key 'readr'; did you mean 'reader'?"),
        ('nam = "x"\n' + BASE, "unknown key 'nam'; did you mean 'name'?"),
        (BASE + "[protocol]\nimage_sise = 64\n", "protocol: unknown key 'image_sise'; did you mean 'image_size'?"),
        (BASE + PAIR + 'targett = "art"\n', "tasks.pacs, pair 1: unknown key 'targett'; did you mean 'target'?"),
        (BASE + FOG + "severites = [1]\n", "conditions, entry 1: unknown key 'severites'; did you mean 'severities'?"),
        (BASE.replace("art", "photo"), "tasks.pacs.domains: 'photo' is given twice"),
        (
            BASE + PAIR + PAIR.replace("sketch", "sketchh"),
            "tasks.pacs, pair 2: target 'sketchh' is not a domain of this task; did you mean 'sketch'?",
        ),
        (BASE + PAIR.replace('"photo"', "3"), "tasks.pacs, pair 1: source: expected a string or a list, got 3"),
        (BASE + PAIR + PAIR, "tasks.pacs, pair 2: photo to sketch is named twice"),
        (BASE + 'pairs = "al"\n', "tasks.pacs.pairs: expected 'all' or a list, got 'al'; did you mean 'all'?"),
        (BASE.replace('name = "mine"', ""), "key 'name' is missing"),
        (BASE.replace('reader = "folder"', ""), "tasks.pacs: key 'reader' is missing"),
        (BASE.replace('"mine"', '"../x"'), "name: expected a name of letters, digits, '.', '_' and '-', got '../x'"),
        (
            BASE + '[protocol]\nshots = ["ful"]\n',
            "protocol.shots, entry 1: expected 'full' or a whole number, got 'ful'",
        ),
        (BASE + "[protocol.recipe]\nlr = nan\n", "protocol.recipe.lr: expected a finite number, got nan"),
        (BASE + "[protocol.split]\ntrain = 0.9\n", "protocol.split: train + val + test must be 1, got 1.1"),
        (BASE + '[[conditions]]\nkind = "atack"\n', "conditions, entry 1: kind: expected one of"),
        (BASE + '[[conditions]]\nname = "fog"\n', "conditions, entry 1: key 'kind' is missing"),
        (BASE + FOG + 'name = "fog"\n', "conditions, entry 1: expected 'name' or 'types', got both"),
        (
            BASE + FOG.replace('["fog", "snow"]', '"fog"'),
            "conditions, entry 1: types: expected a list of names, got 'fog'",
        ),
        (
            BASE + '[[conditions]]\nkind = "clean"\nroles = ["idval"]\n',
            "conditions, entry 1: roles, entry 1: expected 'id-val'",
        ),
        (BASE.replace('"art"', "3"), "tasks.pacs.domains: expected a table, or a list of names"),
        ("a = = 1", "not TOML: Invalid value (at line 1, column 5)"),
        ("a = " + "[" * 5000 + "]" * 5000, "expected at most 32 tables within tables"),
        ("a = " + "{a=" * 40 + "1" + "}" * 40, "expected at most 32 tables within tables"),
        ("", "key 'name' is missing"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text).startswith(expected)


def test_conditions_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    wrong = '[[conditions]]\nkind = "corruption"\nname = "frost"\nseverities = [1, 9]\n'
    expected = "conditions, entry 2: severities, entry 2: expected less than or equal to 5, got 9"
    assert message(tmp_path, BASE + FOG + wrong) == expected


def test_a_list_that_is_empty_or_has_one_wrong_entry_is_one_mistake(tmp_path: Path) -> None:
    table, place = '[[conditions]]\nkind = "corruption"\nname = "fog"\nseverities = ', "conditions, entry 1: severities"
    assert message(tmp_path, BASE + table + "[]\n") == f"{place}: expected at least 1 entry, got an empty list"
    assert message(tmp_path, BASE + table + "[0]\n") == f"{place}, entry 1: expected greater than or equal to 1, got 0"


def test_a_domain_declared_twice_is_an_error(tmp_path: Path) -> None:
    text = 'name = "x"\n[tasks.p]\nreader = "folder"\n[tasks.p.domains.a]\n[tasks.p.domains.a]\n'
    assert "Cannot declare ('tasks', 'p', 'domains', 'a') twice" in message(tmp_path, text)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "large.toml").write_text("# nothing\n" * 200_000)
    (tmp_path / "folder.toml").mkdir()
    expected = {
        "binary": "UTF-8",
        "large": "at most 1,000,000 bytes",
        "folder": "got a folder",
        "absent": "no such file",
    }
    for name, words in expected.items():
        with pytest.raises(SuiteError, match=words):
            load_suite(tmp_path / f"{name}.toml")


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(BASE + text, encoding="utf-8", errors="surrogatepass", newline="")
    assert "\n" not in complaint(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["photo", "clean", "fog", "all", "kind"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "types", "name", "domains", "pairs", "split", "source"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(["tasks", "conditions", "protocol", "metrics"]), JSON)
def test_no_structure_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, key: str, value: object) -> None:
    def toml(item: object) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{name} = {toml(inner)}" for name, inner in item.items()) + "}"
        if isinstance(item, list):
            return "[" + ", ".join(map(toml, item)) + "]"
        return '"none"' if item is None else json.dumps(item)

    file = tmp_path_factory.getbasetemp() / "shape.toml"
    tasks = "" if key == "tasks" else 'tasks = {p = {reader = "folder", domains = ["a", "b"]}}\n'
    file.write_text(f'name = "x"\n{tasks}{key} = {toml(value)}\n', encoding="utf-8")
    assert "\n" not in complaint(file)


def test_titles_and_licences_do_not_move_the_hash(tmp_path: Path) -> None:
    files = {"plain": BASE, "told": BASE + 'licence = "MIT"\n', "cut": BASE + "[protocol]\nimage_size = 32\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
    hashes = {name: load_suite(tmp_path / f"{name}.toml").hash for name in files}
    assert hashes["plain"] == hashes["told"] != hashes["cut"]


def test_types_stand_for_one_condition_each(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(BASE + FOG)
    one_each = "".join(f'[[conditions]]\nkind = "corruption"\nname = "{name}"\n' for name in ("fog", "snow"))
    (tmp_path / "long.toml").write_text(BASE + one_each)
    assert load_suite(tmp_path / "short.toml").hash == load_suite(tmp_path / "long.toml").hash


def test_unknown_names_of_other_floors_are_told_with_their_place() -> None:
    suite = load_suite("digits")
    check_names(suite, readers=["embedded"], backbones=["efficientnet-lite0"], metrics=["accuracy"])
    with pytest.raises(SuiteError, match=r"tasks\.digits: reader: unknown name 'embedded'; did you mean 'embeded'"):
        check_names(suite, readers=["embeded"])
    with pytest.raises(SuiteError, match="protocol: backbone: unknown name 'efficientnet-lite0'"):
        check_names(suite, backbones=["small-cnn"])
    with pytest.raises(SuiteError, match="metrics: primary: unknown name 'accuracy'"):
        check_names(suite, metrics=["nll"])
    with pytest.raises(SuiteError, match="conditions: clean: unknown name 'clean'"):
        check_names(suite, conditions={"attack": ["apgd-dlr"]})


def test_the_schema_accepts_what_the_reader_accepts() -> None:
    schema = suite_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads((suites_folder() / "digits.toml").read_text()), schema)
    jsonschema.validate(tomllib.loads(BASE + FOG + PAIR), schema)


@pytest.mark.parametrize(
    "text",
    [BASE + 'readr = "x"\n', BASE + FOG + 'name = "fog"\n', BASE.replace("art", "photo"), BASE.replace("mine", "/")],
)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), suite_schema())

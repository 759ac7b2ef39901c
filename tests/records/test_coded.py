"""Texts as codes: the same rows, the same words."""

from __future__ import annotations

import pyarrow as pa

from tlbench.records.coded import as_coded, joined, rows_of, rows_of_pairs, with_word, words_of


def table(*rows: tuple[str, str | None, int]) -> pa.Table:
    first, second, number = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return as_coded(
        pa.table(
            {"a": pa.array(first, pa.string()), "b": pa.array(second, pa.string()), "n": pa.array(number, pa.int64())}
        )
    )


def test_rows_are_chosen_by_word_and_by_pairs_of_words() -> None:
    found = table(("x", "p", 1), ("x", "q", 2), ("y", "p", 3), ("y", "q", 4))
    assert words_of(found, "a") == {"x", "y"}
    assert rows_of(found, "a", "y")["n"].to_pylist() == [3, 4]
    assert rows_of(found, "a", "z")["n"].to_pylist() == []
    assert rows_of_pairs(found, ("a", "b"), {("x", "q"), ("y", "p"), ("z", "z")})["n"].to_pylist() == [2, 3]
    assert rows_of_pairs(found, ("a", "b"), set())["n"].to_pylist() == []
    assert rows_of_pairs(table(), ("a", "b"), {("x", "q")})["n"].to_pylist() == []


def test_tables_with_other_words_are_joined_and_chosen_from_alike() -> None:
    both = joined([table(("x", "p", 1)), table(("y", None, 2), ("x", "q", 3)), table()])
    assert both.select(["a", "b", "n"]).to_pylist() == [
        {"a": "x", "b": "p", "n": 1},
        {"a": "y", "b": None, "n": 2},
        {"a": "x", "b": "q", "n": 3},
    ]
    assert rows_of(both, "a", "x")["n"].to_pylist() == [1, 3]
    chunks = pa.concat_tables([table(("x", "p", 1)), table(("y", "p", 2))])
    assert rows_of(chunks, "a", "y")["n"].to_pylist() == [2]


def test_a_word_is_said_in_every_row() -> None:
    assert with_word(table(("x", "p", 1), ("y", "q", 2)), "origin", "local")["origin"].to_pylist() == ["local"] * 2

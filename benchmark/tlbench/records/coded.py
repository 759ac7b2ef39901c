"""Tables whose texts are codes into dictionaries: millions of records in the memory of a few numbers each."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CODED = pa.dictionary(pa.int32(), pa.string())


def as_coded(table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Return some columns of a table, or all, texts as codes."""
    table = table if columns is None else table.select(list(columns))
    for place, field in enumerate(table.schema):
        if field.type == pa.string():
            column = table.column(place).dictionary_encode()
            table = table.set_column(place, field.with_type(CODED), column)
    return table


def words_of(table: pa.Table, column: str) -> set[str]:
    """Return the distinct texts of a coded column."""
    return set(pc.unique(table.column(column)).to_pylist())


def rows_of(table: pa.Table, column: str, word: str) -> pa.Table:
    """Return the rows that have a text in a coded column."""
    codes, words = _codes(table, column)
    return table.filter(pa.array(np.array([other == word for other in words], dtype=bool)[codes]))


def rows_of_pairs(table: pa.Table, columns: tuple[str, str], pairs: Collection[tuple[str, str]]) -> pa.Table:
    """Return the rows whose two texts, both present, are one of the pairs."""
    (first, first_words), (second, second_words) = (_codes(table, column) for column in columns)
    wanted = np.array([[(one, other) in pairs for other in second_words] for one in first_words], dtype=bool)
    if not wanted.size or not len(first):
        return table.slice(0, 0)
    return table.filter(pa.array(wanted[first, second]))


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables one below the other, every column with one dictionary."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def with_word(table: pa.Table, column: str, word: str, field: pa.Field | None = None) -> pa.Table:
    """Return a table with a coded column that says the same in every row, like a field of text where one is given."""
    codes = pa.array(np.zeros(len(table), dtype=np.int32))
    coded = pa.field(column, CODED) if field is None else field.with_type(CODED)
    return table.append_column(coded, pa.DictionaryArray.from_arrays(codes, pa.array([word])))


def _codes(table: pa.Table, column: str) -> tuple[NDArray[np.int32], list[str]]:
    coded = table.column(column).unify_dictionaries().combine_chunks()
    if isinstance(coded, pa.ChunkedArray):
        coded = pa.concat_arrays(coded.chunks) if coded.num_chunks else pa.array([], pa.string()).dictionary_encode()
    return coded.indices.to_numpy(), coded.dictionary.to_pylist()

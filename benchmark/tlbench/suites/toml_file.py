"""A TOML file from anyone to checked data: every mistake is one line with file, place, expectation, nearest match."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tlbench.errors import TlbenchError, listed, nearest

MAX_BYTES = 1_000_000
_DEEPEST = 32  # tables within tables; deeper files are refused before anything walks them
Path_ = tuple[str | int, ...]


def read_toml(path: Path, *, error: type[TlbenchError], what: str) -> dict[str, Any]:
    """Return the content of a TOML file.

    Parameters
    ----------
    path : Path
        A file that anyone may have written; it is read, and nothing in it runs.
    error : type
        Exception to raise, with a message of one line.
    what : str
        What the file should be, such as ``"a suite file"``.

    Raises
    ------
    error
        If the file is missing, unreadable, a folder, larger than 1 MB, not UTF-8, not TOML, nested too
        deeply, or holds a number that is not finite.
    """
    try:
        if not path.exists():
            raise error(f"{path}: no such file; expected {what}{nearest_file(path)}")
        if not path.is_file():
            raise error(f"{path}: expected {what}, got a folder or device")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as problem:  # ValueError: a null byte in the name
        reason = problem.strerror if isinstance(problem, OSError) else None
        raise error(f"{str(path)!r}: cannot be read: {reason or problem}") from problem
    if len(content) > MAX_BYTES:
        raise error(f"{path}: expected {what} of at most {MAX_BYTES:,} bytes, got a larger file")
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as problem:
        raise error(
            f"{path}: expected UTF-8 text, got byte 0x{content[problem.start]:02x} at {problem.start}"
        ) from None
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{path}: not TOML: {one_line(problem)}") from None
    except RecursionError:
        raise error(f"{path}: expected at most {_DEEPEST} tables within tables") from None
    for place, value in _walk(document):
        if len(place) > _DEEPEST:
            raise error(f"{path}: expected at most {_DEEPEST} tables within tables")
        if isinstance(value, float) and not math.isfinite(value):
            raise error(f"{path}, {in_words(place)}: expected a finite number, got {value}")
    return document


def nearest_file(path: Path) -> str:
    """Return ``"; did you mean 'x'?"`` for the file of the same suffix beside a missing one, or an empty string."""
    try:
        beside = [other.name for other in path.parent.iterdir() if other.suffix == path.suffix]
    except OSError:
        return ""
    return nearest(path.name, beside)


def _walk(value: Any) -> Iterator[tuple[Path_, Any]]:
    waiting: list[tuple[Path_, Any]] = [((), value)]
    while waiting:
        place, item = waiting.pop()
        yield place, item
        if isinstance(item, dict):
            waiting += [((*place, key), child) for key, child in item.items()]
        elif isinstance(item, list):
            waiting += [((*place, number), child) for number, child in enumerate(item)]


def repeated(document: Mapping[str, Any]) -> tuple[Path_, Any] | None:
    """Return the first list of plain values that holds one twice, as its place and the value."""
    found = []
    for place, value in _walk(document):
        if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
            twice = next((item for number, item in enumerate(value) if item in value[:number]), None)
            if twice is not None:
                found.append((place, twice))
    return min(found, key=lambda pair: [str(part) for part in pair[0]]) if found else None


def one_line(problem: object) -> str:
    """Return a message without line breaks."""
    return re.sub(r"\s*\n\s*", "; ", str(problem)).strip()


def in_words(place: Sequence[str | int]) -> str:
    """Return a place of a document as its reader would name it.

    >>> in_words(("tasks", "pacs", "pairs", 2, "target"))
    'tasks.pacs, pair 3: target'
    >>> in_words(("conditions", 1, "severities", 0))
    'conditions, entry 2: severities, entry 1'
    """
    text = ""
    for number, part in enumerate(place):
        if isinstance(part, int):
            entry = "pair" if number and place[number - 1] == "pairs" else "entry"
            text = text.removesuffix(".pairs") if entry == "pair" else text
            text += f", {entry} {part + 1}"
        elif not text:
            text = part
        else:
            text += (": " if isinstance(place[number - 1], int) else ".") + part
    return text


def explain(problem: ValidationError, document: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Return the most telling error of a validation as ``"place: what was expected, what came"``.

    Parameters
    ----------
    problem : ValidationError
        Of ``model`` on ``document``.
    document : mapping
        What was validated; places are told by it.
    model : type
        Whose fields are the keys that are known.
    """
    errors = [(_place(error["loc"], document, error["type"]), error) for error in problem.errors(include_url=False)]
    # A misspelt key is told before the key that is missing because of it, and of a union's branches the one that fits.
    strange = [pair for pair in errors if pair[1]["type"] == "extra_forbidden"]
    deepest = [pair for pair in errors if not any(_inside(other[0], pair[0]) for other in errors)]
    place = (strange or deepest)[0][0]
    same = [error for where, error in errors if where == place]
    if same[0]["type"] == "extra_forbidden":
        return _unknown_key(place, document, model)
    others = len({where for where, _ in strange or deepest}) - 1
    more = f" (and {others} more)" if others and not any(error["type"] == "value_error" for error in same) else ""
    return _sentence(place, same) + more


def _inside(inner: Path_, outer: Path_) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _place(loc: tuple[int | str, ...], document: Any, kind: str) -> Path_:
    """Return an error's place without the names that pydantic gives to the branches of a union."""
    place: list[str | int] = []
    value = document
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if part in keys:
            place.append(part)
            value = value[part]
        elif last and kind == "missing":
            place.append(part)
    return tuple(place)


def _unknown_key(place: Path_, document: Mapping[str, Any], model: type[BaseModel]) -> str:
    *parents, key = place
    known = keys_at(model, parents, document)
    hint = nearest(str(key), known) or f"; known are {listed(known)}"
    where = f"{in_words(parents)}: " if parents else ""
    return f"{where}unknown key '{key}'{hint}"


def keys_at(model: type[BaseModel], place: Sequence[str | int], document: Any) -> list[str]:
    """Return the keys that a table of the document may hold."""
    models = [model]
    value = document
    for part in place:
        value = value[part]
        found: list[type[BaseModel]] = []
        for one in models:
            if isinstance(part, int):
                found.append(one)  # the entries of a list were found with the list
            elif part in one.model_fields:
                found += _models_in(one.model_fields[part].annotation)
            else:
                found.append(one)  # a name in a table of names
        models = found
    if isinstance(value, dict) and all("kind" in one.model_fields for one in models):
        models = [m for m in models if value.get("kind") in get_args(m.model_fields["kind"].annotation)] or models
    keys = [key for one in models for key in one.model_fields]
    return list(dict.fromkeys([*keys, "types"] if {"severities", "epsilons"} & set(keys) else keys))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _sentence(place: Path_, errors: list[ErrorDetails]) -> str:
    first = errors[0]
    kind, context = first["type"], first.get("ctx", {})
    where = in_words(place)
    if kind == "value_error":
        text = one_line(context["error"])
        joint = ", " if re.match(r"pair \d+:", text) else ": "
        return f"{where}{joint}{text}" if where else text
    if kind == "missing":
        *parents, key = place
        return f"{in_words(parents)}: key '{key}' is missing" if parents else f"key '{key}' is missing"
    if kind == "union_tag_not_found":
        return f"{where}: key 'kind' is missing"
    if kind == "union_tag_invalid":
        tag, tags = str(context["tag"]), re.findall(r"'([^']+)'", str(context["expected_tags"]))
        return f"{where}: kind: expected one of {listed(tags)}, got '{tag}'{nearest(tag, tags)}"
    wanted = " or ".join(dict.fromkeys(_expectation(error) for error in errors))
    value = first["input"]
    choices = [c for error in errors for c in re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))]
    return f"{where}: expected {wanted}, got {_shown(value)}{nearest(value, choices) if isinstance(value, str) else ''}"


def _expectation(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return str(context["expected"])
        case "string_pattern_mismatch":
            return "a name of letters, digits, '.', '_' and '-'"
        case "tuple_type" | "list_type":
            return "a list"
        case "dict_type" | "model_type" | "mapping_type" | "model_attributes_type":
            return "a table"
        case "string_type":
            return "a string"
        case "too_short":
            return f"at least {context['min_length']} {'entry' if context['min_length'] == 1 else 'entries'}"
        case "int_from_float" | "int_parsing" | "int_type":
            return "a whole number"
    text = re.sub(r"^(input|value) should (be |have )?", "", error["msg"], flags=re.IGNORECASE)
    text = re.sub(r", (unable|got) .*", "", text)
    return re.sub(r"^valid ", "a valid ", text)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."

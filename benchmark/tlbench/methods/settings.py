"""Settings of a method: words on a command line, or values of a card, to values of the declared types."""

from __future__ import annotations

import ast
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, Union, get_args, get_origin

from tlbench.errors import PluginError, UnknownNameError, UsageError, listed, nearest
from tlbench.methods.base import Method

Make = Callable[[str], Method]
"""Makes a method of its text, for settings that are themselves methods."""


class Mismatch(Exception):
    """A value that is not of the declared type; the message is what was expected."""


def declared(method: type[Method]) -> dict[str, Field[Any]]:
    """Return the settings of a method by name, in the order of declaration."""
    return {f.name: f for f in fields(method) if f.init}  # type: ignore[arg-type]  # subclasses are dataclasses


def type_of(method: type[Method], name: str) -> Any:
    """Return the declared type of a setting, or ``Any`` where its annotation means nothing at run time."""
    for owner in method.__mro__:
        annotation = vars(owner).get("__annotations__", {}).get(name)
        if isinstance(annotation, str):
            space = {**vars(sys.modules[owner.__module__]), "Method": Method}
            try:
                # The annotation is part of the plug-in's own source, which has already run.
                return eval(annotation, space)
            except Exception:  # a name imported for the type checker alone
                return Any
        if annotation is not None:
            return annotation
    return Any


def build(
    method: type[Method], shown: str, *, words: Mapping[str, str], values: Mapping[str, Any], make: Make
) -> Method:
    """Return a method with its settings.

    Parameters
    ----------
    method : subclass of Method
    shown : str
        What the user called it, for messages.
    words : mapping of str to str
        Settings as text, from a command line; they win over ``values``.
    values : mapping of str to object
        Settings as values, from a card.
    make : callable
        Makes a nested method of its text.

    Raises
    ------
    UsageError
        If a setting is unknown, of another type, or missing, or if the method itself refuses it.
    UnknownNameError
        If a setting names a method that nobody registered.
    PluginError
        If the method raises anything else while it is made.
    """
    known = declared(method)
    for name in (*values, *words):
        if name not in known:
            raise UsageError(f"{shown}: {_unknown(method, name, known)}")
    chosen: dict[str, Any] = {}
    for name in known:
        if name not in words and name not in values:
            if known[name].default is MISSING and known[name].default_factory is MISSING:
                raise UsageError(f"{shown}: {_missing(method, shown, name)}")
            continue
        given = words[name] if name in words else values[name]
        try:
            convert = from_words if name in words else from_value
            chosen[name] = convert(given, type_of(method, name), make)
        except Mismatch as expectation:
            raise UsageError(f"{shown}: setting '{name}': expected {expectation}, got {given!r}") from None
        except UnknownNameError as problem:
            raise UnknownNameError(f"{shown}: setting '{name}': {problem}") from None
    try:
        return method(**chosen)
    except (ValueError, TypeError) as problem:
        raise UsageError(f"{shown}: {' '.join(str(problem).split())}") from problem
    except Exception as problem:
        raise PluginError(f"{shown}: {type(problem).__name__}: {' '.join(str(problem).split())}") from problem


def check_types(method: Method) -> None:
    """Check the settings of a method that was made in Python, where nobody holds them to their declared types.

    Raises
    ------
    UsageError
        If one is of another type: the first, also within a method that it wraps.
    """
    for name in declared(type(method)):
        value = getattr(method, name)
        try:
            from_value(value, type_of(type(method), name), _no_text)
        except Mismatch as expectation:
            raise UsageError(
                f"{type(method).__name__}: setting '{name}': expected {expectation}, got {value!r}"
            ) from None
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, Method):
                check_types(part)


def _no_text(text: str) -> Method:
    raise Mismatch("a method")


def _unknown(method: type[Method], name: str, known: Mapping[str, object]) -> str:
    if hasattr(Method, name):
        return f"'{name}' is part of the interface, not a setting"
    if hasattr(method, name):
        return f"'{name}' has no type, so it is no setting; write {name}: {type(getattr(method, name)).__name__} = ..."
    if not known:
        return f"unknown setting '{name}'; it has none"
    hint = nearest(name, known)
    return f"unknown setting '{name}'{hint}" + (
        f" Known are {listed(known)}" if hint else f"; known are {listed(known)}"
    )


def wrapping(shown: str) -> str:
    """Return an example of a method that wraps another and has no default for it.

    >>> wrapping("grid-search")
    'grid-search(finetune)'
    """
    # Whatever is searched for, selected or averaged over, fine-tuning has it.
    return f"{shown}(finetune)"


def _missing(method: type[Method], shown: str, name: str) -> str:
    if is_method(type_of(method, name)):
        return f"it wraps another method; write {wrapping(shown)}, or the method of your choice"
    return f"setting '{name}' has no default; give --set {name}=..."


def from_words(text: str, declared_type: Any, make: Make) -> Any:
    """Return the value of a setting that was given as text.

    Raises
    ------
    Mismatch
        If the text is no value of the type.

    Examples
    --------
    >>> from_words("0.1,1e-3", tuple[float, ...], lambda text: Method())
    (0.1, 0.001)
    """
    text = text.strip()
    options = sorted(_members(declared_type), key=_caution)
    for option in options:
        try:
            return _read(text, option, make)
        except Mismatch:
            continue
        except UnknownNameError:
            if option is options[-1]:
                raise
    raise Mismatch(in_words(declared_type))


def _read(text: str, kind: Any, make: Make) -> Any:
    if kind is type(None):
        return _among(text, {"none": None, "null": None}, kind)
    if kind is bool:
        return _among(text, {"true": True, "false": False}, kind)
    if kind is int or kind is float:
        return _number(text, kind)
    if get_origin(kind) is Literal:
        return _among(_unquoted(text), {str(choice): choice for choice in get_args(kind)}, kind)
    if is_method(kind):
        return make(text)
    if _is_list(kind):
        inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
        items = split(inner)
        return _container(kind)(
            [from_words(item, hint, make) for item, hint in zip(items, _items(kind, len(items)), strict=True)]
        )
    if kind is str:
        return _unquoted(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _number(text: str, kind: type[int] | type[float]) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        raise Mismatch(in_words(kind)) from None
    if not math.isfinite(value):
        raise Mismatch("a finite number")
    return value


def _among(text: str, choices: Mapping[str, Any], kind: Any) -> Any:
    lowered = {key.lower(): value for key, value in choices.items()}
    if text.lower() not in lowered:
        raise Mismatch(in_words(kind) + nearest(text, choices).replace("; ", ", "))
    return lowered[text.lower()]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def from_value(value: Any, declared_type: Any, make: Make) -> Any:
    """Return the value of a setting that was given as a value, such as a card's.

    Raises
    ------
    Mismatch
        If it is no value of the type; text stands for a method, and for nothing else but text.
    """
    for option in sorted(_members(declared_type), key=_caution):
        try:
            return _accept(value, option, make)
        except Mismatch:
            continue
    raise Mismatch(in_words(declared_type))


def _accept(value: Any, kind: Any, make: Make) -> Any:
    if is_method(kind) and isinstance(value, str):
        return make(value)
    if get_origin(kind) is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
            return value
    elif _is_list(kind):
        if isinstance(value, list | tuple):
            hints = _items(kind, len(value))
            return _container(kind)([from_value(item, hint, make) for item, hint in zip(value, hints, strict=True)])
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif kind is Any or _is_instance(value, kind):
        return value
    raise Mismatch(in_words(kind))


def _is_instance(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) and kind in (int, float):
        return False  # to Python, true is also a 1; to a reader it is not
    plain = kind if isinstance(kind, type) else get_origin(kind)
    return not isinstance(plain, type) or isinstance(value, plain)


def split(text: str, separator: str = ",") -> list[str]:
    """Return the parts of a text between separators that stand in no brackets and no quotes.

    Raises
    ------
    Mismatch
        If brackets or quotes do not match.

    Examples
    --------
    >>> split("finetune(lr=1,epochs=2), bins=(3,4)")
    ['finetune(lr=1,epochs=2)', 'bins=(3,4)']
    """
    parts, start, open_, quote = [], 0, [], ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([":
            open_.append({"(": ")", "[": "]"}[letter])
        elif letter in ")]":
            if not open_ or open_.pop() != letter:
                raise Mismatch("brackets that match")
        elif letter == separator and not open_:
            parts.append(text[start:place])
            start = place + 1
    if open_ or quote:
        raise Mismatch("brackets and quotes that match")
    parts.append(text[start:])
    stripped = [part.strip() for part in parts]
    return stripped[:-1] if not stripped[-1] else stripped  # (0.1,) has one entry, () has none


def is_method(kind: Any) -> bool:
    """Return whether a declared type is a method, or may be one."""
    return any(isinstance(member, type) and issubclass(member, Method) for member in _members(kind))


def _members(kind: Any) -> tuple[Any, ...]:
    if kind is None:
        return (type(None),)
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for part in get_args(kind) for member in _members(part))
    return (kind,)


def _caution(kind: Any) -> int:
    """Order types so that the one which accepts least is tried first."""
    order = (type(None), bool, int, float)
    if kind in order:
        return order.index(kind)
    if get_origin(kind) is Literal:
        return 4
    if is_method(kind):
        return 6
    return 5 if _is_list(kind) else 7


def _is_list(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (tuple, list, Sequence)


def _container(kind: Any) -> Callable[[Sequence[Any]], Any]:
    return list if (get_origin(kind) or kind) is list else tuple


def _items(kind: Any, count: int) -> list[Any]:
    arguments = get_args(kind)
    if not arguments:
        return [Any] * count
    if (get_origin(kind) is tuple) and Ellipsis not in arguments:
        if len(arguments) != count:
            raise Mismatch(f"a list of {len(arguments)}")
        return list(arguments)
    return [arguments[0]] * count


def in_words(kind: Any) -> str:
    """Return a declared type as a reader would name it.

    >>> in_words(tuple[float, ...])
    'a list of numbers'
    >>> in_words(int | None)
    'a whole number or none'
    >>> in_words(tuple[Literal["mean", "max"], ...])
    "a list of 'mean', 'max'"
    """
    members = [member for member in _members(kind) if member is not type(None)]
    if len(members) != len(_members(kind)):
        return " or ".join([*(in_words(member) for member in members), "none"])
    if len(members) > 1:
        return " or ".join(in_words(member) for member in members)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}
    plural = {int: "whole numbers", float: "numbers", str: "texts"}
    if kind in words:
        return words[kind]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    if is_method(kind):
        return "a method"
    if _is_list(kind):
        arguments = [argument for argument in get_args(kind) if argument is not ...]
        if len(set(arguments)) == 1 and get_origin(arguments[0]) is Literal:
            return "a list of " + ", ".join(repr(choice) for choice in get_args(arguments[0]))
        return f"a list of {plural[arguments[0]]}" if len(set(arguments)) == 1 and arguments[0] in plural else "a list"
    return "a value" if kind is Any else getattr(kind, "__name__", str(kind))

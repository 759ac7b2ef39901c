"""What ``--model`` takes, to a model: a name, a composition, a file, an import path or a card."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any

from tlbench import registry
from tlbench.errors import PluginError, TlbenchError, UnknownNameError, UsageError, nearest
from tlbench.methods.base import Method, method_name
from tlbench.methods.card import read_card
from tlbench.methods.plugin_file import load_file, name_of
from tlbench.methods.settings import (
    Mismatch,
    build,
    check_types,
    declared,
    from_words,
    in_words,
    is_method,
    split,
    type_of,
    wrapping,
)
from tlbench.seeds import digest

ROW_NAME = r"[A-Za-z0-9][A-Za-z0-9._()=,@-]*"
LONGEST_NAME = 120
_FILE = re.compile(r"(?P<path>.+\.py)(?::(?P<name>[A-Za-z_]\w*))?")
_IMPORT = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Model:
    """A method with its settings and a backbone: a row of the board.

    Attributes
    ----------
    name : str
        Row of the board and name of a folder: letters, digits and ``._()=,@-``, no separators.
    method : Method
    backbone : str or None
        None means the suite's.
    source : str
        Text of the user's plug-in; empty for a built-in.
    card : mapping or None
        What the model's card says, where it has one.
    """

    name: str
    method: Method
    backbone: str | None = None
    source: str = ""
    card: Mapping[str, Any] | None = None


@dataclass
class _Reading:
    """What is learnt while one text is read: names and sources of the classes that it mentions."""

    folder: Path | None = None  # of a card: its files lie there or below
    names: dict[type[Method], str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def method(self, text: str) -> Method:
        """Return the method that a text describes."""
        return self.build(*_call(text), values={})

    def build(self, callee: str, words: Mapping[str, str], *, values: Mapping[str, Any]) -> Method:
        """Return the method that a name and its settings describe; the setting ``""`` is the wrapped method."""
        kind = self._class(callee)
        named = dict(words)
        if "" in named:
            first = next(iter(declared(kind)), None)
            if first is None or not is_method(type_of(kind, first)):
                raise UsageError(f"{callee}: expected settings by name, such as lr=0.001, got '{named['']}'")
            if first in named:
                raise UsageError(f"{callee}: setting '{first}' is given twice")
            named[first] = named.pop("")
        return build(kind, callee, words=named, values=values, make=self.method)

    def _class(self, callee: str) -> type[Method]:
        if callee.endswith(".toml"):
            raise UsageError(f"{callee}: a card stands alone; name its method here, or write the composition in a card")
        file = _FILE.fullmatch(callee)
        if file:
            path = self._path(file["path"])
            kind, source = load_file(path, file["name"])
            name = name_of(path, kind)
            return self._learn(kind, f"{name}.py" if name in registry.names("methods") else name, source)
        if ":" in callee:
            return self._imported(callee)
        if "/" in callee:
            raise UsageError(f"{callee}: expected a file that ends in .py or .toml, or a registered method")
        return self._registered(callee)

    def _path(self, text: str) -> Path:
        if self.folder is None:
            return Path(text)
        if Path(text).is_absolute() or ".." in Path(text).parts:
            raise PluginError(f"expected a file beside the card or below it, got '{text}'")
        return self.folder / text

    def _registered(self, callee: str) -> type[Method]:
        try:
            kind = registry.load("methods", callee)
        except UnknownNameError as problem:
            if nearest(callee, registry.names("methods")):
                raise
            if Path(f"{callee}.py").is_file():
                hint = f"a file is given with its suffix: {callee}.py"
                raise UnknownNameError(f"there is no method '{callee}'; {hint}") from None
            hint = "a plug-in of yours is a file (mymodel.py), an import path (package.module:Class) or a card"
            raise UnknownNameError(f"{problem}; {hint}") from None
        return self._learn(_checked(kind, f"method '{callee}'"), callee)

    def _imported(self, callee: str) -> type[Method]:
        found = _IMPORT.fullmatch(callee)
        if not found:
            raise UsageError(f"{callee}: expected package.module:Class, or a file that ends in .py")
        try:
            module = importlib.import_module(found["module"])
        except (Exception, SystemExit) as problem:  # a stranger's code may raise anything while it is imported
            reason = (str(problem).strip().splitlines() or ["no message"])[0]
            raise PluginError(f"{callee}: {type(problem).__name__}: {reason}") from problem
        if not hasattr(module, found["name"]):
            classes = [name for name, value in vars(module).items() if isinstance(value, type)]
            raise PluginError(f"{callee}: the module has no '{found['name']}'{nearest(found['name'], classes)}")
        kind = _checked(getattr(module, found["name"]), callee)
        name = method_name(kind)
        if name in registry.names("methods") and not _is_ours(kind):
            name = f"{kind.__module__}.{name}"  # a stranger's Finetune is not the registered one
        return self._learn(kind, name)

    def _learn(self, kind: type[Method], name: str, source: str | None = None) -> type[Method]:
        self.names[kind] = name
        text = _module_source(kind) if source is None else source
        if text:
            self.sources[kind.__module__] = text
        return kind


def resolve_model(
    text: str,
    *,
    settings: Sequence[str] = (),
    backbone: str | None = None,
    name: str | None = None,
    default_backbone: str | None = None,
) -> Model:
    """Return the model that a text describes.

    Parameters
    ----------
    text : str
        A registered name (``linear-probe``), with settings if need be (``finetune(lr=1e-3)``); a composition
        (``temperature(lp-ft)``); a file (``mymodel.py`` or ``mymodel.py:Class``); an import path
        (``package.module:Class``); or a card (``mymodel.toml``).
    settings : sequence of str
        ``key=value``, typed by the method's fields; ``base.lr=1e-3`` reaches into a wrapped method.
    backbone : str, optional
        Overrides the card's; None leaves the choice to the card, then to the suite.
    name : str, optional
        Row of the board. By default the method's name with all settings that differ from their defaults, in
        this same syntax, and ``@backbone`` where one was chosen: two different rows never share a name.
    default_backbone : str, optional
        The suite's, which stands in no name.

    Raises
    ------
    UnknownNameError
        If nobody registered the name.
    UsageError
        If a setting is unknown or of another type, or the text means nothing.
    PluginError
        If a file, a card or an entry point cannot be loaded.

    Examples
    --------
    >>> resolve_model("linear-probe", name="mine").name
    'mine'
    """
    text = text.strip()
    card, reading = (None, _Reading())
    if text.endswith(".toml"):
        card, reading = read_card(Path(text)), _Reading(folder=Path(text).parent)
    direct, nested = _overrides(settings)
    try:
        callee, words = _call(card.method if card else text)
        twice = next((key for key in direct if key in words), None)
        if twice:
            raise UsageError(f"{callee}: setting '{twice}' is given in the model and by --set")
        method = reading.build(callee, {**words, **direct}, values=card.settings if card else {})
        for path, value in nested.items():
            method = _replaced(method, path.split("."), value, reading)
    except TlbenchError as problem:
        raise (type(problem)(f"{text}: {problem}") if card else problem) from problem.__cause__
    chosen = backbone or (card.backbone if card else None)
    if chosen == default_backbone:
        chosen = None
    plain = _named(method, reading.names)
    automatic = f"{plain}@{short_backbone(chosen)}" if chosen else plain
    if card:
        changed = [f"{key}={_word(_reached(method, key), reading.names)}" for key in (*direct, *nested)]
        automatic = card.name + (f"({','.join(changed)})" if changed else "")
        automatic += f"@{short_backbone(backbone)}" if backbone and backbone != card.backbone and chosen else ""
    return Model(
        name=_row_name(name, automatic, plain),
        method=method,
        backbone=chosen,
        source="\n".join(reading.sources.values()),
        card=card.model_dump(mode="json") if card else None,
    )


def describe_model(model: Model) -> dict[str, Any]:
    """Return what ``tlbench models show`` tells, as JSON values."""
    kind = type(model.method)
    return {
        "name": model.name,
        "method": method_name(kind),
        "summary": _summary(kind),
        "settings": [
            {
                "name": name,
                "type": in_words(type_of(kind, name)),
                "default": None if _default(kind, name) is MISSING else _word(_default(kind, name), {}),
                "value": _word(getattr(model.method, name), {}),
            }
            for name in declared(kind)
        ],
        "backbone": model.backbone,
        "reads": sorted(kind.reads),
        "requires": sorted(kind.requires),
        "version": kind.version,
        "deterministic": kind.deterministic,
        "control": kind.control,
        "built_in": not model.source,
        "card": dict(model.card) if model.card else None,
    }


def example_of(text: str) -> str:
    """Return a text that resolves by itself: a wrapper named alone is put around a method that it takes."""
    if text.endswith((".toml", ")")):
        return text
    kind = _Reading()._class(text.strip())
    first = next(iter(declared(kind)), None)
    wraps = first is not None and is_method(type_of(kind, first)) and _default(kind, first) is MISSING
    if not wraps:
        return text
    return wrapping(text.strip())


def _call(text: str) -> tuple[str, dict[str, str]]:
    """Return a composition's outer name and its settings as text; the wrapped method is the setting ``""``."""
    text = text.strip()
    if not text:
        raise UsageError("expected a model, got an empty name")
    start = _opening(text) if text.endswith(")") else None
    if start is None:
        if not text.endswith(".py") and text.count("(") != text.count(")"):
            raise UsageError(f"{text}: expected parentheses that match")
        return text, {}
    try:
        parts = split(text[start + 1 : -1])
    except Mismatch as expectation:
        raise UsageError(f"{text}: expected {expectation}") from None
    words: dict[str, str] = {}
    for part in parts:
        key, value = _pair(part)
        if key in words:
            raise UsageError(
                f"{text}: " + (f"setting '{key}' is given twice" if key else "it wraps one method, got two")
            )
        if not value:
            raise UsageError(f"{text}: expected a value, got nothing between commas")
        words[key] = value
    return text[:start].strip(), words


def _opening(text: str) -> int | None:
    """Return the place of the parenthesis that the last one closes."""
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[place], 0)
        if depth == 0:
            return place if place else None
    return None


def _pair(part: str) -> tuple[str, str]:
    found = re.match(r"([A-Za-z_][\w.-]*)\s*=\s*(.*)", part, flags=re.DOTALL)
    return (found[1].replace("-", "_"), found[2].strip()) if found else ("", part.strip())


def _overrides(settings: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return ``--set``'s pairs: those of the method itself, and those of methods that it wraps."""
    pairs: dict[str, str] = {}
    for setting in settings:
        key, value = _pair(setting.strip())
        if not key:
            raise UsageError(f"--set: expected key=value, got '{setting}'")
        if key in pairs:
            raise UsageError(f"--set: '{key}' is given twice")
        pairs[key] = value
    direct = {key: value for key, value in pairs.items() if "." not in key}
    return direct, {key: value for key, value in pairs.items() if "." in key}


def _replaced(method: Method, path: Sequence[str], text: str, reading: _Reading) -> Method:
    """Return the method with one setting, of its own or of a wrapped method, read from text."""
    shown, (name, *rest) = reading.names.get(type(method), method_name(type(method))), path
    if name not in declared(type(method)):
        # Raises, with the message that every unknown setting gets.
        return build(type(method), shown, words={name: text}, values={}, make=reading.method)
    if rest:
        inner = getattr(method, name)
        if not isinstance(inner, Method):
            raise UsageError(f"{shown}: setting '{name}' is not a method, so it has no '{'.'.join(rest)}'")
        value: Any = _replaced(inner, rest, text, reading)
    else:
        try:
            value = from_words(text, type_of(type(method), name), reading.method)
        except Mismatch as expectation:
            raise UsageError(f"{shown}: setting '{name}': expected {expectation}, got {text!r}") from None
    try:
        return replace(method, **{name: value})  # type: ignore[type-var]  # subclasses are dataclasses
    except (ValueError, TypeError) as problem:
        raise UsageError(f"{shown}: {' '.join(str(problem).split())}") from problem


def _checked(kind: object, shown: str) -> type[Method]:
    if not (isinstance(kind, type) and issubclass(kind, Method)) or kind is Method:
        raise PluginError(f"{shown}: expected a class that extends tlbench.Method, got {kind!r}")
    return kind


def _is_ours(kind: type[Method]) -> bool:
    return kind.__module__.partition(".")[0] == "tlbench"


def _module_source(kind: type[Method]) -> str:
    """Return the text of a stranger's module; ours have a version instead."""
    if _is_ours(kind):
        return ""
    for code in (sys.modules[kind.__module__], kind):  # in a notebook, only the class has a source
        try:
            return inspect.getsource(code)
        except (OSError, TypeError):
            continue
    raise PluginError(
        f"{kind.__module__}:{kind.__name__}: its source cannot be read, and a fit is known by it; define it in a file"
    )


def check_row_name(name: str, option: str = "--name") -> None:
    """Refuse what cannot be a row of the board and a folder.

    Raises
    ------
    UsageError
        If other letters than those of ``ROW_NAME`` are in it, or it is a registered method's.
    """
    if len(name) > LONGEST_NAME or not re.fullmatch(ROW_NAME, name):
        raise UsageError(
            f"{option}: expected at most {LONGEST_NAME} letters, digits and '._()=,@-', a letter or digit first, "
            f"got {name!r}"
        )
    if name in registry.names("methods"):
        raise UsageError(f"'{name}' is the name of a registered method; give this model another name")


def short_backbone(name: str) -> str:
    """Return a backbone as a part of a row's name, which takes no colon and no separator.

    >>> short_backbone("timm:resnet50.a1_in1k"), short_backbone("torchvision:resnet50")
    ('resnet50.a1_in1k', 'torchvision-resnet50')
    """
    return re.sub(r"[^A-Za-z0-9._@-]", "-", name.removeprefix("timm:"))


def _row_name(given: str | None, automatic: str, plain: str) -> str:
    name = automatic if given is None else given
    if given is None and (len(name) > LONGEST_NAME or not re.fullmatch(ROW_NAME, name)):
        # Text of the settings that no folder can be named by: its hash keeps different rows apart.
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name.partition("(")[0].partition("@")[0]).strip("-")[:60]
        return f"{stem}({digest(name)[:8]})"
    if name != plain:
        check_row_name(name)
    return name


def _named(method: Method, names: Mapping[type[Method], str]) -> str:
    """Return a method in the syntax of compositions: every setting that differs from its default, and no other."""
    kind = type(method)
    words = []
    for position, name in enumerate(declared(kind)):
        value = getattr(method, name)
        wrapped = position == 0 and isinstance(value, Method)
        # What is wrapped is always named: nobody should have to know a wrapper's default.
        if value == _default(kind, name) and not wrapped:
            continue
        word = _word(value, names)
        words.append(word if wrapped else f"{name}={word}")
    return names.get(kind, method_name(kind)) + (f"({','.join(words)})" if words else "")


def _default(kind: type[Method], name: str) -> Any:
    setting = declared(kind)[name]
    return setting.default_factory() if setting.default_factory is not MISSING else setting.default


def _word(value: Any, names: Mapping[type[Method], str]) -> str:
    if isinstance(value, Method):
        return _named(value, names)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).replace("e+", "e")
    if isinstance(value, list | tuple):
        return f"({','.join(_word(item, names) for item in value)}{',' if len(value) == 1 else ''})"
    return str(value)


def _reached(method: Method, path: str) -> Any:
    value: Any = method
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _summary(kind: type[Method]) -> str:
    text = inspect.cleandoc(kind.__doc__ or "")
    # A dataclass without a docstring gets its signature as one.
    return "" if text.startswith(f"{kind.__name__}(") else " ".join(text.partition("\n\n")[0].split())


def model_of(method: Method, *, backbone: str | None = None, name: str | None = None) -> Model:
    """Return the model of a method that a user made in Python.

    Raises
    ------
    UsageError
        If a setting is not of its declared type, or the name cannot be a row's.
    PluginError
        If the source of a method of the user's cannot be read.

    Examples
    --------
    >>> class MyMethod(Method):
    ...     lr: float = 0.01
    >>> model_of(MyMethod(lr=0.1)).name
    'my-method(lr=0.1)'
    """
    check_types(method)
    plain = _named(method, {})
    automatic = f"{plain}@{short_backbone(backbone)}" if backbone else plain
    kinds = [type(part) for part in (method, *_inside(method))]
    sources = dict.fromkeys(_module_source(kind) for kind in kinds if not _is_ours(kind))
    return Model(_row_name(name, automatic, plain), method, backbone, "\n".join(sources))


def _inside(method: Method) -> list[Method]:
    values = [one for value in vars(method).values() for one in (value if isinstance(value, list | tuple) else [value])]
    nested = [value for value in values if isinstance(value, Method)]
    return nested + [part for value in nested for part in _inside(value)]

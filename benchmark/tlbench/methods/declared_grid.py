"""The grid that a suite declares: its rows for ``--grid``, and one point of it for ``--recipe``.

Learning rate and epochs are selected on ID-val within a row; backbone, shots, regime and augmentation make rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, get_args

from tlbench.errors import UsageError, listed, nearest
from tlbench.methods.base import Method
from tlbench.methods.resolve import LONGEST_NAME, Model, check_row_name, model_of, resolve_model, short_backbone
from tlbench.seeds import digest
from tlbench.suites.spec import Recipe, Suite

ROWS = ("regime", "augment")
SELECTED = ("lr", "epochs")
PRECISION = "precision"
"""What a point takes although no grid lists it."""


@dataclass(frozen=True)
class GridRow:
    """One row of the board that a declared grid makes.

    Attributes
    ----------
    model : Model
        With its name on the board; within ``GridSearch`` where something is selected.
    backbone, shots : str
        As ``--backbone`` and ``--shots`` take them.
    """

    model: Model
    backbone: str
    shots: str


@dataclass(frozen=True)
class Point:
    """Some of a grid's values, one a key.

    Attributes
    ----------
    settings : mapping
        Of the method: lr, epochs, regime, augment, precision.
    backbone, shots : str or None
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    shots: str | None = None


def rows_of(
    suite: Suite,
    model: str | Method | Model,
    *,
    settings: Sequence[str] = (),
    backbone: str | None = None,
    shots: Sequence[str] | None = None,
    recipe: str | None = None,
    name: str | None = None,
) -> tuple[GridRow, ...]:
    """Return a model's rows of the suite's grid: backbones, then shots, regimes and augmentations.

    The grid is for the outermost method that has any of its settings, such as the ``finetune`` of
    ``temperature(finetune)``. A setting that this method lacks, or that the model gives itself, is not crossed.

    Parameters
    ----------
    suite : Suite
    model, settings : str, Method or Model, and sequence of str
        As ``tlbench.api.evaluate`` takes them.
    backbone, shots : str, sequence of str, optional
        Instead of the grid's.
    recipe : str, optional
        A point of the grid, of which the rest is crossed.
    name : str, optional
        Stands for the model in the names of the rows.

    Raises
    ------
    UsageError
        If the suite declares no grid, the point is none of it, or the model has none of its settings.
    """
    grid = suite.protocol.grid
    if not any(values for _, values in grid):
        raise UsageError(
            f"--grid: suite '{suite.name}' declares none ([protocol.grid] of its file); for a search of your own, "
            "--model 'grid-search(finetune,lr=(1e-3,1e-4))'"
        )
    if name is not None:
        check_row_name(name)
    point = read_point(suite, recipe) if recipe is not None else Point()
    asked = _asked(model, settings)
    free = [key for key in (*ROWS, *SELECTED) if asked.leaves_open(key)]
    values = {key: (point.settings[key],) if key in point.settings else tuple(getattr(grid, key)) for key in free}
    for key in point.settings:
        if key not in free:
            asked.check(key)
    searched = {key: values[key] for key in SELECTED if values.get(key)}
    narrowed = {key: searched[key] for key in searched if searched[key] != tuple(getattr(grid, key))}
    crossed = {key: values[key] for key in ROWS if values.get(key)}
    fixed = {key: value for key, value in point.settings.items() if key == PRECISION}
    backbones = _chosen("backbone", backbone or asked.made.backbone, point.backbone, grid.backbone)
    amounts = _chosen("shots", shots, point.shots, map(str, grid.shots))
    models = []
    for combination in itertools.product(*crossed.values()):
        row = dict(zip(crossed, combination, strict=True))
        made = asked.having({**row, **fixed})
        shown = _labelled(name, {key: row[key] for key in row if len(crossed[key]) > 1})
        method = _changed(made.method, asked.path, lambda inner: _searching(inner, searched))
        models.append(replace(made, name=shown or f"grid({_labelled(made.name, narrowed)})", method=method))
    rows = []
    for network in dict.fromkeys(backbones or (suite.protocol.backbone,)):
        suffix = "" if network == suite.protocol.backbone else f"@{short_backbone(network)}"
        for amount in dict.fromkeys(amounts or map(str, suite.protocol.shots)):
            for made in models:
                row_model = replace(made, name=_fitting(made.name, suffix), backbone=network)
                rows.append(GridRow(row_model, network, amount))
    return tuple(rows)


def at_point(
    suite: Suite,
    model: str | Method | Model,
    recipe: str,
    *,
    settings: Sequence[str] = (),
    backbone: str | None = None,
    shots: Sequence[str] | None = None,
    name: str | None = None,
) -> tuple[Model, tuple[str, ...] | None]:
    """Return a model at one point of the suite's grid, and the shots to evaluate it with; None for the suite's.

    Parameters are those of ``rows_of``; the model's name follows the rule of ``resolve_model``.

    Raises
    ------
    UsageError
        If the point is none of the grid, the model lacks a setting of it, or something is given beside it, too.
    """
    point = read_point(suite, recipe)
    asked = _asked(model, settings)
    for key in point.settings:
        asked.check(key)
    network = _chosen("backbone", backbone, point.backbone, ())
    amounts = _chosen("shots", shots, point.shots, ())
    made = asked.having(point.settings, network[0] if network else None, name, suite.protocol.backbone)
    return made, amounts or None


def read_point(suite: Suite, text: str) -> Point:
    """Return what ``--recipe key=value,...`` means.

    Raises
    ------
    UsageError
        If a key or a value is none of the suite's grid.
    """
    grid = suite.protocol.grid
    known: dict[str, tuple[Any, ...]] = {key: values for key, values in grid if values}
    known[PRECISION] = get_args(Recipe.model_fields[PRECISION].annotation)
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, sign, word = (piece.strip() for piece in part.partition("="))
        if not (key and sign and word):
            raise UsageError(f"--recipe {text}: expected key=value,..., got '{part.strip()}'")
        if key not in known:
            hint = nearest(key, known) or f"; it has {listed(known)}"
            raise UsageError(
                f"--recipe {key}={word}: the grid of suite '{suite.name}' has no '{key}'{hint}; --set takes any setting"
            )
        if key in found:
            raise UsageError(f"--recipe {text}: '{key}' is given twice")
        found[key] = _listed_value(suite, key, word, known[key])
    outer = {key: str(found.pop(key)) for key in ("backbone", "shots") if key in found}
    return Point(found, **outer)


def _listed_value(suite: Suite, key: str, word: str, values: tuple[Any, ...]) -> Any:
    for value in values:
        if str(value) == word or _is_number(value, word):
            return value
    # A backbone's name may be given without the tag of its weights, a name with underscores as the literature has it.
    loose = [value for value in values if word.replace("_", "-") == str(value).partition(".")[0].replace("_", "-")]
    if len(loose) == 1 and key in ("backbone", "augment"):
        return loose[0]
    hint = nearest(word, map(str, values))
    free = "" if key in ("backbone", "shots") else "; --set takes any value"
    raise UsageError(
        f"--recipe {key}={word}: the grid of suite '{suite.name}' lists {', '.join(map(_word, values))}{hint}{free}"
    )


def _is_number(value: Any, word: str) -> bool:
    try:
        return not isinstance(value, str) and float(word) == value
    except ValueError:
        return False


@dataclass(frozen=True)
class _Asked:
    """A model as it was asked for, and the way to the method within it that a grid is for."""

    model: str | Method | Model
    settings: tuple[str, ...]
    made: Model
    path: tuple[str, ...]

    @property
    def inner(self) -> Method:
        method = self.made.method
        for name in self.path:
            method = getattr(method, name)
        return method

    def leaves_open(self, key: str) -> bool:
        """Return whether the method has a setting, and the model does not give it."""
        own = {setting.name: setting.default for setting in fields(self.inner)}  # type: ignore[arg-type]
        return key in own and (own[key] is MISSING or getattr(self.inner, key) == own[key])

    def check(self, key: str) -> None:
        """Refuse a setting of a point that the method lacks or that the model gives itself."""
        own = [setting.name for setting in fields(self.inner)]  # type: ignore[arg-type]
        if key not in own:
            has = f"it has {listed(own)}" if own else "it has none"
            raise UsageError(f"--recipe {key}=...: {self.made.name} has no setting '{key}'; {has}")
        if not self.leaves_open(key):
            raise UsageError(f"--recipe {key}=...: {self.made.name} gives '{key}' itself; leave one of the two out")

    def having(
        self,
        changes: Mapping[str, Any],
        backbone: str | None = None,
        name: str | None = None,
        default_backbone: str | None = None,
    ) -> Model:
        """Return the model with further settings of the inner method, on a backbone and under a name."""
        if isinstance(self.model, str):
            more = [f"{'.'.join((*self.path, key))}={_word(value)}" for key, value in changes.items()]
            return resolve_model(
                self.model,
                settings=(*self.settings, *more),
                backbone=backbone,
                name=name,
                default_backbone=default_backbone,
            )
        method = _changed(self.made.method, self.path, lambda inner: _with(inner, changes))
        if isinstance(self.model, Model):
            own = name or _labelled(self.model.name, changes)
            return replace(self.model, name=own, method=method, backbone=backbone or self.model.backbone)
        return model_of(method, backbone=None if backbone == default_backbone else backbone, name=name)


def _asked(model: str | Method | Model, settings: Sequence[str]) -> _Asked:
    if isinstance(model, str):
        made = resolve_model(model, settings=settings)
    elif settings:
        raise UsageError("settings: expected none beside a method that is made already; give them to its class")
    else:
        made = model if isinstance(model, Model) else model_of(model)
    path = _path(made.method)
    if path is None:
        raise UsageError(f"{made.name} has none of the settings that a grid can list: {listed((*SELECTED, *ROWS))}")
    return _Asked(model, tuple(settings), made, path)


def _path(method: Method) -> tuple[str, ...] | None:
    """Return the names of the settings that lead to the outermost method which has a setting of a grid."""
    own = [setting.name for setting in fields(method)]  # type: ignore[arg-type]
    if set(own) & {*SELECTED, *ROWS}:
        return ()
    for name in own:
        value = getattr(method, name)
        below = _path(value) if isinstance(value, Method) else None
        if below is not None:
            return (name, *below)
    return None


def _changed(method: Method, path: Sequence[str], change: Callable[[Method], Method]) -> Method:
    if not path:
        return change(method)
    return _with(method, {path[0]: _changed(getattr(method, path[0]), path[1:], change)})


def _with(method: Method, changes: Mapping[str, Any]) -> Method:
    try:
        return replace(method, **changes)  # type: ignore[type-var]  # subclasses are dataclasses
    except (ValueError, TypeError) as problem:
        raise UsageError(f"{type(method).__name__}: {' '.join(str(problem).split())}") from problem


def _searching(method: Method, searched: Mapping[str, tuple[Any, ...]]) -> Method:
    # Here, for it brings PyTorch.
    from tlbench.methods.grid_search import GridSearch

    if not searched:
        return method
    try:
        return GridSearch(method, **searched)
    except ValueError as problem:
        raise UsageError(f"--grid: {problem}") from problem


def _chosen(key: str, given: str | Sequence[str] | None, at: str | None, listed_: Any) -> tuple[str, ...]:
    """Return what the command gives of an axis, or the point, or the grid."""
    if given and at:
        raise UsageError(f"--recipe {key}={at}: the {key} is given beside it, too; leave one of the two out")
    if given:
        return (given,) if isinstance(given, str) else tuple(given)
    return (at,) if at else tuple(listed_)


def _labelled(name: str | None, settings: Mapping[str, Any]) -> str:
    """Return a name with settings in it, in the syntax of compositions; nothing where there is no name."""
    if name is None or not settings:
        return name or ""
    words = ",".join(f"{key}={_word(value)}" for key, value in settings.items())
    return f"{name[:-1]},{words})" if name.endswith(")") else f"{name}({words})"


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return _word(value[0]) if len(value) == 1 else f"({','.join(map(_word, value))})"
    return repr(value).replace("e+", "e") if isinstance(value, float) else str(value)


def _fitting(name: str, suffix: str) -> str:
    whole = name + suffix
    if len(whole) > LONGEST_NAME:
        whole = f"{name.partition('(')[0]}({digest(name)[:8]}){suffix}"
    check_row_name(whole)
    return whole

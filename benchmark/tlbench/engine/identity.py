"""Who a fit says that it is, held against the methods that are registered here.

A board ranks by what a row says of itself: its protocol, whether it draws, whether it is a control. For a registered
method all of this, and the ids of its fits, follows from its name, its settings and the data; nothing needs to be
believed. A user's plug-in is never run to find out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tlbench import registry
from tlbench.engine.plan import fit_id_of, method_identity, protocol_of
from tlbench.errors import TlbenchError, UsageError
from tlbench.methods.base import TARGET_TAGS, Method, method_name
from tlbench.methods.settings import build
from tlbench.models.zoo import load_backbone
from tlbench.seeds import digest

if TYPE_CHECKING:
    from tlbench.records.manifest import Manifest
    from tlbench.suites.spec import Suite

Splits = Mapping[tuple[str, str, str], "Manifest"]
"""Manifests by task, domain and part, as a suite's lock holds them."""


def identity_problems(fits: Iterable[Mapping[str, Any]], suite: Suite, splits: Splits) -> tuple[list[str], list[str]]:
    """Return what fits say of themselves that is not so, and what only their author can know.

    Parameters
    ----------
    fits : iterable of mapping
        Rows of the fits table.
    suite : Suite
    splits : mapping
        Of the suite's lock; empty where it has none, ids are then not computed.

    Returns
    -------
    tuple of list of str
        Problems, and warnings; every one once.
    """
    problems: dict[str, None] = {}
    warnings: dict[str, None] = {}
    known: dict[tuple[str, str], Method] = {}
    sizes: dict[int, None] = {}
    for row in fits:
        if "test-time" in row["protocol"].split("+") and row["status"] == "ok":
            sizes[row["batch_size"]] = None
        try:
            problems |= dict.fromkeys(_contradictions(row))
        except (ValueError, TypeError, RecursionError):
            problems["data_read: expected a JSON list of data tags"] = None
        if row["plugin_source"] or row["method"] not in registry.names("methods"):
            warnings["protocol, determinism and control of what is not registered here are its author's word"] = None
            continue
        key = (row["method"], row["settings"])
        try:
            if key not in known:
                known[key] = _rebuilt(row["method"], json.loads(row["settings"]))
            problems |= dict.fromkeys(_differences(row, known[key], suite, splits))
        except (TlbenchError, ValueError, TypeError, AttributeError, RecursionError) as error:
            problems[f"{row['method']}: its settings make no such method ({' '.join(str(error).split())[:200]})"] = None
    if len(sizes) > 1:
        told = ", ".join(map(str, sorted(sizes)))
        problems[f"batch_size: expected one for all fits of a test-time method, got {told}"] = None
    return list(problems), list(warnings)


def unchecked_identity(fits: Iterable[Mapping[str, Any]], suite: Suite, splits: Splits) -> list[str]:
    """Return what `identity_problems` cannot hold against anything here: weights and ids of fits, each with the reason.

    Parameters
    ----------
    fits, suite, splits
        As for `identity_problems`.
    """
    ours = registry.names("backbones")
    strange: dict[str, None] = {}
    ids: Counter[str] = Counter()
    for row in fits:
        if row["backbone"] not in (*ours, "none"):
            strange[f"the weights of backbone {row['backbone']!r}, which is not registered here"] = None
        ids[_why_no_id(row, suite, splits)] += 1
    told = [f"the ids of {count} fits, {why}" for why, count in ids.items() if why]
    return [*strange, *told]


def _why_no_id(row: Mapping[str, Any], suite: Suite, splits: Splits) -> str:
    if row["plugin_source"] or row["method"] not in registry.names("methods"):
        return f"whose method {row['method']!r} is not registered here"
    backbone = suite.protocol.backbone if row["backbone"] == "none" else row["backbone"]
    if backbone not in registry.names("backbones"):
        return f"whose backbone {backbone!r} is not registered here"
    if row["shots"] != "full":
        return "which were given few images a class"
    return "" if all(part in splits for part in _parts_of(row)) else "whose splits are not in the suite's lock"


def _parts_of(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the splits that the id of a fit hashes."""
    wanted = [(row["source"], "train"), (row["source"], "val")]
    if row["fit_target"]:
        wanted += [(row["fit_target"], "train"), (row["fit_target"], "test")]
    return [(row["task"], domain, part) for domain, part in wanted]


def _contradictions(row: Mapping[str, Any]) -> list[str]:
    """Return where a row contradicts itself, whoever wrote the method."""
    reads_target = bool(set(json.loads(row["data_read"])) & TARGET_TAGS)
    if row["protocol"] == "source-only" and (reads_target or row["fit_target"]):
        return ["protocol: says 'source-only', and its fits have read the target"]
    return []


def _differences(row: Mapping[str, Any], method: Method, suite: Suite, splits: Splits) -> list[str]:
    """Return what a row says otherwise than its registered method."""
    backbone = row["backbone"] if method.pretrained else suite.protocol.backbone
    # Only ours: another name may be that of a file, and it is a stranger's.
    weights = load_backbone(backbone).weights_hash if backbone in registry.names("backbones") else ""
    expected: dict[str, Any] = {
        "method": method_name(type(method)),
        "settings_hash": digest(method_identity(method, ""))[:16],
        "protocol": protocol_of(method),
        "deterministic": method.deterministic,
        "control": method.control,
    }
    if not method.pretrained:
        expected |= {"backbone": "none", "weights_hash": "none"}
    elif weights:
        expected["weights_hash"] = weights
    absent = method.pretrained and row["backbone"] == "none"
    problems = [f"backbone: expected a pretrained network under {expected['method']}, got 'none'"] if absent else []
    problems += [
        f"{name}: expected {value!r} of {expected['method']}, got {row[name]!r}"
        for name, value in expected.items()
        if row[name] != value
    ]
    if bool(method.reads & TARGET_TAGS) != bool(row["fit_target"]):
        what = "one fit a target" if method.reads & TARGET_TAGS else "one fit for all targets"
        problems.append(f"fit_target: expected {what} of {expected['method']}")
    fit_id = _fit_id(row, method, suite, splits, weights)
    if fit_id and fit_id != row["fit_id"]:
        problems.append(
            f"fit_id: expected {fit_id[:12]} on {row['source']}, seed {row['seed']}, got {row['fit_id'][:12]}"
        )
    return problems


def _fit_id(row: Mapping[str, Any], method: Method, suite: Suite, splits: Splits, weights: str) -> str:
    """Return the id of a fit on one whole locked source, or an empty string where it cannot be known here."""
    found = [splits.get(part) for part in _parts_of(row)]
    if row["shots"] != "full" or not weights or any(one is None for one in found):
        return ""
    train, val, *target = [one.hash for one in found if one is not None]
    return fit_id_of(
        suite,
        method,
        "",
        weights,
        train=train,
        val=val,
        shots="full",
        seed=int(row["seed"]),
        target=target,
        hierarchy=suite.tasks[row["task"]].hierarchy,
    )


def _rebuilt(name: str, settings: Mapping[str, Any]) -> Method:
    """Return a registered method from its settings as a record keeps them."""
    kind = registry.load("methods", name)
    values = {key: _value(value) for key, value in settings.items()}
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise UsageError(f"'{name}' is registered as something else than a method")
    return build(kind, name, words={}, values=values, make=_no_text)


def _value(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"method", "settings"}:
        return _rebuilt(value["method"], value["settings"])
    if isinstance(value, Mapping):
        return {key: _value(inner) for key, inner in value.items()}
    return tuple(_value(inner) for inner in value) if isinstance(value, list) else value


def _no_text(text: str) -> Method:
    raise UsageError(f"expected a method, got {text!r}")

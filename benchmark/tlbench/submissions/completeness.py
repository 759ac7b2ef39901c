"""Whether a model's work is one version of it, and whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from tlbench.errors import StoreError
from tlbench.records.store import ModelStore
from tlbench.suites.spec import Suite

_SHORT: Final = 12


def incompleteness(records: pd.DataFrame, suite: Suite) -> str:
    """Return what a model's records lack of the suite, in words; empty where nothing is missing.

    Parameters
    ----------
    records : DataFrame
        Of one model.
    suite : Suite

    Returns
    -------
    str
        What does not apply, with its reason, is there; what failed is not.
    """
    if not len(records):
        return "there are no records"
    done = records[records["status"].isin(["ok", "not_applicable"])]
    columns = ["shots", "variant", "seed", "task", "source", "fit_target", "role", "target", "condition"]
    present = set(done[columns].fillna("").itertuples(index=False, name=None))
    failed = records[records["status"] == "failed"]
    deterministic, reads_target = bool(records["deterministic"].iloc[0]), bool(records["fit_target"].notna().any())
    # A deterministic method is fitted with one seed, whichever it was.
    seeds = sorted({int(seed) for seed in records["seed"]})[:1] if deterministic else suite.protocol.seeds
    expected = []
    # A failed fit stands under the name "main"; the variants are those that were measured.
    variants = {str(name): bool(ranked) for name, ranked in zip(done["variant"], done["headline"], strict=True)}
    cells = list(_cells(suite, reads_target))
    for shots in map(str, suite.protocol.shots):
        for variant, headline in sorted(variants.items()) or [("main", True)]:
            for seed in seeds:
                # Of a variant that is not ranked, clean sets are enough.
                asked = [cell for cell in cells if headline or cell[-1] == "clean"]
                expected += [(shots, variant, seed, *cell) for cell in asked]
    missing = [cell for cell in expected if cell not in present]
    if not missing:
        return ""
    shots, _, seed, task, source, _, role, target, condition = missing[0]
    place = f"{task}, {source} to {target}, {role}, {condition}, seed {seed}" + (
        f", {shots} images a class" if shots != "full" else ""
    )
    why = f" ({failed.iloc[0]['reason']})" if len(failed) else ""
    return f"{len(missing)} of {len(expected)} measurements are missing or failed, first {place}{why}"


def _cells(suite: Suite, reads_target: bool) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield task, source, fit target, role, target and condition of every measurement of one seed."""
    for task in suite.tasks:
        for sources in suite.sources_of(task):
            source = "+".join(sources)
            targets = [pair.target for pair in suite.pairs_of(task) if pair.sources == sources]
            for own in [[target] for target in targets] if reads_target else [targets]:
                sets = [("id-val", source), ("id-test", source), *(("ood-test", target) for target in own)]
                for role, target in sets:
                    for condition in suite.conditions:
                        if role in condition.roles:
                            yield task, source, own[0] if reads_target else "", role, target, condition.name


def check_version(models: ModelStore, frame: pd.DataFrame, suite: Suite) -> None:
    """Raise ``StoreError`` unless a model's records are of this suite, and of one version of the model.

    Parameters
    ----------
    models : ModelStore
        Whose folder a message names.
    frame : DataFrame
        Its records.
    suite : Suite
    """
    strange = sorted(set(frame["suite_hash"]) - {suite.hash})
    if strange:
        raise StoreError(
            f"{models.folder}: expected records of suite '{suite.name}' with hash {suite.hash[:_SHORT]}, "
            f"got {strange[0][:_SHORT]}"
        )
    for column, words in (
        ("settings_hash", "settings or source"),
        ("weights_hash", "weights of the backbone"),
        ("precision", "precisions"),
    ):
        if frame[column].nunique() > 1:
            raise StoreError(
                f"{models.folder}: holds work with {frame[column].nunique()} different {words} under one name; "
                "evaluate in a fresh --run-dir, or under another --name"
            )
    fits = frame.drop_duplicates("fit_id")
    twice = fits.duplicated(["task", "source", "fit_target", "shots", "seed"])
    if twice.any():
        raise StoreError(
            f"{models.folder}: holds two versions of {twice.sum()} fits; evaluate in a fresh --run-dir, or under "
            "another --name"
        )

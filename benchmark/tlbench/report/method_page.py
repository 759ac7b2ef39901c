"""The page of method: how a number is made, what each measure means, how rows are compared, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tlbench.metrics.catalogue import METRICS, Family
from tlbench.report.content import LEVELS, Content, task_path
from tlbench.report.page import metric_words, render
from tlbench.suites.spec import Attack, Clean, Corruption, Suite, Transform

PROTOCOLS: Final[Mapping[str, str]] = {
    "source-only": "labelled images of the source domain, and the pretrained network",
    "unlabelled-target": "besides, images of the target domain without their labels, while fitting",
    "test-time": "besides, the test images themselves, without labels, while predicting",
    "extra-models": "besides, other networks than the backbone",
    "text": "besides, the names or descriptions of the classes",
}
"""What the methods of a protocol are given."""

_FAMILY: Final[Mapping[Family, str]] = {
    "accuracy": "Accuracy",
    "calibration": "Calibration",
    "robustness": "Adversarial robustness",
    "corruption": "Corruption",
    "invariance": "Invariance",
    "cost": "Cost",
}
_UNIT: Final[Mapping[str, str]] = {"fraction": "%", "score": "", "epsilon": "of the pixel range", "count": ""}


def method_page(content: Content) -> str:
    """Return the page of method of a suite."""
    suite = content.suite
    used = [str(name) for name in dict.fromkeys(content.board.frame["protocol"])]
    return render(
        "method.html",
        path="method.html",
        suite=suite,
        analysed=content.analysis is not None,
        board=content.board,
        opening=metric_words(content.board.metric, content.board.role),
        families=[(word, _measures(family)) for family, word in _FAMILY.items()],
        levels=LEVELS,
        protocols=[(name, PROTOCOLS.get(name, ""), name in used) for name in dict.fromkeys([*PROTOCOLS, *used])],
        conditions=[condition_row(condition) for condition in suite.conditions],
        facts=_facts(suite),
        tasks=[_task(suite, task) for task in suite.tasks],
        intervals=(
            "measurement_low" in content.board.frame and bool(content.board.frame["measurement_low"].notna().any())
        ),
        robustness="effective_robustness" in content.board.frame,
    )


def condition_row(condition: Clean | Transform | Corruption | Attack) -> dict[str, str]:
    """Return a condition in words: its kind, name, strengths, the roles it is measured on, and images of each."""
    match condition:
        case Attack():
            strength = f"{condition.norm}, epsilon {_epsilons(condition)}; {condition.steps} steps"
            strength += f", {condition.restarts} restart{'s' if condition.restarts > 1 else ''}, {condition.mode}"
        case Corruption():
            strength = "severity " + ", ".join(str(severity) for severity in condition.severities)
            strength += f"; table for {condition.table} px" if condition.table else ""
        case Transform():
            unit = {"shift": " px", "rotation": "°", "scale": ""}[condition.name]
            strength = ", ".join(f"{step:g}{unit}" for step in condition.steps)
        case _:
            strength = "as they are"
    return {
        "kind": condition.kind,
        "name": condition.name,
        "strength": strength,
        "roles": ", ".join(condition.roles),
        "images": f"the first {condition.max_images:,}" if condition.max_images else "all",
        "addition": "added to the published protocol" if condition.addition else "",
    }


def _epsilons(attack: Attack) -> str:
    values = ", ".join(f"{epsilon:g}" for epsilon in sorted(attack.epsilons))
    return values if attack.denominator == 1 else f"{{{values}}}/{attack.denominator:g}"


def _measures(family: Family) -> list[dict[str, Any]]:
    return [
        {
            "name": metric_words(name),
            "description": info.description,
            "better": "higher" if info.higher_is_better else "lower",
            "ranks": info.proper,
            "unit": _UNIT.get(info.unit, info.unit),
        }
        for name, info in METRICS.items()
        if info.family == family
    ]


def _facts(suite: Suite) -> list[tuple[str, str]]:
    protocol = suite.protocol
    shots = ", ".join("all training images" if k == "full" else f"{k} a class" for k in protocol.shots)
    bins = f"{suite.metrics.ece_bins} bins of equal width, closed on the {suite.metrics.ece_closed}"
    return [
        ("Images", f"{protocol.image_size} × {protocol.image_size} pixels, {_RESIZE[protocol.resize]}"),
        ("Training images", shots),
        ("Seeds", ", ".join(map(str, protocol.seeds))),
        ("Split", _SPLIT.get(protocol.split.rule, protocol.split.rule)),
        ("Default backbone", protocol.backbone),
        ("Selection", "highest ID-val accuracy, then lowest ID-val NLL, then the order of the grid"),
        ("Calibration error", bins),
    ]


_RESIZE: Final = {"squash": "squashed to a square", "center-crop": "cropped from the centre"}
_SPLIT: Final = {
    "stratified": "shares of every class, seeded; a run's seed never moves an image",
    "assaying": "the 2022 study's rule, bit for bit",
    "assaying-given": "the data set's own parts, in the study's order",
    "given": "the data set's own parts",
    "listed": "parts listed by name",
}


def _task(suite: Suite, name: str) -> dict[str, Any]:
    spec, pairs = suite.tasks[name], suite.pairs_of(name)
    shifts = sorted({pair.shift for pair in pairs if pair.shift})
    clustered = [domain for domain, of in spec.domains.items() if of.cluster or spec.cluster]
    return {
        "name": name,
        "title": spec.title or name,
        "path": task_path(name),
        "domains": ", ".join(spec.domains),
        "pairs": len(pairs),
        "classes": len(spec.classes) if spec.classes else None,
        "shifts": ", ".join(shifts),
        "clusters": ", ".join(clustered),
        "licence": " ".join(spec.licence.split()),
        "citation": " ".join(spec.citation.split()),
    }

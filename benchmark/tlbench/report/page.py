"""A template and its values to a page: one file that carries its own style and script, and runs no other."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tlbench import __version__
from tlbench.leaderboard.text import plain, plain_note
from tlbench.metrics.catalogue import METRICS
from tlbench.report.comparisons import p_words
from tlbench.report.content import model_path

_ABSENT: Final = "–"


def render(template: str, *, path: str, scripts: Sequence[str] = (), styles: Sequence[str] = (), **values: Any) -> str:
    """Return a page.

    Every value is escaped unless it is ``Markup``. The page's policy lets it run the scripts named here and no others,
    whatever a name on it tries.

    Parameters
    ----------
    template : str
        A file of ``templates/``; it extends ``base.html``.
    path : str
        Where in the report the page will lie, such as ``"models/x.html"``; ``root`` in the template leads back up.
    scripts, styles : sequence of str
        Files of ``templates/`` that the page carries, besides those of every page.
    **values
        What the template asks for; one that is missing is an error.

    Returns
    -------
    str
        HTML.
    """
    carried = ("theme.js", *scripts)
    sources = " ".join(f"'sha256-{_fingerprint(_source(name))}'" for name in carried)
    policy = (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src 'self' file: data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            path=path,
            root="../" * path.count("/"),
            policy=policy,
            script_sources=[Markup(_source(name)) for name in scripts],
            theme_source=Markup(_source("theme.js")),
            style_source=Markup("\n".join(_source(name) for name in ("style.css", *styles))),
            tlbench_version=__version__,
            **values,
        )
    )


def script_json(value: Any) -> Markup:
    """Return a value as JSON that may stand in a script element of a page.

    What would end the element, open another or end a line of old JavaScript is written as an escape; numbers that JSON
    lacks are null.

    >>> script_json({"name": "</script>"})
    Markup('{"name":"\\\\u003c/script\\\\u003e"}')
    """
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def number(value: Any, unit: str = "fraction") -> str:
    """Return a number as a page shows it: a fraction in per cent, an epsilon in 255ths.

    >>> number(0.4551), number(float("nan")), number(1.66, "nats"), number(4 / 255, "epsilon")
    ('45.5', '–', '1.660', '4.00/255')
    """
    if value is None or value != value:
        return _ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit == "fraction":
        text = f"{100 * value:.1f}"
    elif unit == "epsilon":
        text = f"{value * 255:.2f}/255"
    elif unit in ("seconds", "count"):
        text = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    elif unit == "bytes":
        text = f"{value / 1e6:,.1f} MB"
    else:
        text = f"{value:.3f}"
    if text.startswith("-"):
        # A hyphen is shorter than a digit is wide, and a loss of 0.04 is no loss.
        return "−" + text[1:] if any(letter in "123456789" for letter in text) else text[1:]
    return text


def breakable(name: str) -> Markup:
    """Return a name for a narrow column: a line may end after a bracket or a stroke rather than within a word.

    >>> breakable("adabn(finetune)/<b>")
    Markup('adabn(<wbr>finetune)/<wbr>&lt;b&gt;')
    """
    return Markup("<wbr>").join(re.split(r"(?<=[(/_])(?=.)", name))


def metric_words(metric: str, role: str | None = None) -> str:
    """Return a measure as a reader says it.

    >>> metric_words("nll", "ood-test"), metric_words("mean_robust_accuracy", "id-test"), metric_words("accuracy_gap")
    ('OOD NLL', 'ID mean robust accuracy', 'accuracy gap')
    """
    words = " ".join({"nll": "NLL", "ece": "ECE", "f1": "F1", "brier": "Brier"}.get(w, w) for w in metric.split("_"))
    place = {"ood-test": "OOD ", "id-test": "ID ", "id-val": "ID-val "}.get(role or "", "")
    return f"{place}{words}"


def role_words(role: str | None) -> str:
    """Return where something is measured, in words."""
    return {"ood-test": "OOD-test images", "id-test": "ID-test images", "id-val": "ID-val images"}.get(
        role or "", "ID-test and OOD-test images"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tlbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        plain=plain,
        note=plain_note,
        breakable=breakable,
        number=number,
        p=p_words,
        metric_words=metric_words,
        role_words=role_words,
        script_json=script_json,
    )
    environment.globals.update(METRICS=METRICS, model_path=model_path)
    return environment


@cache
def _source(name: str) -> str:
    return (files("tlbench.report") / "templates" / name).read_text(encoding="utf-8")


def _fingerprint(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

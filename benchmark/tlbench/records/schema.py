"""The written schema of every Parquet file: fits, predictions, class bins, records, manifests.

``docs/schema.md`` is generated from the descriptions here; a test fails when it is stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1


LATER: Mapping[str, Any] = {"candidates": "[]", "data_notes": "", "precision": "float32"}
"""Columns that came after results were published, and what a file without them means."""


def _schema(columns: Iterable[tuple[str, pa.DataType, bool, str]]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, nullable, metadata={"description": text}) for name, kind, nullable, text in columns],
        metadata={"tlbench_schema": str(SCHEMA_VERSION)},
    )


_text, _short, _float, _exact = pa.string(), pa.int32(), pa.float32(), pa.float64()

_FIT_KEY: tuple[tuple[str, pa.DataType, bool, str], ...] = (
    ("suite", _text, False, "suite name"),
    ("suite_version", _short, False, "suite version"),
    ("suite_hash", _text, False, "content hash of the suite; no board mixes hashes"),
    ("task", _text, False, "task: one label space"),
    ("source", _text, False, "training domain; several are joined by +"),
    ("fit_target", _text, True, "target domain, only where the method read it"),
    ("shots", _text, False, "'full' or training images a class"),
    ("seed", pa.int64(), False, "seed of the fit"),
    ("model", _text, False, "row of the board"),
    ("method", _text, False, "transfer method"),
    ("settings", _text, False, "settings of the method, canonical JSON"),
    ("settings_hash", _text, False, "hash of the settings, and of a user plug-in's source"),
    ("backbone", _text, False, "pretrained network, 'none' where there is none"),
    ("weights_hash", _text, False, "hash of the backbone's weights"),
    ("protocol", _text, False, "what the method was given: source-only, unlabelled-target, test-time, ..."),
    ("deterministic", pa.bool_(), False, "one fit stands for every seed"),
    ("control", pa.bool_(), False, "a sanity control: reference line, never ranked"),
    ("fit_id", _text, False, "hash of what defines the fit"),
)

FITS = _schema(
    (
        *_FIT_KEY,
        ("status", _text, False, "ok, failed or not_applicable"),
        ("reason", _text, False, "why there is no fit; empty for ok"),
        ("tlbench_version", _text, False, "version of tlbench"),
        ("git_state", _text, False, "commit of the working folder, with '+changes' where it was not clean; or ''"),
        ("plugin_source", _text, False, "source text of a user's plug-in; '' for a built-in"),
        ("packages", _text, False, "versions of the packages that numbers depend on, JSON"),
        ("device", _text, False, "cpu, or the GPU's name"),
        ("precision", _text, False, "precision of the measured forward pass"),
        ("threads", _short, False, "CPU threads of the fit"),
        ("batch_size", _short, False, "images a forward pass when measuring"),
        ("started", _text, False, "time of start, ISO 8601, UTC"),
        ("seconds", _exact, False, "duration of the fit"),
        ("peak_memory_bytes", pa.int64(), False, "largest resident size (CPU) or allocation (GPU) while fitting"),
        ("parameters_trained", pa.int64(), False, "parameters that received a gradient"),
        ("parameters_stored", pa.int64(), False, "parameters of the ranked predictor"),
        ("images_seen", pa.int64(), False, "training images passed forward, all epochs and sub-fits together"),
        ("saved_bytes", pa.int64(), False, "most bytes saved for one backward pass while training"),
        ("forward_passes", _exact, False, "forward passes through a backbone per predicted image"),
        ("data_read", _text, False, "data tags that were read, JSON list"),
        ("source_hash", _text, False, "manifest hash of the training split"),
        ("variants", _text, False, "names of the fit's variants, JSON list, the ranked one first"),
        ("temperatures", _text, False, "temperature fitted on ID-val, by variant, JSON"),
        ("probes", _text, False, "results of the differentiability and batch-independence probes, by variant, JSON"),
        (
            "candidates",
            _text,
            False,
            "what a search tried, JSON list: settings, ID-val accuracy and NLL, cost, which one was selected",
        ),
        (
            "data_notes",
            _text,
            False,
            "what is known of the data beyond their hash: a known variant, members by row number; or ''",
        ),
    )
)

RECORDS = _schema(
    (
        *_FIT_KEY,
        ("variant", _text, False, "which predictor of the fit"),
        ("headline", pa.bool_(), False, "the variant ranked under the model's plain name"),
        ("target", _text, False, "measured domain; equals the source for id-val and id-test"),
        ("role", _text, False, "id-val, id-test or ood-test"),
        ("split_hash", _text, False, "manifest hash of the measured split"),
        ("measurement_id", _text, False, "hash of fit, variant, split, condition and versions"),
        ("condition", _text, False, "clean, or the name of a transform, corruption or attack"),
        ("severity", _exact, True, "1 to 5 for a corruption; the step of a transform"),
        ("norm", _text, True, "linf or l2 for an attack"),
        ("epsilon", _exact, True, "radius of an attack, in units of the [0, 1] pixel range"),
        ("metric", _text, False, "metric"),
        ("metric_version", _short, False, "version of the metric's definition"),
        ("value", _exact, True, "the number; null unless status is ok"),
        (
            "standard_error",
            _exact,
            True,
            "standard error, clustered where the data name clusters; null where none exists",
        ),
        ("n", pa.int64(), False, "images that the number rests on"),
        ("status", _text, False, "ok, failed, not_applicable or not_run"),
        ("reason", _text, False, "why there is no value; empty for ok"),
        ("precision", _text, False, "of the forward passes on all but attacked images; no ranking mixes two"),
    )
)

PREDICTIONS = _schema(
    (
        ("measurement_id", _text, False, "the measurement that this row belongs to"),
        ("severity", _float, True, "severity or step of the setting; null for clean and attacked images"),
        ("id", _short, False, "place of the image in its split's manifest"),
        ("label", _short, False, "true class"),
        ("predicted", _short, True, "class of the largest output, the first one where several are equal"),
        ("rank", _short, True, "classes before the true one in argmax's own order; 0 if and only if correct"),
        ("confidence", _float, True, "probability of the predicted class; null for outputs without probabilities"),
        ("log_likelihood", _float, True, "log-probability of the true class, natural logarithm"),
        ("brier", _float, True, "sum over classes of the squared error of the probabilities; clean sets only"),
        ("scale_derivative", _float, True, "derivative of the loss by a scale on the logits, at 1; clean sets only"),
        ("confidence_scaled", _float, True, "confidence after temperature scaling on ID-val; clean sets only"),
        ("log_likelihood_scaled", _float, True, "log-likelihood after temperature scaling; clean sets only"),
        ("brier_scaled", _float, True, "Brier score after temperature scaling; clean sets only"),
        ("correct_clean", pa.bool_(), True, "attacks: whether the image was right before the attack"),
        (
            "breaking_epsilon",
            _exact,
            True,
            "attacks: smallest epsilon that broke it; 0 if wrong when clean or if it could not begin; inf if none",
        ),
    )
)

CLASS_BINS = _schema(
    (
        ("measurement_id", _text, False, "the measurement"),
        ("scaled", pa.bool_(), False, "after temperature scaling on ID-val"),
        ("class", _short, False, "class"),
        ("bin", _short, False, "confidence bin of that class's probability; empty bins are left out"),
        ("n", pa.int64(), False, "images in the bin"),
        ("probability", _exact, False, "sum of the class's probability over them"),
        ("positives", pa.int64(), False, "how many of them are of this class"),
    )
)

AUDITS = _schema(
    (
        ("measurement_id", _text, False, "the measurement of an attack"),
        ("id", _short, False, "place of the image in its split's manifest"),
        ("epsilon", _exact, False, "radius at which it was not attacked, but for the audit"),
        ("implied", pa.bool_(), False, "whether it counts as surviving: what other epsilons implied"),
        ("found", pa.bool_(), False, "whether it survived the audit; predictions keep what was implied"),
    )
)

OUTCOMES = _schema(
    (
        ("measurement_id", _text, False, "the clean measurement that these outcomes belong to"),
        ("split_hash", _text, False, "manifest hash of the measured split"),
        ("n", _short, False, "images in the split"),
        ("correct", pa.binary(), False, "one bit an image in the manifest's order, first image in the highest bit"),
    )
)

MANIFESTS = _schema(
    (
        ("task", _text, False, "task"),
        ("domain", _text, False, "domain"),
        ("part", _text, False, "train, val or test"),
        ("place", _short, False, "place in the split's fixed order: the id of the predictions"),
        ("name", _text, False, "the image's name"),
        ("label", _short, False, "position in the task's classes"),
        ("cluster", _text, True, "unit of resampling"),
        ("group", _text, True, "unit of worst-group accuracy"),
    )
)

OUTPUTS = _schema(
    (
        ("task", _text, False, "task"),
        ("source", _text, False, "training domain"),
        ("target", _text, False, "measured domain"),
        ("role", _text, False, "id-val, id-test or ood-test"),
        ("image", _text, False, "the image's name"),
        ("seed", pa.int64(), False, "seed of the fit"),
        ("outputs", pa.list_(_float), False, "what the predictor returned for the clean image, one number a class"),
    )
)

TABLES: Mapping[str, pa.Schema] = {
    "fits": FITS,
    "records": RECORDS,
    "predictions": PREDICTIONS,
    "class_bins": CLASS_BINS,
    "audits": AUDITS,
    "outcomes": OUTCOMES,
    "manifests": MANIFESTS,
    "outputs": OUTPUTS,
}


_ABOUT: Mapping[str, tuple[str, ...]] = {
    "outcomes": (
        "Which images of every clean set were right: small enough to be published for any suite, and what intervals",
        "and comparisons of accuracy are made from. Read them with `tlbench.records.outcomes.unpacked`.",
        "",
    ),
    "outputs": (
        "Kept on request only (`tlbench evaluate --keep-outputs`), in the run folder below",
        "`models/<model>/outputs/<variant>/<shots>/`, one file a clean set; for a method that reads its target they",
        "lie in a folder named after it. They are never submitted. `tlbench score` takes such a folder, or one file",
        "of it, and measures the outputs again.",
        "",
    ),
}


def describe() -> str:
    """Return the schema of every table as Markdown."""
    lines = [
        "# Tables",
        "",
        f"Schema version {SCHEMA_VERSION}. Every file is Parquet, compressed with Zstandard. Floats of `predictions`",
        "are computed in float64 and rounded to 16 significant bits; every metric is computed from the rounded ones.",
        "",
    ]
    for name, schema in TABLES.items():
        lines += [
            f"## {name}",
            "",
            *_ABOUT.get(name, ()),
            "| column | type | null | meaning |",
            "| --- | --- | --- | --- |",
        ]
        for field in schema:
            text = field.metadata[b"description"].decode()
            lines.append(f"| `{field.name}` | {field.type} | {'yes' if field.nullable else 'no'} | {text} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(describe(), end="")

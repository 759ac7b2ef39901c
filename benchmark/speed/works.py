"""Every row of the speed table before it is measured: the work, the peer, the bar, and what must agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from speed.rows import Bar, Work

_TYPES = "17 types x 5 severities at 224 px"
_CORRUPTED = "distance, of what is allowed"
_APGD = "APGD-DLR, 6 epsilons, 100 steps, Lite0 at 64 px, 64 images"
_MEASURES = "200 000 x 345 probabilities"
_EPOCH = "cached epoch of input, 400 images to a normalised 224 px batch"
_ENGINE = "clean and attacked evaluation of one fit"

_ALL: Final = (
    Work(
        "corruptions-plain", "corruptions", f"{_TYPES}, plain", "imagecorruptions-imaug", "Corruption.apply",
        Bar(4.0), ("imagecorruptions-imaug",), agreement=_CORRUPTED, tolerance=1.0, unit="image",
    ),
    Work(
        "corruptions-numba", "corruptions", f"{_TYPES}, with numba", "imagecorruptions-imaug", "Corruption.apply",
        Bar(6.0), ("imagecorruptions-imaug", "numba"), agreement=_CORRUPTED, tolerance=1.0, unit="image",
    ),
    Work(
        "zoom-blur-plain", "corruptions", "zoom_blur x 5 severities at 224 px, plain", "imagecorruptions-imaug",
        "Corruption.apply", Bar(7.0), ("imagecorruptions-imaug",), agreement=_CORRUPTED, tolerance=1.0, unit="image",
    ),
    Work(
        "glass-blur-numba", "corruptions", "glass_blur x 5 severities at 224 px, with numba", "imagecorruptions-imaug",
        "Corruption.apply", Bar(4.0), ("imagecorruptions-imaug", "numba"),
        agreement=_CORRUPTED, tolerance=1.0, unit="image",
    ),
    Work(
        "apgd-fast", "attacks", f"{_APGD}, fast", "torchattacks", "apgd-dlr", Bar(6.0), ("torchattacks",),
        agreement="images an epsilon", tolerance=1.0, unit="image",
    ),
    Work(
        "apgd-exact", "attacks", f"{_APGD}, exact", "torchattacks", "apgd-dlr", Bar(4.0), ("torchattacks",),
        agreement="images an epsilon", tolerance=1.0, unit="image",
    ),
    Work(
        "apgd-fast-autoattack", "attacks", f"{_APGD}, fast", "AutoAttack", "apgd-dlr", Bar(6.0), ("autoattack",),
        agreement="images an epsilon", tolerance=1.0, unit="image",
    ),
    Work(
        "apgd-exact-autoattack", "attacks", f"{_APGD}, exact", "AutoAttack", "apgd-dlr", Bar(4.0), ("autoattack",),
        agreement="images an epsilon", tolerance=1.0, unit="image",
    ),
    Work(
        "pgd-fast", "attacks", "PGD-100, 6 epsilons, Lite0 at 64 px, 16 images, fast", "foolbox", "foolbox-linf-pgd",
        Bar(8.0), ("foolbox",), agreement="images an epsilon more robust", tolerance=1.0, unit="image",
    ),
    Work(
        "gradient", "network", "one input gradient, Lite0 at 64 px, 32 images", "autograd on the plain model",
        "Measured.gradient", Bar(1.5), agreement="relative", tolerance=1e-2, unit="batch",
    ),
    *(
        Work(
            f"forward-{side}", "network", f"clean forward, Lite0 at {side} px, 32 images", "the plain model",
            "Measured.outputs", Bar(least), agreement="logits, relative", tolerance=1e-4, unit="batch",
        )
        for side, least in ((64, 1.4), (128, 1.5), (224, 2.0))
    ),
    Work(
        "ece-netcal", "calibration", f"ECE from {_MEASURES}", "netcal", "metrics", Bar(12.0), ("netcal",),
        agreement="absolute", tolerance=1e-12,
    ),
    Work(
        "ece-torchmetrics", "calibration", f"ECE from {_MEASURES}", "torchmetrics", "metrics", Bar(4.0),
        ("torchmetrics",), agreement="absolute", tolerance=1e-5,
    ),
    Work(
        "measures-together", "calibration", f"accuracy, NLL, Brier and ECE together from {_MEASURES}",
        "torchmetrics, scikit-learn, scikit-learn and netcal, the sum", "metrics", Bar(10.0),
        ("torchmetrics", "scikit-learn", "netcal"), agreement="absolute", tolerance=1e-5,
    ),
    *(
        Work(
            f"input-{key}", "input", _EPOCH, peer, "Split.batches and the measured predictor's input", Bar(least),
            packages, agreement="pixels that differ", tolerance=0.0, unit="image",
        )
        for key, peer, least, packages in (
            ("imagefolder", "ImageFolder", 5.0, ("torchvision",)),
            ("webdataset", "webdataset", 5.0, ("webdataset",)),
            ("datasets", "Hugging Face datasets", 4.0, ("datasets",)),
        )
    ),
    Work(
        "head-only", "training", "head-only training, 10 epochs, Lite0 at 96 px, 256 images",
        "the backbone in every epoch", "HeadOnly.fit", Bar(8.0), agreement="weights", tolerance=1e-5, unit="fit",
    ),
    Work(
        "engine", "engine", f"{_ENGINE}, Lite0 at 64 px, through the engine",
        "the sum of its bare forward and gradient calls", "engine.execute", Bar(1.10, "most"),
        ratio="share", unit="fit",
    ),
    Work(
        "corrupted-share", "engine", "share of corrupting in an evaluation of 17 types x 5 severities, Lite0 at 224 px",
        "the whole evaluation", "Corruption.apply", ratio="share", unit="evaluation",
    ),
    Work(
        "load-and-rank", "large", "compacted results of 31 000 fits (12 million records) loaded and ranked", "a guide",
        "leaderboard", Bar(15.0, "most", guide=True), ratio="seconds",
    ),
    Work(
        "rescore", "large", "one million predictions scored again", "a guide", "metrics",
        Bar(3.0, "most", guide=True), ratio="seconds",
    ),
    Work(
        "gpu-clean", "gpu", "clean evaluation at 224 px, ResNet-50 on a GPU", "its bare forward pass",
        "engine.measuring", Bar(0.85), agreement="logits against the CPU's, relative", tolerance=1e-4, unit="image",
    ),
    Work(
        "gpu-corrupted", "gpu", "corrupted evaluation at 224 px, ResNet-50 on a GPU", "its bare forward pass",
        "engine.measuring", Bar(0.6), agreement="logits against the CPU's, relative", tolerance=1e-4, unit="image",
    ),
)  # fmt: skip

WORKS: Final[Mapping[str, Work]] = {work.key: work for work in _ALL}
"""Every row by its key, in the order of the table."""

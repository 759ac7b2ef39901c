"""The kit passes what keeps its promises, and tells the author of a broken plug-in what is wrong and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlbench import registry
from tlbench.methods.base import Context, Fitted, Method, Predictor
from tlbench.methods.finetune import Finetune
from tlbench.methods.resolve import example_of, resolve_model
from tlbench.models.zoo import load_backbone
from tlbench.testing import Check, assert_method, check_method


def failed(method: Method) -> dict[str, str]:
    return {check.name: check.message for check in check_method(method) if not check.passed}


class Good(Method):
    lr: float = 0.01

    def fit(self, context: Context) -> nn.Module:
        return context.train(context.backbone.fresh(context.classes), lr=self.lr)


_FOR = {"lora": "timm:test_efficientnet@untrained"}
"""Backbones of methods that do not apply to the kit's own, which has no convolution of 1 by 1 pixels."""


@pytest.mark.parametrize("name", registry.BUILT_IN["methods"])
def test_every_built_in_method_keeps_every_promise(name: str) -> None:
    method = resolve_model(example_of(name)).method
    backbone = load_backbone(_FOR[name]) if name in _FOR else None
    assert_method(method, backbone=backbone)


def test_the_six_line_plug_in_keeps_every_promise() -> None:
    checks = check_method(Good())
    assert [check for check in checks if not check.passed] == []
    assert {"same seed", "round trip", "differentiable", "theta0"} <= {check.name for check in checks}
    assert all(isinstance(check, Check) and check.seconds >= 0 and check.message for check in checks)


def test_a_raised_error_lists_every_broken_promise() -> None:
    with pytest.raises(
        AssertionError, match=r"(?s)Careless breaks \d of its promises:.*same seed.*global state|global"
    ):
        assert_method(Careless())


class Careless(Good):
    """Draws its head from the global generator."""

    def fit(self, context: Context) -> nn.Module:
        net = context.backbone.fresh(context.classes)
        net.head = nn.Linear(context.backbone.width, context.classes)
        return context.train(net)


def test_a_global_generator_is_noticed_twice() -> None:
    found = failed(Careless())
    assert found.keys() == {"global state", "same seed"}
    assert "torch's global generator" in found["global state"]
    assert "context.rng('name')" in found["same seed"]


class HalfDetached(Method):
    """Its gradient is that of one of two paths."""

    def fit(self, context: Context) -> Predictor:
        return Predictor(Detached(context.train(context.backbone.fresh(context.classes))))

    def build(self, context: Context, state: Any, recipe: Any) -> Fitted:
        module = Detached(context.backbone.fresh(context.classes))
        module.load_state_dict(dict(state))
        return Fitted({"main": Predictor(module.eval())})


class Detached(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            part: Tensor = self.net(images)
        total: Tensor = part + self.net(images)
        return total


def test_a_half_detached_network_does_not_pass_for_robust() -> None:
    found = failed(HalfDetached())
    assert found.keys() == {"differentiable"}
    assert "without it being robust" in found["differentiable"]
    assert "differentiable=False" in found["differentiable"]


class Peeking(Good):
    """Reads the target and does not say so."""

    def fit(self, context: Context) -> nn.Module:
        context.data("target_unlabeled_test")
        return super().fit(context)


def test_an_undeclared_read_is_refused_with_the_line_to_write() -> None:
    found = failed(Peeking())
    assert found.keys() == {"fit"}
    assert "reads = frozenset({'id_train', 'id_val', 'target_unlabeled_test'})" in found["fit"]


class Boasting(Good):
    """Declares a tag that it never reads."""

    reads = frozenset({"id_train", "target_unlabeled_train"})


def test_a_declared_tag_that_is_never_read_is_the_wrong_protocol() -> None:
    assert "wrong protocol" in failed(Boasting())["declared access"]


class Probabilities(Method):
    """Returns probabilities where logits are expected, and other weights than build makes."""

    def fit(self, context: Context) -> nn.Module:
        return nn.Sequential(context.train(context.backbone.fresh(context.classes)), nn.Softmax(dim=1)).eval()


def test_probabilities_are_no_logits_and_another_network_needs_a_build() -> None:
    found = failed(Probabilities())
    assert "apply softmax twice" in found["outputs"]
    assert "writes its own" in found["round trip"]
    assert "two classes" in found


class Untyped(Good):
    steps = 3

    def fit(self, context: Context) -> nn.Module:
        object.__setattr__(self, "kept", 1)
        return super().fit(context)


def test_a_setting_without_a_type_and_state_on_the_method_are_told() -> None:
    found = failed(Untyped())
    assert "write 'steps: int = ...'" in found["settings"]
    assert "added 'kept'" in found["unchanged settings"]


class Stubborn(Method):
    """Claims to be deterministic, and trains."""

    deterministic = True

    def fit(self, context: Context) -> nn.Module:
        return context.train(context.backbone.fresh(context.classes))


def test_claims_about_the_seed_are_tried() -> None:
    assert "one fit would stand for all seeds" in failed(Stubborn())["other seed"]

    class Ignoring(Method):
        def fit(self, context: Context) -> nn.Module:
            return context.backbone.fresh(context.classes, generator=torch.Generator().manual_seed(1))

    assert "deterministic = True" in failed(Ignoring())["other seed"]


class BatchNormAtWork(Method):
    """Forgets that its statistics come from the batch."""

    def fit(self, context: Context) -> nn.Module:
        net = context.train(context.backbone.fresh(context.classes))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = module.running_var = None
                module.track_running_stats = False
        return net


def test_dependence_on_the_batch_must_be_declared() -> None:
    assert "batch_dependent=True" in failed(BatchNormAtWork())["batch independence"]


class Averaging(Good):
    """Subtracts the mean of all images so far."""

    def fit(self, context: Context) -> Predictor:
        return Predictor(_Averaging(context.backbone.fresh(context.classes)), differentiable=False, adapts=True)


class _Averaging(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.level = net, torch.zeros(())

    def forward(self, images: Tensor) -> Tensor:
        self.level = self.level + images.mean()
        outputs: Tensor = self.net(images - self.level)
        return outputs


class AveragingWithTag(Averaging):
    reads = frozenset({"id_train", "id_val", "target_unlabeled_test"})


class AveragingWithReset(AveragingWithTag):
    def fit(self, context: Context) -> Predictor:
        predictor = super().fit(context)
        return replace(predictor, reset=lambda: setattr(predictor.module, "level", torch.zeros(())))


def test_what_adapts_says_which_images_it_sees_and_can_be_put_back() -> None:
    assert "does not declare that it reads them" in failed(Averaging())["test time"]
    assert "give it Predictor(reset=...)" in failed(AveragingWithTag())["test time"]
    broken = failed(AveragingWithReset())
    assert "test time" not in broken
    # It reads its test images while it predicts, not in its fit.
    assert "declared access" not in broken


class Spoiling(Good):
    """Trains the pretrained network itself."""

    def fit(self, context: Context) -> nn.Module:
        weight = next(context.backbone._template.parameters())
        with torch.no_grad():
            weight.mul_(1.0001)
        return super().fit(context)


def test_a_changed_theta0_is_noticed() -> None:
    backbone = load_backbone("small-cnn")
    weight = next(backbone._template.parameters())
    kept = weight.detach().clone()
    try:
        assert "every later fit would start from them" in failed(Spoiling())["theta0"]
    finally:
        with torch.no_grad():
            weight.copy_(kept)


class Lying(Good):
    def null_config(self) -> tuple[Method, Method]:
        return Lying(lr=0.5), Finetune()


def test_a_null_setting_must_be_null() -> None:
    assert "does not equal" in failed(Lying())["null setting"]


def test_what_fit_raises_and_what_it_forgets_is_told_with_its_place() -> None:
    class Raising(Method):
        def fit(self, context: Context) -> nn.Module:
            raise KeyError("width")

    class Forgetting(Method):
        def fit(self, context: Context) -> nn.Module:
            context.train(context.backbone.fresh(context.classes))  # type: ignore[return]

    assert "fit raised KeyError: 'width' (in fit, line" in failed(Raising())["fit"]
    assert "does fit() end with a return?" in failed(Forgetting())["fit"]


def test_a_need_of_another_backbone_is_told() -> None:
    class Attentive(Good):
        requires = frozenset({"transformer"})

    assert "where another backbone would do, name it: check_method(..., backbone=)" in failed(Attentive())["requires"]


def test_wrong_shapes_are_told() -> None:
    class Narrow(Method):
        def fit(self, context: Context) -> nn.Module:
            return context.train(context.backbone.fresh(context.classes + 1))

    assert "must return a tensor of shape (8, 3)" in failed(Narrow())["outputs"]

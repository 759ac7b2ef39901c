from __future__ import annotations

import copy

import pytest
import torch

from tlbench.engine.context import FitContext
from tlbench.errors import DataAccessError, PluginError
from tlbench.methods.base import Method, Predictor
from tlbench.methods.finetune import Finetune
from tlbench.methods.linear_probe import LinearProbe
from tlbench.models.zoo import load_backbone
from tlbench.testing import SIZES, synthetic_context


class Unlabelled(Method):
    reads = frozenset({"id_train", "target_unlabeled_train"})


class FewShot(Method):
    reads = frozenset({"id_train", "target_labels"})


def context(method: Method, seed: int = 0) -> FitContext:
    return synthetic_context(method, backbone=load_backbone("small-cnn"), seed=seed)


def test_reads_are_recorded_and_undeclared_ones_are_refused() -> None:
    given = context(Unlabelled())
    assert given.reads == set()
    given.data("id_train")
    assert given.reads == {"id_train"}
    with pytest.raises(DataAccessError, match="reads 'id_val' and did not declare it"):
        given.data("id_val")
    with pytest.raises(DataAccessError, match="did not declare it"):
        given.features("id_val")
    assert given.reads == {"id_train"}


def test_target_labels_are_out_of_reach_unless_declared() -> None:
    data = context(Unlabelled()).data("target_unlabeled_train")
    with pytest.raises(DataAccessError, match="out of reach"):
        _ = data.labels
    assert all(bool((batch.labels == -1).all()) for batch in data.batches(10))
    assert context(Unlabelled()).features("target_unlabeled_train").labels is None
    assert int(context(FewShot()).data("target_labels").labels.max()) == 2


def test_data_that_the_suite_does_not_have_is_said() -> None:
    class Wanting(Method):
        reads = frozenset({"source_models"})

    with pytest.raises(DataAccessError, match="which this suite does not give; it has 'id_train', 'id_val'"):
        context(Wanting()).data("source_models")


def test_batches_are_floats_in_manifest_order_with_views_one_after_another() -> None:
    data = context(Finetune()).data("id_train")
    batches = list(data.batches(20, views=2, flip=True))
    assert [len(batch) for batch in batches] == [40, 40, 16]
    assert batches[0].ids.tolist() == [*range(20), *range(20)]
    assert batches[0].images.shape == (40, 3, 16, 16)
    assert batches[0].images.dtype == torch.float32
    assert len(batches[0].names) == 40
    assert [len(batch) for batch in data.batches(20, drop_last=True)] == [20, 20]
    assert torch.equal(torch.cat([batch.labels for batch in data.batches(9)]), data.labels)


def test_streams_depend_on_seed_and_name_and_on_nothing_else() -> None:
    def draw(given: FitContext, stream: str) -> float:
        return float(torch.rand((), generator=given.rng(stream)))

    assert draw(context(Finetune()), "order") == draw(context(LinearProbe()), "order")
    assert draw(context(Finetune()), "order") != draw(context(Finetune()), "head")
    assert draw(context(Finetune()), "order") != draw(context(Finetune(), seed=1), "order")


def test_features_are_computed_once_and_cannot_be_spoiled() -> None:
    given = context(LinearProbe())
    first = given.features("id_train")
    net = given.backbone.fresh()
    images = next(iter(given.data("id_train").batches(100))).images
    with torch.no_grad():
        assert torch.allclose(first.values, net.features(images), atol=1e-6)
    kept = first.values.clone()
    first.values.zero_()
    again = given.features("id_train").values
    assert torch.equal(again, kept)
    assert torch.nn.Linear(64, 2)(again).requires_grad
    assert given.budget.images_seen == SIZES["train"]


def test_a_new_body_never_depends_on_the_seed_and_a_new_head_does() -> None:
    first, other = (context(Finetune(), seed=s).backbone.fresh(3).state_dict() for s in (0, 1))
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing == {"head.weight", "head.bias"}
    assert context(Finetune()).backbone.name == "small-cnn"


def test_outputs_come_in_manifest_order_without_gradient() -> None:
    given = context(Finetune())
    net = given.backbone.fresh(3).train()
    before = copy.deepcopy(net.state_dict())
    outputs = given.outputs(Predictor(net), "id_val")
    assert outputs.shape == (SIZES["val"], 3)
    assert not outputs.requires_grad
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_another_fit_adds_its_reads_and_its_cost() -> None:
    given = context(Finetune())
    fitted = given.fitted("linear-probe", steps=5)
    assert given.reads == {"id_train", "id_val"}
    assert given.budget.images_seen == SIZES["train"] + SIZES["val"]
    with torch.no_grad():
        assert fitted.predictor().module(given.example(4)).shape == (4, 3)
    with pytest.raises(PluginError, match=r"LinearProbe: .*stepps"):
        given.fitted("linear-probe", stepps=5)


def test_the_cost_of_a_stored_fit_is_counted_from_its_facts() -> None:
    given = context(Finetune())
    kept = {"images_seen": 7, "saved_bytes": 9, "parameters_trained": 5, "seconds": 1.5, "device": "cpu"}
    given.count("one", kept, 0.25)
    given.count("two", {"images_seen": 1, "saved_bytes": 2, "parameters_trained": 6}, 0.0)
    assert given.owed_seconds == 1.25
    assert (given.budget.images_seen, given.budget.saved_bytes, given.budget.parameters_trained) == (8, 9, 6)
    assert given.budget.seconds == 1.5


def test_a_fit_that_is_asked_for_twice_costs_once() -> None:
    given = context(Finetune())
    probe = {"images_seen": 7, "backward_passes": 0, "seconds": 1.0}
    own = {"images_seen": 7, "backward_passes": 0, "parameters_trained": 0, "saved_bytes": 0, "seconds": 1.0}
    tuned = {"images_seen": 27, "backward_passes": 20, "seconds": 5.0, "parts": {"probe": own}}
    given.count("probe", probe, 0.5)
    given.count("tuned", tuned, 2.0)
    given.count("tuned", tuned, 2.0)
    assert (given.budget.images_seen, given.budget.backward_passes, given.budget.seconds) == (27, 20, 5.0)
    # Half a second and four were spent here, on what takes five.
    assert given.owed_seconds == 0.5
    assert {part: budget.images_seen for part, budget in given.parts.items()} == {"probe": 7, "tuned": 20}

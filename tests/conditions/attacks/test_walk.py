"""One step after another: the points of torchattacks, within the ball, and no trace of the images beside one."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from torch import nn

from tlbench.conditions.attacks import walk as walking
from tlbench.conditions.attacks.balls import directions, length
from tlbench.conditions.attacks.losses import LOSSES
from tlbench.conditions.attacks.walk import Walk

NORMS = ("linf", "l2")


def unit(batch):
    return batch.images.float() / 255


def ended(walk):
    """Walk to the end; what became of every image, by its key."""
    found = {}
    while len(walk):
        done = walk.advance()
        found |= zip(done.key.tolist(), zip(done.broken.tolist(), done.found, strict=True), strict=True)
    return found


@pytest.mark.parametrize("norm", NORMS)
def test_a_walk_takes_the_steps_of_torchattacks_one_by_one(norm, some, networks, plain_predictor, monkeypatch):
    """An epsilon too small to break anything: all points of the way are compared, through every halving of a step."""
    network, asked = networks["wide"], []
    x = unit(some)
    right = network(x).argmax(1) == some.labels
    x, labels = x[right][:16], some.labels[right][:16]
    toward = directions(range(16), x.shape[1:], norm)
    predictor = plain_predictor(network)
    walk = Walk(predictor, LOSSES["dlr"], norm, 50)
    walk.add(range(16), x, labels, [0.004] * 16, toward)
    ours = []
    while len(walk):
        ours.append(walk.points()[1])
        assert not walk.advance().broken.any()

    def recording(images):
        asked.append(images.detach().clone())
        return network(images)

    monkeypatch.setattr(torch, "rand", lambda shape: (toward + 1) / 2)
    monkeypatch.setattr(torch, "randn", lambda shape: toward)
    theirs = torchattacks.APGD(network, norm="Linf" if norm == "linf" else "L2", eps=0.004, steps=50, loss="dlr")
    monkeypatch.setattr(theirs, "get_logits", recording)
    theirs(x, labels)
    ways = asked[1:]  # the first call is the clean check
    assert len(ways) == len(ours) == 51
    moved = torch.stack(ours) - x
    difference = (moved - (torch.stack(ways) - x)).abs().amax(dim=(1, 2, 3, 4))
    assert moved[-1].abs().max() > 0
    # The sign of a gradient of almost zero may differ in the last bit: a few pixels, never the way of an image.
    # Rounding adds up along a way: to a thousandth of epsilon at most.
    assert (difference < 4e-6).float().mean() >= 0.9


@pytest.mark.parametrize("norm", NORMS)
def test_points_stay_in_the_ball_and_in_the_box(norm, some, epsilons, networks, plain_predictor):
    x, radii = unit(some), torch.tensor(epsilons[norm]).repeat(32)
    walk = Walk(plain_predictor(networks["narrow"]), LOSSES["ce"], norm, 12)
    walk.add(range(96), x, some.labels, radii.tolist(), directions(range(96), x.shape[1:], norm))
    count = 0
    while len(walk):
        key, points = walk.points()
        assert ((points >= 0) & (points <= 1)).all()
        assert (length(points - x[key], norm).flatten() <= radii[key] * (1 + 1e-5) + 1e-7).all()
        done = walk.advance()
        inside = length(done.found - x[done.key], norm).flatten() <= radii[done.key] * (1 + 1e-5) + 1e-7
        assert inside.all()
        wrong = networks["narrow"](done.found).argmax(1) != some.labels[done.key]
        assert wrong.tolist() == done.broken.tolist()
        count += len(done.key)
    assert count == 96


class _AsItCame(nn.Module):
    """A network whose gradients come back in another order of memory, as a prepared one's do."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return self.module(images.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("tile", [300, 2_000, 10**9])
def test_an_image_goes_its_way_to_the_last_bit_whoever_walks_beside_it(
    tile, norm, some, epsilons, networks, plain_predictor, monkeypatch
):
    """Freed places are taken, images enter late, tiles are cut anywhere: the way of each is that of one alone."""
    monkeypatch.setattr(walking, "TILE", tile)
    x, n = unit(some), 18
    radii, toward = (list(epsilons[norm]) * 6), directions(range(n), x.shape[1:], norm)
    predictor = plain_predictor(_AsItCame(networks["narrow"]), chunk=1)  # nor does the network mix images

    def begun(rows):
        walk = Walk(predictor, LOSSES["dlr"], norm, 8)
        walk.add(rows, x[rows], some.labels[rows], [radii[row] for row in rows], toward[rows])
        return walk

    walk, waiting, together = begun(list(range(7))), list(range(7, n)), {}
    while len(walk):
        done = walk.advance()
        together |= zip(done.key.tolist(), zip(done.broken.tolist(), done.found, strict=True), strict=True)
        # Every other freed place is taken at once, so that the others have to be closed.
        rows, waiting = waiting[: (len(done.key) + 1) // 2], waiting[(len(done.key) + 1) // 2 :]
        if rows:
            walk.add(rows, x[rows], some.labels[rows], [radii[row] for row in rows], toward[rows])
    assert len(together) == n
    assert 0 < sum(broken for broken, _ in together.values()) < n
    for row in range(n):
        broken, found = ended(begun([row]))[row]
        assert together[row][0] == broken
        assert torch.equal(together[row][1], found)


def test_a_walk_takes_in_more_images_than_it_began_with(some, networks, plain_predictor):
    x = unit(some)
    toward = directions(range(96), x.shape[1:], "linf")
    walk = Walk(plain_predictor(networks["dense"]), LOSSES["ce"], "linf", 5)
    whole = Walk(plain_predictor(networks["dense"]), LOSSES["ce"], "linf", 5)
    for part in (slice(0, 5), slice(5, 40), slice(40, 96)):
        walk.add(range(96)[part], x[part], some.labels[part], [0.06] * len(x[part]), toward[part])
    whole.add(range(96), x, some.labels, [0.06] * 96, toward)
    ours, theirs = ended(walk), ended(whole)
    assert {key: broken for key, (broken, _) in ours.items()} == {key: broken for key, (broken, _) in theirs.items()}


def test_nobody_on_the_way_is_a_slip_of_the_caller(networks, plain_predictor):
    with pytest.raises(ValueError, match="call add first"):
        Walk(plain_predictor(networks["dense"]), LOSSES["ce"], "linf", 5).advance()


@pytest.mark.gpu
@pytest.mark.parametrize("norm", NORMS)
def test_a_walk_on_a_gpu_ends_as_it_does_on_the_cpu(norm, some, epsilons, networks, plain_predictor):
    x, radii = unit(some), [epsilons[norm][1]] * 96
    toward = directions(range(96), x.shape[1:], norm)
    verdicts = []
    for device in ("cpu", "cuda"):
        walk = Walk(plain_predictor(networks["dense"].to(device)), LOSSES["dlr"], norm, 20)
        walk.add(range(96), x.to(device), some.labels.to(device), radii, toward.to(device))
        found = ended(walk)
        verdicts.append([found[key][0] for key in range(96)])
    networks["dense"].cpu()
    assert sum(ours != theirs for ours, theirs in zip(*verdicts, strict=True)) <= 1

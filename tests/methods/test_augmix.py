from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from scipy.spatial.distance import jensenshannon
from torch import Generator, Tensor

from tlbench.conditions.catalogue import VERSIONS
from tlbench.methods.augmix import LEAST_LEVEL, OPERATIONS, Augmix, Mixtures, changed, jensen_shannon, mixed
from tlbench.methods.base import Step
from tlbench.methods.finetune import Finetune
from tlbench.suites.spec import Recipe
from tlbench.testing import assert_method

from .conftest import MakeContext


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (10, 3, 20, 26), generator=generator(1)) / 255


@pytest.fixture
def logits() -> list[Tensor]:
    return [3 * torch.randn(6, 5, generator=generator(seed), dtype=torch.float64) for seed in range(3)]


@pytest.mark.parametrize("method", [Augmix(), Augmix(jsd_weight=0.0)])
def test_it_keeps_the_promises_of_every_plugin(method: Augmix) -> None:
    assert_method(method)


def test_predictions_that_agree_have_no_divergence(logits: list[Tensor]) -> None:
    assert abs(float(jensen_shannon([logits[0]] * 3))) < 1e-12
    assert abs(float(jensen_shannon([logits[0], logits[0] + 7, logits[0] - 3]))) < 1e-12, "logits up to a constant"


def test_the_divergence_of_two_is_scipys(logits: list[Tensor]) -> None:
    p, q = (one.softmax(1).numpy() for one in logits[:2])
    expected = np.mean(jensenshannon(p, q, axis=1) ** 2)
    assert float(jensen_shannon(logits[:2])) == pytest.approx(expected, rel=1e-9)


def test_the_divergence_of_three_is_the_mean_of_the_kl_divergences_to_their_average(logits: list[Tensor]) -> None:
    p = [one.softmax(1) for one in logits]
    average = (sum(p) / 3).log()  # type: ignore[union-attr]
    expected = sum(F.kl_div(average, one, reduction="batchmean") for one in p) / 3
    assert float(jensen_shannon(logits)) == pytest.approx(float(expected), rel=1e-9)
    for order in itertools.permutations(logits):
        assert float(jensen_shannon(order)) == pytest.approx(float(expected), rel=1e-9)


def test_the_divergence_is_finite_and_at_most_the_logarithm_of_three_where_predictions_are_certain() -> None:
    certain = [(1e4 * torch.eye(3)[[place]]).requires_grad_() for place in range(3)]
    divergence = jensen_shannon(certain)
    assert float(divergence.detach()) == pytest.approx(math.log(3))
    divergence.backward()
    assert all(torch.isfinite(one.grad).all() for one in certain if one.grad is not None)


def test_no_operation_is_a_corruption_of_the_tests() -> None:
    corruptions = {name.replace("_", "-") for name in VERSIONS["corruption"]}
    assert not corruptions & set(OPERATIONS)
    resembling = ("bright", "color", "colour", "saturat", "sharp", "blur", "noise")
    assert not [name for name in OPERATIONS if any(part in name for part in resembling)]
    assert [name for name in OPERATIONS if "contrast" in name] == ["autocontrast"], "a stretch, not a factor"
    assert len(OPERATIONS) == 9


def by_pillow(name: str, picture: Image.Image, level: float, sign: int) -> Image.Image:
    """The published operations, on Pillow's images."""
    w, h = picture.size
    if name in ("autocontrast", "equalize"):
        return getattr(ImageOps, name)(picture)  # type: ignore[no-any-return]
    if name == "posterize":
        return ImageOps.posterize(picture, 4 - int(level * 4 / 10))
    if name == "solarize":
        return ImageOps.solarize(picture, 256 - int(level * 256 / 10))
    if name == "rotate":
        return picture.rotate(sign * int(level * 30 / 10), resample=Image.Resampling.BILINEAR)
    slope = sign * level * 0.3 / 10
    shift = [sign * int(level * (side / 3) / 10) for side in (w, h)]
    maps = {
        "shear-x": (1, slope, 0, 0, 1, 0),
        "shear-y": (1, 0, 0, slope, 1, 0),
        "translate-x": (1, 0, shift[0], 0, 1, 0),
        "translate-y": (1, 0, 0, 0, 1, shift[1]),
    }
    return picture.transform((w, h), Image.Transform.AFFINE, maps[name], resample=Image.Resampling.BILINEAR)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("level", "sign"), [(0.3, -1), (2.6, 1), (8.0, -1)])
def test_operations_are_those_of_pillow(images: Tensor, name: str, level: float, sign: int) -> None:
    # Smooth and not of all levels, so that neither half a pixel nor a stretch goes unnoticed.
    smooth = F.interpolate(images[:4, :, :4, :5], size=(20, 26), mode="bilinear") * 0.7 + 0.1
    smooth = (smooth * 255).round() / 255
    n = len(smooth)
    place = list(OPERATIONS).index(name)
    ours = changed(smooth, np.full(n, place), np.full(n, level), np.full(n, float(sign)))
    for image, view in zip(smooth, ours, strict=True):
        picture = Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        theirs = torch.from_numpy(np.array(by_pillow(name, picture, level, sign))).permute(2, 0, 1) / 255
        apart = (view - theirs).abs().amax(dim=0)
        warps = name not in ("autocontrast", "equalize", "posterize", "solarize")
        # At the rim of what is left of a moved image, Pillow does not blend with the black beside it.
        inner = F.avg_pool2d((theirs.amin(dim=0, keepdim=True) > 0).float(), 3, 1, 1)[0] > 0.99 if warps else apart >= 0
        assert inner.float().mean() > 0.3
        assert float(apart[inner].max()) < 2.5 / 255


def test_levels_and_directions_are_an_images_own(images: Tensor) -> None:
    same = images[:1].repeat(4, 1, 1, 1)
    place = list(OPERATIONS).index("translate-x")
    views = changed(
        same, np.array([place, place, place, -1]), np.array([3.0, 3.0, 9.0, 9.0]), np.array([1.0, -1, 1, 1])
    )
    assert torch.allclose(views[0][:, :, :-2], same[0][:, :, 2:], atol=1e-5)  # 2 of 26 / 3 * 0.3
    assert torch.allclose(views[1][:, :, 2:], same[0][:, :, :-2], atol=1e-5)
    assert torch.allclose(views[2][:, :, :-7], same[0][:, :, 7:], atol=1e-5)
    assert torch.equal(views[3], same[3])


def test_a_mixture_keeps_shape_type_and_range_and_each_image_has_its_own(images: Tensor) -> None:
    same = images[:1].repeat(30, 1, 1, 1)
    views = mixed(same, generator(), severity=10)
    assert views.shape == same.shape
    assert views.dtype == torch.float32
    assert 0 <= float(views.min()) <= float(views.max()) <= 1
    assert len({view.numpy().tobytes() for view in views}) == 30


def test_the_generator_alone_fixes_the_pixels(images: Tensor) -> None:
    global_states = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    first, again, other = (mixed(images, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), global_states[0])
    assert np.random.get_state()[1].tolist() == global_states[1]  # type: ignore[union-attr]


def test_a_mixture_is_the_formula_written_out(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlbench.methods import augmix

    draws: list[tuple[str, np.ndarray]] = []

    class Noting:
        """NumPy's generator, which tells what it has drawn."""

        def __init__(self, seed: int) -> None:
            self.inner = np.random.Generator(np.random.PCG64(seed))

        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            def draw(*args, **kwargs):  # type: ignore[no-untyped-def]
                draws.append((name, getattr(self.inner, name)(*args, **kwargs)))
                return draws[-1][1]

            return draw

    monkeypatch.setattr(augmix.np.random, "default_rng", Noting)
    view = mixed(images, generator(), width=2, depth=1)
    (_, shares), (_, weights), *chains = draws
    assert [name for name, _ in chains] == ["integers", "uniform", "choice"] * 2
    n = len(images)
    ends = [changed(images, *(values for _, values in chains[3 * k : 3 * k + 3])) for k in range(2)]
    for i in range(n):
        mixture = weights[i, 0] * ends[0][i] + weights[i, 1] * ends[1][i]
        expected = (1 - shares[i]) * images[i] + shares[i] * mixture
        assert torch.allclose(view[i], expected.float(), atol=1e-6)
    levels = np.concatenate([chains[1][1], chains[4][1]])
    assert LEAST_LEVEL <= levels.min() <= levels.max() <= 3
    assert np.allclose(weights.sum(axis=1), 1)


def test_chains_are_one_to_three_operations_long(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlbench.methods import augmix

    applied: list[np.ndarray] = []

    def noting(view: Tensor, out: Tensor, chosen: np.ndarray, *rest: np.ndarray) -> None:
        applied.append(chosen >= 0)
        out.copy_(view)

    monkeypatch.setattr(augmix, "_change", noting)
    many = images[:1, :, :2, :2].repeat(600, 1, 1, 1)
    mixed(many, generator(), width=1)
    lengths = np.sum(applied, axis=0)
    assert np.all(np.abs(np.bincount(lengths, minlength=4) / 600 - [0, 1 / 3, 1 / 3, 1 / 3]) < 0.08)
    applied.clear()
    mixed(many, generator(), width=2, depth=4)
    assert np.sum(applied) == 600 * 2 * 4


def step_of(images: Tensor, labels: Tensor) -> Step:
    return Step(None, images, labels, {}, 0, 1)


def test_the_loss_is_cross_entropy_of_the_clean_images_and_twelve_times_the_divergence(images: Tensor) -> None:
    labels = torch.arange(10) % 4
    step, hooks = step_of(images, labels), Mixtures(Augmix(), generator())
    hooks.transform_batch(step)
    assert step.images.shape == (30, 3, 20, 26)
    assert torch.equal(step.images[:10], images)
    assert not torch.equal(step.images[10:20], step.images[20:])
    step.logits = torch.randn(30, 4, generator=generator(2))
    base, added = hooks.base_loss(step), hooks.loss(step)
    assert base is not None
    assert added is not None
    assert torch.equal(base, F.cross_entropy(step.logits[:10], labels))
    p = [part.softmax(1) for part in step.logits.split(10)]
    average = (sum(p) / 3).clamp(1e-7, 1).log()  # type: ignore[union-attr]
    divergence = sum(F.kl_div(average, one, reduction="batchmean") for one in p) / 3
    assert float(added) == pytest.approx(12 * float(divergence), rel=1e-5)


def test_without_the_divergence_a_view_stands_in_place_of_each_image(images: Tensor) -> None:
    step, hooks = step_of(images, torch.zeros(10, dtype=torch.int64)), Mixtures(Augmix(jsd_weight=0.0), generator())
    hooks.transform_batch(step)
    assert step.images.shape == images.shape
    assert not torch.equal(step.images, images)
    assert len(step.labels) == 10
    assert hooks.base_loss(step) is None
    assert hooks.loss(step) is None


def test_without_chains_and_divergence_it_is_fine_tuning(context_for: MakeContext) -> None:
    reduced, simpler = Augmix(lr=1e-3).null_config()
    assert simpler == Finetune(regime="full", lr=1e-3)
    nets = [method.fit(context_for(method)) for method in (reduced, simpler, Augmix(lr=1e-3, jsd_weight=0.0))]
    outputs = [net(context_for(Finetune()).example(8)) for net in nets]  # type: ignore[operator]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_predictions_on_mixtures_agree_more_than_after_fine_tuning(context_for: MakeContext) -> None:
    divergences = []
    for method in (Augmix(epochs=6, severity=10), Finetune(epochs=6)):
        context = context_for(method)
        net = method.fit(context)
        images = context.example(24)
        with torch.no_grad():
            views = [images, *(mixed(images, generator(seed), severity=10) for seed in (1, 2))]
            divergences.append(float(jensen_shannon([net(view) for view in views])))
    assert divergences[0] < 0.7 * divergences[1]


def test_three_views_are_counted_as_three_images(context_for: MakeContext) -> None:
    three, one, plain = (context_for(Augmix()) for _ in range(3))
    Augmix().fit(three)
    Augmix(jsd_weight=0.0).fit(one)
    Finetune().fit(plain)
    assert plain.budget.images_seen == one.budget.images_seen == one.budget.backward_passes == 2 * 48
    assert three.budget.images_seen == three.budget.backward_passes == 3 * 2 * 48
    assert three.budget.parameters_trained == plain.budget.parameters_trained
    assert 2.9 < three.budget.saved_bytes / plain.budget.saved_bytes < 3.1
    cost = Augmix(epochs=5).cost(Recipe())
    assert (cost.trained, cost.viewed, cost.gone_through) == (15, 10, 5)
    assert cost.recipe is not None
    assert cost.recipe.augment == "augmix"
    assert Augmix(epochs=5, jsd_weight=0.0).cost(Recipe()).trained == 5
    assert Augmix(jsd_weight=0.0, width=0).cost(Recipe()) == Finetune().cost(Recipe())


def test_mixed_precision_leaves_the_mixtures_as_they_are(context_for: MakeContext, images: Tensor) -> None:
    hooks, exact = Mixtures(Augmix(jsd_weight=0.0), generator()), mixed(images, generator())
    step = step_of(images, torch.zeros(10, dtype=torch.int64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hooks.transform_batch(step)
    assert torch.equal(step.images, exact)


@pytest.mark.parametrize(
    "settings",
    [
        {"jsd_weight": -1.0},
        {"jsd_weight": float("nan")},
        {"width": -1},
        {"depth": 0},
        {"severity": 0},
        {"severity": 11},
        {"alpha": 0.0},
        {"epochs": -1},
    ],
)
def test_settings_out_of_range_are_refused_when_the_method_is_made(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Augmix(**settings)  # type: ignore[arg-type]


def plainly_mixed(images: Tensor, generator: Generator, depth: int | None) -> Tensor:
    """The mixture written from its definition, an operation after the other, each into a tensor of its own."""
    n = len(images)
    draws = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).float().view(-1, 1, 1, 1)

    shares, weights = column(draws.beta(1.0, 1.0, n)), draws.dirichlet([1.0] * 3, n)
    mixture = torch.zeros_like(images)
    for chain in range(3):
        lengths = draws.integers(1, 4, n) if depth is None else np.full(n, depth)
        view = images
        for link in range(int(lengths.max())):
            chosen, levels = draws.integers(len(OPERATIONS), size=n), draws.uniform(LEAST_LEVEL, 3, n)
            signs = draws.choice([-1.0, 1.0], n)
            chosen[link >= lengths] = -1
            view = changed(view, chosen, levels, signs)
        mixture = mixture + column(weights[:, chain]) * view
    return ((1 - shares) * images + shares * mixture).clamp(0, 1)


@pytest.mark.parametrize("depth", [None, 1, 2])
def test_memory_that_is_used_again_moves_no_bit(images: Tensor, depth: int | None) -> None:
    before = images.clone()
    for seed in range(3):
        expected = plainly_mixed(images, generator(seed), depth)
        assert torch.equal(mixed(images, generator(seed), depth=depth), expected)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["rotate", "shear-x", "shear-y", "translate-x", "translate-y"])
def test_a_warp_is_what_affine_grid_makes_of_it_bit_for_bit(
    name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels, signs = torch.linspace(0.1, 10, 10).view(-1, 1, 1, 1), torch.tensor([1.0, -1.0] * 5).view(-1, 1, 1, 1)
    ours = OPERATIONS[name](images, levels, signs)

    def grid_of(places: Tensor, transposed: Tensor) -> Tensor:
        return F.affine_grid(transposed.transpose(1, 2), list(images.shape), align_corners=False)

    monkeypatch.setattr("tlbench.methods.augmix.torch.bmm", grid_of)
    assert torch.equal(OPERATIONS[name](images, levels, signs), ours)

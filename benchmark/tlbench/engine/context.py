"""What a method is given: data by declared tag, named random streams, the trainer, other fits, and nothing else."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from tlbench.data.domain import Batch, Split
from tlbench.engine.class_info import ClassInfo
from tlbench.engine.features import FeatureCache, Piece
from tlbench.errors import DataAccessError, PluginError, listed
from tlbench.methods.augment import as_float, augmented
from tlbench.methods.base import TARGET_TAGS, Budget, Data, Features, Fitted, Hooks, Method, Predictor, Tag
from tlbench.methods.crops import crops
from tlbench.methods.features import pooled
from tlbench.methods.fitted import as_fitted
from tlbench.methods.order import one_pass
from tlbench.methods.training import Progress, merged, train
from tlbench.models.backbone import Backbone, Network, drawing_from
from tlbench.seeds import derive, digest
from tlbench.suites.spec import Recipe

_HIDDEN = -1


@final
class FitContext:
    """All that a method may use during one fit; implements ``methods.base.Context``.

    Parameters
    ----------
    method : Method
        Its ``reads`` are what ``data`` hands out.
    backbone : Backbone
    train, val : Split
        Of the source.
    targets : mapping of Tag to Split
        Other splits by tag; labels stay hidden for target tags, ``target_labels`` excepted.
    classes : int
    class_names : tuple of str
    class_info : mapping
        Such as ``{"hierarchy": Hierarchy}``; handed out only to a method that declares the tag.
    recipe : Recipe
    device : str
    seed : int
    source : str
    target : str or None
    fit_other : callable or None
        Makes or fetches another method's fit by some seed; None fits it here. On the same data either way.
    resolve : callable or None
        A name to a method, for ``fitted("linear-probe")``.
    batch_size : int
        Images of one forward pass without gradients.
    progress : callable or None
        Told the steps done and all steps during training.
    feature_cache : FeatureCache or None
        None keeps features for this fit only, in the system's folder for temporary files.

    Attributes
    ----------
    reads : set of Tag
        What was read so far.
    budget : Budget
    owed_seconds : float
        By how much the sub-fits took longer when they were made than when this fit asked for them.
    parts : dict of str to Budget
        Every fit that was asked for, here or within another one, by id, and what it took beside those that it asks for.
    candidates : list of mapping
        What searches within the sub-fits tried.
    train_split, val_split : Split
        For the engine, which knows what the data are.
    """

    def __init__(
        self,
        *,
        method: Method,
        backbone: Backbone,
        train: Split,
        val: Split,
        targets: Mapping[Tag, Split],
        classes: int,
        class_names: tuple[str, ...],
        class_info: Mapping[str, Any],
        recipe: Recipe,
        device: str,
        seed: int,
        source: str,
        target: str | None,
        fit_other: Callable[[Method, int], Fitted] | None = None,
        resolve: Callable[[str], Method] | None = None,
        batch_size: int = 256,
        progress: Progress | None = None,
        feature_cache: FeatureCache | None = None,
    ) -> None:
        self.method = method
        self.classes, self.class_names = classes, class_names
        self.recipe, self.device, self.seed, self.source, self.target = recipe, device, seed, source, target
        self.train_split, self.val_split = train, val
        self.budget = Budget()
        self.owed_seconds = 0.0
        self.parts: dict[str, Budget] = {}
        self.candidates: list[Mapping[str, Any]] = []
        self.reads: set[Tag] = set()
        self._info = ClassInfo(class_info, method, self.reads)
        self.class_info: Mapping[str, Any] = self._info
        # A method sees the seeded view; the type checker may think it the backbone itself.
        self.backbone = cast(Backbone, _SeededBackbone(backbone, self.rng))
        self._theta0 = backbone
        self._splits: dict[Tag, Split] = {"id_train": train, "id_val": val, **targets}
        self._fit_other, self._resolve = fit_other, resolve
        self._batch_size, self._progress = batch_size, progress
        self._features = FeatureCache(Path(tempfile.gettempdir())) if feature_cache is None else feature_cache
        self._counted: set[tuple[Tag, str]] = set()

    def data(self, tag: Tag) -> Data:
        """Return data by tag and record the read.

        Raises
        ------
        DataAccessError
            If the method did not declare the tag, or the suite has no such data.
        """
        split = self._split(tag)
        hidden = tag in TARGET_TAGS and tag != "target_labels"
        return SplitData(split, f"{type(self.method).__name__}: the labels of '{tag}'" if hidden else None)

    def features(self, tag: Tag, *, views: int | None = None, order: str = "order", **recipe: Any) -> Features:
        """Return pooled features under theta0 in eval mode; every view counts as one pass whether cached or not."""
        data, split = self.data(tag), self._split(tag)
        if views is None:
            if recipe:
                raise ValueError(f"{listed(recipe)} change views of the images; say of how many, with views=")
            shown, passes = "", 1
            values = self._cached(split, shown, 1, lambda: self._plain(data))
        else:
            if views < 1:
                raise ValueError(f"expected at least one view, got {views}")
            wanted, passes = merged(self.recipe, recipe), views
            seen = (wanted.batch_size, wanted.augment, wanted.crop, wanted.flip)
            shown = digest(views, self.seed, self.source, order, *seen)
            values = self._cached(split, shown, views, lambda: self._views(data, views, order, wanted))
            values = values.view(views, len(split), -1)
        if (tag, shown) not in self._counted:
            self._counted.add((tag, shown))
            self.budget.images_seen += passes * len(split)
        hidden = tag in TARGET_TAGS and tag != "target_labels"
        return Features(values, None if hidden else data.labels)

    def _cached(self, split: Split, shown: str, views: int, pieces: Callable[[], Iterator[Piece]]) -> Tensor:
        return self._features.values((self._theta0.weights_hash, split.hash, shown), views * len(split), pieces)

    def _plain(self, data: Data) -> Iterator[Piece]:
        return pooled(self._theta0.fresh(), data.batches(self._batch_size), self.device)

    def _views(self, data: Data, views: int, order: str, recipe: Recipe) -> Iterator[Piece]:
        """Yield the features of what the trainer would show in its first epochs, one view after another."""
        net, shuffle = self._theta0.fresh(), self.rng(order)
        for view in range(views):
            batches = data.batches(
                recipe.batch_size, rng=shuffle, augment=recipe.augment, crop=recipe.crop, flip=recipe.flip
            )
            for places, features in pooled(net, batches, self.device):
                yield view * len(data) + places, features

    def outputs(self, predictor: Predictor, tag: Tag) -> Tensor:
        """Return a predictor's outputs in manifest order, shape (n, classes), on the CPU."""
        data = self.data(tag)
        module = predictor.module.to(self.device)
        if predictor.reset is not None:
            predictor.reset()
        if not predictor.sees_test_images:
            module.eval()
        pieces = []
        with torch.no_grad():
            for batch in data.batches(self._batch_size):
                pieces.append(module(batch.images.to(self.device)).float().cpu())
        if predictor.reset is not None:
            predictor.reset()  # its state, which may be stored after this, is that of the fit
        return torch.cat(pieces) if pieces else torch.zeros(0, self.classes)

    def rng(self, stream: str) -> Generator:
        """Return a new generator: seed, source and stream fix its draws, the method's name does not."""
        return Generator().manual_seed(derive(self.seed, self.source, stream))

    def train(self, net: nn.Module, hooks: Hooks | None = None, *, order: str = "order", **recipe: Any) -> nn.Module:
        """Train ``net`` in place on ``id_train`` by the suite's recipe, overridden by keyword."""
        hooks = Hooks() if hooks is None else hooks
        return train(
            net,
            self.data("id_train"),
            hooks=hooks,
            recipe=merged(self.recipe, recipe),
            rng=self.rng,
            streams={tag: self.data(tag) for tag in hooks.streams},
            order=order,
            device=self.device,
            budget=self.budget,
            progress=self._progress,
        )

    def fitted(self, method: Method | str, *, repeat: int | None = None, **settings: Any) -> Fitted:
        """Return another method's fit on the same data; its reads and cost are this fit's, too.

        Its seed is this fit's or, with ``repeat``, that number: what a run of that seed has fitted is found again.

        Raises
        ------
        DataAccessError
            If it reads what this method did not declare.
        PluginError
            If a name cannot be looked up here, or a setting does not exist.
        """
        other = self._named(method) if isinstance(method, str) else method
        if settings:
            try:
                other = replace(other, **settings)  # type: ignore[type-var]
            except TypeError as error:
                raise PluginError(f"{type(other).__name__}: {error}") from None
        undeclared = other.reads - self.method.reads
        if undeclared:
            raise DataAccessError(
                f"{type(self.method).__name__} wraps {type(other).__name__}, which reads {listed(sorted(undeclared))}; "
                f"declare it: reads = frozenset({{{listed(sorted(other.reads | self.method.reads))}}})"
            )
        seed = self.seed if repeat is None else repeat
        if self._fit_other is not None:
            return self._fit_other(other, 0 if other.deterministic else seed)
        inner = self._beside(other, 0 if other.deterministic else seed)
        try:
            return as_fitted(other.fit(inner), type(other).__name__)
        finally:
            # What it read and cost before it failed was read and spent.
            self.reads |= inner.reads
            self.budget.add(inner.budget)

    def count(self, fit_id: str, facts: Mapping[str, Any], spent_seconds: float) -> None:
        """Add what a sub-fit read and cost, whether it was made now or before, and how long that took now.

        A fit that is asked for twice, or within two others (a probe, and fine-tuning that starts from it), costs once.
        """
        self.reads |= set(json.loads(facts.get("data_read", "[]")))
        if fit_id not in self.parts:
            self.candidates += json.loads(facts.get("candidates", "[]"))
        self.owed_seconds -= spent_seconds
        for part, own in own_budgets(fit_id, facts).items():
            if part not in self.parts:
                self.parts[part] = own
                self.budget.add(own)
                self.owed_seconds += own.seconds

    def example(self, most: int) -> Tensor:
        """Return a few of the source's images for trying a predictor, float in [0, 1], on the device."""
        split = self.val_split if len(self.val_split) else self.train_split
        return as_float(split.head(most).batch(np.arange(min(most, len(split)))).images).to(self.device)

    def _split(self, tag: Tag) -> Split:
        name = type(self.method).__name__
        if tag not in self.method.reads:
            declared = listed(sorted(self.method.reads | {tag}))
            raise DataAccessError(
                f"{name} reads '{tag}' and did not declare it; write reads = frozenset({{{declared}}}) in the class, "
                "which also says in which protocol its rows are compared"
            )
        if tag not in self._splits:
            raise DataAccessError(
                f"{name} reads '{tag}', which this suite does not give; it has {listed(self._splits)}"
            )
        self.reads.add(tag)
        return self._splits[tag]

    def _named(self, name: str) -> Method:
        if self._resolve is not None:
            return self._resolve(name)
        from tlbench.methods.resolve import resolve_model

        return resolve_model(name).method

    def _beside(self, other: Method, seed: int) -> FitContext:
        """Return what another method is given on the same data."""
        inner = copy.copy(self)
        inner.method, inner.reads, inner.budget, inner._counted = other, set(), Budget(), set()
        inner.parts = {}
        inner.class_info = inner._info = self._info.for_method(other, inner.reads)
        inner.seed = seed
        inner.backbone = cast(Backbone, _SeededBackbone(self._theta0, inner.rng))
        return inner


def own_budgets(fit_id: str, facts: Mapping[str, Any]) -> dict[str, Budget]:
    """Return what a stored fit, and every fit that it asked for, took beside those that they asked for, by id."""
    parts = {part: Budget(**own) for part, own in facts.get("parts", {}).items()}
    own = Budget(**{column.name: facts.get(column.name, column.default) for column in fields(Budget)})
    for part in parts.values():
        own.images_seen -= part.images_seen
        own.backward_passes -= part.backward_passes
        own.seconds -= part.seconds
    return {fit_id: own, **parts}


@final
class SplitData:
    """A split as a method sees it; implements ``methods.base.Data``.

    Parameters
    ----------
    split : Split
    hidden : str or None
        What the labels are, for the message, where they are out of reach.
    """

    def __init__(self, split: Split, hidden: str | None = None) -> None:
        self._split_, self._hidden = split, hidden

    def __len__(self) -> int:
        return len(self._split_)

    @property
    def ids(self) -> Tensor:
        return torch.arange(len(self))

    @property
    def labels(self) -> Tensor:
        if self._hidden is not None:
            raise DataAccessError(f"{self._hidden} are out of reach: a fit may see the target's images only")
        return torch.tensor(self._split_.labels, dtype=torch.int64)

    def batches(
        self,
        size: int,
        *,
        rng: Generator | None = None,
        views: int = 1,
        augment: str = "identity",
        crop: bool = False,
        flip: bool = False,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Yield one pass; images are float in [0, 1]; where labels are hidden they are -1, and names are numbers."""
        if views < 1:
            raise ValueError(f"expected at least one view, got {views}")
        places, pixels = one_pass(len(self), size, rng, drop_last=drop_last)
        for plain, pictures in self._pictures(places, pixels, views, crop=crop):
            resampled = crop and self._split_.originals is None
            shown = [augmented(images, pixels, augment=augment, crop=resampled, flip=flip) for images in pictures]
            labels, names = plain.labels, plain.names
            if self._hidden is not None:
                # A file's name often tells its class.
                labels, names = torch.full_like(labels, _HIDDEN), tuple(str(int(place)) for place in plain.ids)
            yield Batch(plain.ids.repeat(views), names * views, torch.cat(shown), labels.repeat(views), plain.scope)

    def _pictures(
        self, places: Iterator[NDArray[np.int64]], pixels: Generator, views: int, *, crop: bool
    ) -> Iterator[tuple[Batch, list[Tensor]]]:
        """Yield every batch and the uint8 images of its views: of whole pictures, where crops are cut from these."""
        split = self._split_
        if not crop or split.originals is None:
            for chosen in places:
                plain = split.batch(chosen)
                yield plain, [plain.images] * views
            return
        # A generator of their own: crops are drawn batches ahead of what else is done to the images.
        own = Generator().manual_seed(int(torch.randint(2**62, (1,), generator=pixels)))
        batches = list(places)
        cut = crops(split.originals, batches, split.manifest.image_size, own, views=views)
        for chosen, images in zip(batches, cut, strict=True):
            yield split.batch(chosen), images


@final
class _SeededBackbone:
    """A backbone whose new heads are drawn from the fit's stream ``head``; theta0 itself never depends on the seed."""

    def __init__(self, backbone: Backbone, rng: Callable[[str], Generator]) -> None:
        self._backbone, self._rng = backbone, rng

    def fresh(self, classes: int | None = None, *, generator: Generator | None = None) -> Network:
        if classes is None or generator is not None:
            return self._backbone.fresh(classes, generator=generator)
        with drawing_from(self._rng("head")):
            head = nn.Linear(self._backbone.width, classes)
        return self._backbone.with_head(head)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # copying asks for these before there is a backbone to ask
        return getattr(self._backbone, name)

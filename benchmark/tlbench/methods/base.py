"""The plug-in interface: what a transfer method is given, and what it gives back.

Nothing here imports torch at run time, so that ``import tlbench``, the registry and the reading wing
stay light. A complete plug-in is one class::

    class MyMethod(tlbench.Method):
        lr: float = 0.01

        def fit(self, context):
            return context.train(context.backbone.fresh(context.classes), lr=self.lr)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, dataclass_transform

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

    from tlbench.data.domain import Batch
    from tlbench.methods.cost import Cost
    from tlbench.models.backbone import Backbone
    from tlbench.suites.spec import Recipe

Output = Literal["logits", "log_probs", "scores"]
Tag = Literal[
    "id_train",
    "id_val",
    "target_unlabeled_train",
    "target_unlabeled_test",
    "target_labels",
    "aux_source",
    "pretraining",
    "source_models",
    "class_text",
    "class_hierarchy",
]
Need = Literal["batchnorm", "transformer", "taps", "source_head", "id_val", "hierarchy", "many_sources", "pretrained"]
TARGET_TAGS: frozenset[Tag] = frozenset({"target_unlabeled_train", "target_unlabeled_test", "target_labels"})


@dataclass(frozen=True)
class Predictor:
    """Something that maps images to outputs; a bare ``nn.Module`` means ``Predictor(module)``.

    Attributes
    ----------
    module : nn.Module
        Float images in [0, 1], NCHW, to outputs of shape (n, classes). Normalisation is inside.
    output : {"logits", "log_probs", "scores"}
        What the outputs are. Measures of probability exist for the first two only.
    differentiable : bool
        A claim: the engine compares the gradient with finite differences before any attack.
    adapts : bool
        Its state moves while it predicts; implies the tag ``target_unlabeled_test``.
    batch_dependent : bool
        An image's outputs depend on its company in the batch: never re-batched, refilled or folded. Implies the tag,
        too, for its company are test images.
    order_dependent : bool
        Outputs depend on the order of batches.
    reset : callable or None
        Called before every target and setting; a predictor that adapts must have one.
    forward_passes : float
        Forward passes through a backbone per image, so that ensembles are not compared for free.
    """

    module: nn.Module
    output: Output = "logits"
    differentiable: bool = True
    adapts: bool = False
    batch_dependent: bool = False
    order_dependent: bool = False
    reset: Callable[[], None] | None = None
    forward_passes: float = 1.0

    @property
    def sees_test_images(self) -> bool:
        """Whether an image's outputs depend on other test images, beside it or before it: a test-time method."""
        return self.adapts or self.batch_dependent or self.order_dependent


@dataclass(frozen=True)
class Fitted:
    """What a fit returns: one or several named predictors, rows ``model`` and ``model/variant``.

    Attributes
    ----------
    variants : mapping of str to Predictor, or to a callable that builds one
        Built lazily, one alive at a time.
    headline : str
        The variant ranked under the model's plain name, fixed before any measurement.
    state : mapping of str to Tensor, or None
        All tensors from which ``Method.build`` recreates the variants; None means the ``state_dict``
        of the only variant's module.
    recipe : mapping
        Small JSON values that ``Method.build`` needs besides.
    candidates : sequence of mapping
        What a search tried, as JSON values; recorded with the fit's cost, and of no effect on what it predicts.
    """

    variants: Mapping[str, Predictor | Callable[[], Predictor]]
    headline: str = "main"
    state: Mapping[str, Tensor] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    candidates: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if self.headline not in self.variants:
            raise ValueError(f"headline '{self.headline}' is not a variant: {', '.join(self.variants)}")

    def predictor(self, name: str | None = None) -> Predictor:
        """Return the named variant, or the headline, built."""
        made = self.variants[self.headline if name is None else name]
        return made if isinstance(made, Predictor) else made()


class Data(Protocol):
    """A split as a method sees it; ``labels`` raises ``DataAccessError`` where the tag hides them."""

    def __len__(self) -> int: ...

    @property
    def ids(self) -> Tensor:
        """Places in the split's manifest, int64, shape (n,)."""
        ...

    @property
    def labels(self) -> Tensor:
        """Labels, int64, shape (n,)."""
        ...

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
        """Yield one pass over the data: in manifest order, or shuffled by ``rng``.

        Images are float32 in [0, 1], what a network takes; labels that the tag hides are -1. With
        ``views`` > 1 every batch holds that many augmented views of its images, one after another
        (``views * n`` rows), with names and labels repeated.
        """
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """Pooled features of a split under theta0 in eval mode.

    Attributes
    ----------
    values : float32 tensor, shape (n, width), or (views, n, width)
    labels : int64 tensor, shape (n,)
        Absent (None) where the tag hides labels.
    """

    values: Tensor
    labels: Tensor | None


@dataclass
class Step:
    """One training step; hooks edit it in place.

    Attributes
    ----------
    net : Network
    images : float tensor in [0, 1], shape (n, 3, h, w)
    labels : int64 tensor, shape (n,)
    features, logits : tensor or None
        Filled in as the step proceeds.
    streams : mapping of Tag to (images, labels or None)
        A batch of every second stream that the hooks asked for.
    index, total : int
        This step and all steps of the run.
    loss : tensor or None
        The whole loss, after ``Hooks.loss``.
    optimizer : Optimizer or None
        The one that steps, for what must be scaled as its steps are: its rates and, a parameter, its state.
    """

    net: Any
    images: Tensor
    labels: Tensor
    streams: Mapping[Tag, Batch]
    index: int
    total: int
    features: Tensor | None = None
    logits: Tensor | None = None
    loss: Tensor | None = None
    optimizer: Optimizer | None = None


class Hooks:
    """Where a method changes the shared training loop; one mutable object a fit, may own modules.

    Attributes
    ----------
    streams : mapping of Tag to int
        Second streams of data with their own batch sizes (unlabelled target, replay).
    drop_last : bool
        Leave out the last, smaller batch of an epoch.
    cycle_epochs : int or None
        Length of a learning-rate cycle; ``on_cycle_end`` is called after each.
    """

    streams: Mapping[Tag, int] = {}
    drop_last: bool = False
    cycle_epochs: int | None = None

    def modules(self) -> Iterable[nn.Module]:
        """Return modules that train with the network, such as a discriminator."""
        return ()

    def param_groups(self, net: nn.Module) -> list[dict[str, Any]] | None:
        """Return the optimiser's parameter groups, or None for all that require a gradient."""
        return None

    def lr_factor(self, index: int, total: int) -> float | None:
        """Return what the learning rates of a step are multiplied by, or None for the trainer's own schedule.

        ``index`` counts from 0, ``total`` is the number of steps of the whole run.
        """
        return None

    def transform_batch(self, step: Step) -> None:
        """Change images and labels before the forward pass; second streams may join the batch here."""

    def on_features(self, step: Step) -> None:
        """Change features (and labels) between backbone and head; may enlarge both together."""

    def base_loss(self, step: Step) -> Tensor | None:
        """Return a loss that replaces cross-entropy, or None to keep it."""
        return None

    def loss(self, step: Step) -> Tensor | None:
        """Return a loss to be added, or None."""
        return None

    def after_step(self, step: Step) -> None:
        """Act after the optimiser's step: a proximal operator, a moving average."""

    def on_epoch_end(self, step: Step) -> None:
        """Act after an epoch."""

    def on_cycle_end(self, step: Step) -> bool:
        """Act after a learning-rate cycle; return True to reset the optimiser's state."""
        return False


@dataclass
class Budget:
    """What a fit has spent so far, counted by the trainer and the context, sub-fits included.

    Attributes
    ----------
    images_seen : int
        Training images passed forward, all epochs.
    backward_passes : int
        Images passed backward.
    parameters_trained : int
        Most parameters that received a gradient in one training.
    saved_bytes : int
        Most bytes kept for one backward pass.
    seconds : float
    """

    images_seen: int = 0
    backward_passes: int = 0
    parameters_trained: int = 0
    saved_bytes: int = 0
    seconds: float = 0.0

    def add(self, other: Budget) -> None:
        """Add the cost of a sub-fit; the larger of two peaks is kept."""
        self.images_seen += other.images_seen
        self.backward_passes += other.backward_passes
        self.seconds += other.seconds
        self.parameters_trained = max(self.parameters_trained, other.parameters_trained)
        self.saved_bytes = max(self.saved_bytes, other.saved_bytes)


class Context(Protocol):
    """All that a method may use.

    Attributes
    ----------
    backbone : Backbone
        The pretrained network: ``fresh(classes)`` makes a copy with a new head, ``state0`` is theta0.
    classes : int
    class_names : tuple of str
    class_info : mapping
        Side information on classes. ``"hierarchy"``, under the tag ``class_hierarchy``, is a
        ``tlbench.suites.hierarchy.Hierarchy``: ``nodes``, ``parents``, ``levels``, ``path_lengths()``. What the suite
        does not have is absent; undeclared raises ``DataAccessError``, a read is recorded.
    recipe : Recipe
        The suite's training recipe: the defaults of ``train``.
    device : str
    seed : int
    source : str
    target : str or None
        Only where the method reads the target.
    budget : Budget
    """

    backbone: Backbone
    classes: int
    class_names: tuple[str, ...]
    class_info: Mapping[str, Any]
    recipe: Recipe
    device: str
    seed: int
    source: str
    target: str | None
    budget: Budget

    def data(self, tag: Tag) -> Data:
        """Return data by tag; undeclared raises ``DataAccessError``, a read is recorded."""
        ...

    def features(self, tag: Tag, *, views: int | None = None, order: str = "order", **recipe: Any) -> Features:
        """Return the cached pooled features of ``data(tag)`` under theta0 in eval mode.

        With ``views`` they are those of the augmented images that ``train`` would show in its first so many epochs, by
        the suite's recipe and keywords: values of shape (views, n, width).
        """
        ...

    def outputs(self, predictor: Predictor, tag: Tag) -> Tensor:
        """Return a predictor's outputs on ``data(tag)``, shape (n, classes), in manifest order."""
        ...

    def rng(self, stream: str) -> Generator:
        """Return a new CPU generator: the same name and seed give the same draws in every method."""
        ...

    def train(self, net: nn.Module, hooks: Hooks | None = None, *, order: str = "order", **recipe: Any) -> nn.Module:
        """Train ``net`` in place on ``id_train`` by the suite's recipe and keywords; it returns in eval mode."""
        ...

    def fitted(self, method: Method | str, *, repeat: int | None = None, **settings: Any) -> Fitted:
        """Return another method's fit on the same data, from the store where it is there.

        Its seed is this fit's or, with ``repeat``, that number: the members of an ensemble are fits of several seeds.
        """
        ...


_ADDED_LATER = "added later"


def added_later(*, default: Any) -> Any:
    """Return the field of a setting that came after results were published.

    At its default it stands in no settings: fits and numbers of before keep their ids.

    >>> class Old(Method):
    ...     lr: float = 0.1
    ...     precision: str | None = added_later(default=None)
    >>> Old().settings(), Old(precision="bfloat16").settings()
    ({'lr': 0.1}, {'lr': 0.1, 'precision': 'bfloat16'})
    """
    return field(default=default, metadata={_ADDED_LATER: True})


@dataclass_transform(frozen_default=True, field_specifiers=(field, added_later))
class Method:
    """A transfer method: backbone and source data to predictor.

    A subclass is a frozen dataclass by itself: its annotated fields are its settings. State goes into
    what ``fit`` returns, never onto the method.
    """

    reads: ClassVar[frozenset[Tag]] = frozenset({"id_train", "id_val"})
    """Data tags that ``fit`` may read; a target tag means one fit per (source, target)."""
    requires: ClassVar[frozenset[Need]] = frozenset()
    """What must exist; unmet is ``not_applicable`` with its reason, before any compute."""
    version: ClassVar[int] = 1
    """Part of the fit id of a built-in method; raised whenever its numbers change."""
    deterministic: ClassVar[bool] = False
    """Whether the fit does not depend on the seed: fitted once, it stands for every seed."""
    control: ClassVar[bool] = False
    """Whether this is a sanity control: a reference line, never ranked."""
    one_network: ClassVar[bool] = True
    """Whether a fit is a single network of the backbone's own form, as far as is known before: soups average these."""
    pretrained: ClassVar[bool] = True
    """Whether the backbone's weights are used."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True)(cls)

    def fit(self, context: Context) -> nn.Module | Predictor | Fitted:
        """Return a predictor, or several, for one source and seed."""
        raise NotImplementedError(f"{type(self).__name__} does not define fit(self, context)")

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        """Recreate every variant of a stored fit without training.

        The default serves every method that returns one network of the form
        ``context.backbone.fresh(context.classes)``.
        """
        net = context.backbone.fresh(context.classes)
        net.load_state_dict(dict(state))
        return Fitted({"main": Predictor(net.eval())})

    def cost(self, recipe: Recipe) -> Cost | None:
        """Return what a fit does with images by the suite's recipe, for ``tlbench plan``; None if nobody knows.

        What the fits take that it ``asks_for`` is not in it.
        """
        return None

    def cost_on(self, recipe: Recipe, backbone: Backbone) -> Cost | None:
        """Return ``cost`` where the backbone decides it, too; nothing is computed with its weights."""
        return self.cost(recipe)

    def asks_for(self, recipe: Recipe, seed: int) -> Iterable[tuple[Method, int]]:
        """Return the methods that ``fit`` has fitted by ``context.fitted``, each with its seed, for ``tlbench plan``.

        Their fits are stored under their own names: the plan counts each once, whoever else asks for it, and not at all
        where it is stored. What they ask for in turn is theirs to say.

        Parameters
        ----------
        recipe : Recipe
            The suite's.
        seed : int
            Of this fit, and so of all that are asked for without ``repeat``.
        """
        return ()

    def null_config(self) -> tuple[Method, Method] | None:
        """Return a setting of this method and the simpler method that it then equals bit for bit, if there is one."""
        return None

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, nested methods as ``{"method": name, "settings": {...}}``.

        A field that was ``added_later`` is left out at its default.
        """
        if not is_dataclass(self):
            return {}
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if not self._as_before(f)}

    def _as_before(self, setting: Field[Any]) -> bool:
        return _ADDED_LATER in setting.metadata and getattr(self, setting.name) == setting.default


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return {"method": method_name(type(value)), "settings": value.settings()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def method_name(cls: type[Method]) -> str:
    """Return a method's name in the field's spelling: ``LinearProbe`` is ``linear-probe``.

    >>> method_name(type("LpFt", (Method,), {}))
    'lp-ft'
    """
    name = cls.__name__
    out = [name[:1].lower()]
    for before, letter in itertools.pairwise(name):
        out.append(f"-{letter.lower()}" if letter.isupper() and not before.isupper() else letter.lower())
    return "".join(out)

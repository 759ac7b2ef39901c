"""What a fit will do with images, declared before anything runs: what a forecast of its hours is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tlbench.errors import PluginError
from tlbench.suites.spec import Recipe

if TYPE_CHECKING:
    from tlbench.methods.base import Method
    from tlbench.models.backbone import Backbone

Kept = Literal["network", "head", "features", "nothing"]


@dataclass(frozen=True)
class Cost:
    """What one fit, and the predictor that it makes, take.

    Work (``trained``, ``forward``, ``views``, ``epochs``, ``validated``) is the fit's own, beside the fits that it
    ``asks_for``: these are fits like any other, have costs of their own, and are made once for all who ask for them.
    What is predicted and kept is all that the fit's predictors ask and its file holds, wherever the weights come from.

    Attributes
    ----------
    trained : float
        Passes over the training images forward and backward, through all weights: the epochs of fine-tuning.
    forward : float
        Passes over the training images forward only: features, or a head trained on a frozen backbone.
    views : float or None
        Passes for which the CPU makes new views of the training images; None for those that train.
    epochs : float or None
        Times that training goes through its images; None for those that train. Other where a head trains alone, be its
        features kept or computed anew in each of them, or where a step shows more than its batch to the network.
    validated : float
        Passes over ID-val, or a set of about that size, forward only.
    features : bool
        Whether one of the forward passes is for plain features under theta0, by ``context.features``: they are computed
        once for all fits that read them.
    recipe : Recipe or None
        What the views and the optimiser are like; None for the suite's.
    network : str or None
        Backbone that is trained and measured, where it is not the model's.
    predicts : float
        Passes through that network for every predicted image; 0 where it is not asked.
    keeps : {"network", "head", "features", "nothing"}
        What of a fit is stored: all weights, those of a head, the features of the training images, or a few numbers.
    networks : float
        How many times that much, where a fit keeps several.
    also_predicts : float
        Passes through the network for every image on which the variants that are not ranked are measured, too: the sum
        over these variants. These images are the clean sets' or, with ``--all-variants``, all.
    attacked : bool
        Whether attacks apply to the ranked predictor; to one that sees its batch they do not.
    assumed : bool
        Whether this is a guess, because the method does not say.
    variants : int
        Predictors of a fit, the ranked one included.
    also_attacked : int or None
        How many of those that are not ranked attacks apply to; None for all.
    sampled : int
        Training images that are passed forward and backward besides, as many however large the training set is; all
        of it where it has no more.

    Raises
    ------
    ValueError
        If a number is negative.
    """

    trained: float = 0.0
    forward: float = 0.0
    views: float | None = None
    validated: float = 0.0
    recipe: Recipe | None = None
    network: str | None = None
    predicts: float = 1.0
    keeps: Kept = "network"
    assumed: bool = False
    epochs: float | None = None
    features: bool = False
    networks: float = 1.0
    also_predicts: float = 0.0
    attacked: bool = True
    variants: int = 1
    also_attacked: int | None = None
    sampled: int = 0

    def __post_init__(self) -> None:
        predicted = (self.predicts, self.also_predicts)
        passes = (self.trained, self.forward, self.viewed, self.gone_through, self.validated, *predicted)
        if min(*passes, self.networks, self.sampled) < 0:
            raise ValueError(f"expected numbers of passes and networks that are not negative, got {passes}")
        if self.variants < 1 or not 0 <= self.others_attacked <= self.others:
            raise ValueError(
                f"expected at least one variant, and no more attacked ones than there are, got variants = "
                f"{self.variants} and also_attacked = {self.also_attacked}"
            )

    @property
    def viewed(self) -> float:
        """Passes for which new views are made."""
        return self.trained if self.views is None else self.views

    @property
    def gone_through(self) -> float:
        """Times that training goes through its images or their features.

        A gradient may reach all weights, or the head alone.
        """
        return self.trained if self.epochs is None else self.epochs

    @property
    def others(self) -> int:
        """Variants that are not ranked."""
        return self.variants - 1

    @property
    def others_attacked(self) -> int:
        """How many of these attacks apply to."""
        return self.others if self.also_attacked is None else self.also_attacked

    def already_made(self, **own: Any) -> Cost:
        """Return what a fit takes that asks for this one, predicts and keeps as it does, and works only as said.

        >>> Cost(trained=10, keeps="head").already_made(validated=1).trained
        0.0
        """
        nothing: dict[str, Any] = {"trained": 0.0, "forward": 0.0, "validated": 0.0, "sampled": 0}
        return replace(self, **{**nothing, "views": None, "epochs": None, "features": False, **own})


PROBE_COST = Cost(forward=1, validated=1, features=True, keeps="head")
"""Of a rule on frozen features: these are computed once."""


def recipe_cost(recipe: Recipe, *, cached: bool = True, cached_views: int | None = None) -> Cost:
    """Return the cost of the shared trainer under a recipe.

    Parameters
    ----------
    recipe : Recipe
    cached : bool
        Whether the features of a frozen backbone are computed once where nothing is augmented.
    cached_views : int or None
        Of how many augmented views of every image they are computed; None for a new one in every epoch.
    """
    if recipe.regime == "full":
        return Cost(trained=recipe.epochs, recipe=recipe)
    changing = recipe.crop or recipe.flip or recipe.augment != "identity"
    if changing and cached and cached_views is not None:
        views = min(cached_views, recipe.epochs)
        return Cost(forward=views, views=views, recipe=recipe, keeps="head", epochs=recipe.epochs)
    if changing or not cached:
        epochs = recipe.epochs
        return Cost(forward=epochs, views=epochs, recipe=recipe, keeps="head", epochs=epochs)
    return Cost(forward=1, features=True, recipe=recipe, keeps="head", epochs=recipe.epochs)


def cost_of(method: Method, recipe: Recipe, backbone: Backbone | None = None) -> Cost:
    """Return what a method declares, or what is assumed of one that declares nothing.

    The assumption is the suite's recipe on all weights, for as many epochs as the method has a setting of that name.

    Parameters
    ----------
    method : Method
    recipe : Recipe
        Of the suite.
    backbone : Backbone, optional
        On which the fit is to be made; without it, the method's ``cost`` is asked and not its ``cost_on``.

    Raises
    ------
    PluginError
        If the method's own ``cost`` or ``cost_on`` fails, or returns something else.
    """
    declare = getattr(method, "cost", None)
    # A plug-in may have a setting of this name.
    if callable(declare):
        shown = f"{type(method).__name__}.cost"
        on_backbone = getattr(method, "cost_on", None)
        try:
            declared = (
                declare(recipe) if backbone is None or not callable(on_backbone) else on_backbone(recipe, backbone)
            )
        except Exception as error:
            raise PluginError(f"{shown}: {type(error).__name__}: {error}") from error
        if isinstance(declared, Cost):
            return declared
        if declared is not None:
            raise PluginError(f"{shown} must return a Cost or None, got {declared!r}")
    epochs = getattr(method, "epochs", None)
    given = {"epochs": epochs} if isinstance(epochs, int) and not isinstance(epochs, bool) and epochs >= 0 else {}
    return replace(recipe_cost(recipe.model_copy(update={**given, "regime": "full"})), assumed=True)


Asked = tuple["Method", int]
"""A method, and the seed under which its fit is asked for."""


def asked_by(around: Sequence[Asked], recipe: Recipe) -> list[Asked]:
    """Return the fits that a fit's method declares to ask for; the seed of a deterministic one is 0.

    Parameters
    ----------
    around : sequence of (Method, int)
        The fit itself, last, after those within which it is asked for.
    recipe : Recipe
        Of the suite.

    Raises
    ------
    PluginError
        If the method's own ``asks_for`` fails, gives something else, or leads back to a fit that asks.
    """
    method, seed = around[-1]
    declare = getattr(method, "asks_for", None)
    if not callable(declare):
        return []  # a plug-in may have a setting of this name
    shown = f"{type(method).__name__}.asks_for"
    try:
        asked = [(other, 0 if other.deterministic else own) for other, own in declare(recipe, seed)]
    except Exception as error:
        raise PluginError(f"{shown}: {type(error).__name__}: {error}") from error
    for one in asked:
        if one in around:
            raise PluginError(f"{shown}: {type(one[0]).__name__} asks for its own fit")
    return asked


def whole_cost(method: Method, recipe: Recipe, backbone: Backbone | None = None) -> Cost:
    """Return the work of a fit and of all that it asks for, each once; what is predicted and kept is the fit's own."""
    within: list[Asked] = []

    def ask(*around: Asked) -> None:
        for one in asked_by(around, recipe):
            if one not in within:
                within.append(one)
                ask(*around, one)

    ask((method, 0))
    return together([cost_of(one, recipe, backbone) for one in (method, *(other for other, _ in within))])


def together(costs: Sequence[Cost]) -> Cost:
    """Return the work of several fits or trainings on the same data; what is predicted and kept is the first's.

    Plain features that more than one of them reads are computed once.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not costs:
        raise ValueError("expected at least one cost")
    readers = sum(cost.features for cost in costs)
    return replace(
        costs[0],
        trained=sum(cost.trained for cost in costs),
        forward=sum(cost.forward for cost in costs) - max(0, readers - 1),
        views=sum(cost.viewed for cost in costs),
        epochs=sum(cost.gone_through for cost in costs),
        validated=sum(cost.validated for cost in costs),
        sampled=sum(cost.sampled for cost in costs),
        features=readers > 0,
        assumed=any(cost.assumed for cost in costs),
    )

"""Every condition by kind and name. Names are known without PyTorch; what computes is imported when it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, TypedDict, cast

from tlbench.errors import SuiteError, UnknownNameError, listed, nearest

if TYPE_CHECKING:
    from tlbench.conditions.attacks.attack import Norm
    from tlbench.conditions.attacks.ladder import Mode
    from tlbench.conditions.base import Condition

# A condition's version stands on every measurement of it: raise it with any change that moves a pixel or a verdict.
VERSIONS: Final[dict[str, dict[str, int]]] = {
    "clean": {"clean": 1},
    "transform": {"shift": 1, "rotation": 1, "scale": 1},
    "corruption": {
        "gaussian_noise": 2,
        "shot_noise": 2,
        "impulse_noise": 2,
        "speckle_noise": 2,
        "gaussian_blur": 2,
        "glass_blur": 2,
        "defocus_blur": 2,
        "motion_blur": 1,
        "zoom_blur": 2,
        "fog": 1,
        "frost": 1,
        "frost-generated": 1,
        "snow": 1,
        "spatter": 1,
        "contrast": 1,
        "brightness": 1,
        "saturate": 1,
        "jpeg_compression": 1,
        "pixelate": 1,
        "elastic_transform": 2,
    },
    "attack": {
        "apgd-dlr": 1,
        "apgd-ce": 1,
        "apgd-t": 1,
        "fab-t": 1,
        "square": 1,
        "autoattack": 1,
        "foolbox-linf-pgd": 2,
        "foolbox-l2-pgd": 2,
        "foolbox-boundary": 1,
        "foolbox-hopskipjump": 1,
    },
}

# What only some attacks know, and its default.
_RESTARTED: Final = ("apgd-ce", "apgd-dlr", "apgd-t")
_AIMING: Final = ("apgd-t", "fab-t", "autoattack")
_ASKING: Final = ("square", "autoattack", "foolbox-boundary", "foolbox-hopskipjump")
_TARGETS: Final = 9
_QUERIES: Final = 5000


class _Shared(TypedDict):
    """Options of every attack that goes through epsilons one by one."""

    mode: Mode
    audit: float


def condition_names() -> dict[str, tuple[str, ...]]:
    """Return the names of all conditions by kind.

    >>> condition_names()["transform"]
    ('shift', 'rotation', 'scale')
    """
    return {kind: tuple(versions) for kind, versions in VERSIONS.items()}


def condition_version(kind: str, name: str) -> int:
    """Return the version of a condition, 1 or more.

    Raises
    ------
    UnknownNameError
        If there is no such kind, or no such condition of the kind.

    Examples
    --------
    >>> condition_version("clean", "clean")
    1
    """
    if kind not in VERSIONS:
        raise UnknownNameError(
            f"expected a kind of condition ({listed(VERSIONS)}), got '{kind}'{nearest(kind, VERSIONS)}"
        )
    if name not in VERSIONS[kind]:
        raise UnknownNameError(f"there is no {kind} named '{name}'{nearest(name, VERSIONS[kind])}")
    return VERSIONS[kind][name]


def check_available(kind: str, name: str) -> None:
    """Check, in no time and without PyTorch, that what a condition needs beyond tlbench is on this machine.

    Raises
    ------
    DataError
        If it is not, with the way out.
    """
    if (kind, name) == ("corruption", "frost"):
        from tlbench.conditions.corruptions.frost import check_photographs

        check_photographs()


def build_condition(
    kind: str,
    name: str,
    *,
    severities: Sequence[int] | None = None,
    steps: Sequence[float] | None = None,
    norm: str | None = None,
    epsilons: Sequence[float] | None = None,
    iterations: int = 100,
    mode: str = "fast",
    restarts: int = 1,
    targets: int = _TARGETS,
    queries: int = _QUERIES,
    audit: float = 0.0,
    table: int | None = None,
    image_size: int = 64,
) -> Condition:
    """Build a condition from its description.

    Parameters
    ----------
    kind : {"clean", "transform", "corruption", "attack"}
    name : str
        See `condition_names`.
    severities : sequence of int, optional
        Of a corruption, 1 to 5; all by default.
    steps : sequence of float
        Of a transform: pixels at a side of 64, degrees or factors.
    norm : {"linf", "l2"}, optional
        Of an attack; ``linf`` by default, or what the name says.
    epsilons : sequence of float
        Of an attack, in units of the [0, 1] pixel range.
    iterations, mode, audit
        Of an attack; see `tlbench.conditions.attacks.attack.Attack`.
    restarts, targets, queries
        Of the attacks that have them: runs from different starts, wrong classes to aim at, questions about an image.
    table : {32, 64, 224}, optional
        Of a corruption: the parameters to use whatever the side of the images.
    image_size : int
        Side of the images in pixels; names a corruption's table where ``table`` is None.

    Returns
    -------
    Condition

    Raises
    ------
    UnknownNameError
        If there is no such condition.
    SuiteError
        If an option that the condition needs is missing, or has a value that means nothing.
    """
    condition_version(kind, name)
    # Imported here so that a suite can be read, and its names checked, without PyTorch.
    if kind == "clean":
        from tlbench.conditions.clean import Clean

        return Clean()
    try:
        if kind == "transform":
            from tlbench.conditions.transforms import Transform

            return Transform(name, tuple(_given(kind, name, "steps", steps)))
        if kind == "corruption":
            from tlbench.conditions.corruptions.corruption import Corruption

            chosen = (1, 2, 3, 4, 5) if severities is None else tuple(severities)
            return Corruption(name, chosen, table=table, image_size=image_size)
        if restarts != 1 and name not in _RESTARTED:
            raise ValueError(f"it runs once, not {restarts} times; leave it out, restarts are for {listed(_RESTARTED)}")
        _check_means(name, "targets", targets != _TARGETS, _AIMING)
        _check_means(name, "queries", queries != _QUERIES, _ASKING)
        given = _given(kind, name, "epsilons", epsilons)
        # Names of norms and modes are checked by the attack itself.
        shared: _Shared = {"mode": cast("Mode", mode), "audit": audit}
        return _attack(name, cast("Norm | None", norm), given, shared, iterations, restarts, targets, queries)
    except ValueError as error:
        raise SuiteError(f"{kind} '{name}': {error}") from error


def _attack(
    name: str,
    norm: Norm | None,
    epsilons: Sequence[float],
    shared: _Shared,
    iterations: int,
    restarts: int,
    targets: int,
    queries: int,
) -> Condition:
    # Each is imported alone: foolbox takes a second, and most suites attack without it.
    match name:
        case "apgd-ce" | "apgd-dlr" | "apgd-t":
            from tlbench.conditions.attacks.apgd import APGD

            return APGD(
                name, norm or "linf", epsilons, iterations=iterations, restarts=restarts, targets=targets, **shared
            )
        case "fab-t":
            from tlbench.conditions.attacks.fab import FAB

            return FAB(name, norm or "linf", epsilons, iterations=iterations, targets=targets)
        case "square":
            from tlbench.conditions.attacks.square import Square

            return Square(name, norm or "linf", epsilons, queries=queries, **shared)
        case "autoattack":
            from tlbench.conditions.attacks.autoattack import AutoAttack

            return AutoAttack(
                name, norm or "linf", epsilons, iterations=iterations, targets=targets, queries=queries, **shared
            )
        case "foolbox-boundary" | "foolbox-hopskipjump":
            from tlbench.conditions.attacks.decision import FoolboxDecision

            return FoolboxDecision(name, norm or "l2", epsilons, queries=queries)
    from tlbench.conditions.attacks.foolbox import FoolboxPGD

    attack = FoolboxPGD(name, epsilons, iterations=iterations, **shared)
    if norm not in (None, attack.norm):
        raise ValueError(f"its norm is '{attack.norm}', not '{norm}'; write norm = \"{attack.norm}\"")
    return attack


def _check_means(name: str, option: str, given: bool, known_to: Sequence[str]) -> None:
    if given and name not in known_to:
        raise ValueError(f"'{option}' means nothing to {name}; leave it out, it is for {listed(known_to)}")


def _given(
    kind: str, name: str, option: Literal["steps", "epsilons"], value: Sequence[float] | None
) -> Sequence[float]:
    if value is None:
        raise SuiteError(f"{kind} '{name}': expected {option}, got none; give {option} = [...]")
    return value

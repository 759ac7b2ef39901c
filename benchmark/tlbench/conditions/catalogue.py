"""Every condition by kind and name. Names are known without PyTorch; what computes is imported when it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, cast

from tlbench.errors import SuiteError, UnknownNameError, listed, nearest

if TYPE_CHECKING:
    from tlbench.conditions.base import Condition

# A condition's version stands on every measurement of it: raise it with any change that moves a pixel or a verdict.
VERSIONS: Final[dict[str, dict[str, int]]] = {
    "clean": {"clean": 1},
    "transform": {"shift": 1, "rotation": 1, "scale": 1},
    "corruption": {
        "gaussian_noise": 1,
        "shot_noise": 1,
        "impulse_noise": 1,
        "speckle_noise": 1,
        "gaussian_blur": 1,
        "glass_blur": 1,
        "defocus_blur": 1,
        "motion_blur": 1,
        "zoom_blur": 1,
        "fog": 1,
        "snow": 1,
        "spatter": 1,
        "contrast": 1,
        "brightness": 1,
        "saturate": 1,
        "jpeg_compression": 1,
        "pixelate": 1,
        "elastic_transform": 1,
    },
    "attack": {"apgd-dlr": 1, "apgd-ce": 1, "foolbox-linf-pgd": 1, "foolbox-l2-pgd": 1},
}


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
    iterations, mode, restarts
        Of an attack; see `tlbench.conditions.attacks.attack.Attack` and ``apgd.APGD``.
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
        return _attack(name, norm, _given(kind, name, "epsilons", epsilons), iterations, mode, restarts)
    except ValueError as error:
        raise SuiteError(f"{kind} '{name}': {error}") from error


def _attack(
    name: str, norm: str | None, epsilons: Sequence[float], iterations: int, mode: str, restarts: int
) -> Condition:
    from tlbench.conditions.attacks.attack import Mode, Norm

    # Names of norms and modes are checked by the attack itself.
    mode_ = cast(Mode, mode)
    if name.startswith("apgd-"):
        from tlbench.conditions.attacks.apgd import APGD

        return APGD(name, cast(Norm, norm or "linf"), epsilons, iterations=iterations, mode=mode_, restarts=restarts)
    from tlbench.conditions.attacks.foolbox import FoolboxPGD

    attack = FoolboxPGD(name, epsilons, iterations=iterations, mode=mode_)
    if norm not in (None, attack.norm):
        raise ValueError(f"its norm is '{attack.norm}', not '{norm}'")
    if restarts != 1:
        raise ValueError(f"it runs from one start, not {restarts}")
    return attack


def _given(
    kind: str, name: str, option: Literal["steps", "epsilons"], value: Sequence[float] | None
) -> Sequence[float]:
    if value is None:
        raise SuiteError(f"{kind} '{name}': expected {option}, got none; give {option} = [...]")
    return value

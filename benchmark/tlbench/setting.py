"""One condition at one strength: the columns by which a record says what was done to the images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Setting:
    """A condition at one severity or epsilon.

    Attributes
    ----------
    condition : str
        ``"clean"``, or the name of a transform, corruption or attack (``"shift"``, ``"contrast"``, ``"apgd-dlr"``).
    severity : float or None
        1 to 5 for a corruption; the step (pixels, degrees or factor) for a transform.
    norm : str or None
        ``"linf"`` or ``"l2"`` for an attack.
    epsilon : float or None
        Radius of an attack, in units of the [0, 1] pixel range.
    """

    condition: str
    severity: float | None = None
    norm: str | None = None
    epsilon: float | None = None

    def __str__(self) -> str:
        if self.epsilon is not None:
            return f"{self.condition} {self.norm} {self.epsilon * 255:g}/255"
        return self.condition if self.severity is None else f"{self.condition} {self.severity:g}"


CLEAN = Setting("clean")

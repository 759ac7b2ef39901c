"""A suite's data as its file declares them: sizes without images, to plan before anything has been fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlbench.errors import DataError
from tlbench.seeds import digest
from tlbench.suites.spec import PART_OF_ROLE, Pair, Part, Role, Suite


@dataclass(frozen=True)
class Declared:
    """A split that nobody has seen: how many images it should have, and an id that no real split has."""

    n: int
    hash: str

    def __len__(self) -> int:
        return self.n


class DeclaredSizes:
    """Stands in for ``SuiteData`` where only sizes are asked for.

    Images that few shots leave are counted as the shots of every class, at most all: classes with fewer images make
    the true number smaller. A pair's subset of classes is counted as all of them.

    Parameters
    ----------
    suite : Suite
    unknown : int, optional
        Taken for the images of a domain whose counts the suite does not declare; None makes that an error.
    """

    def __init__(self, suite: Suite, *, unknown: int | None = None) -> None:
        self.suite, self._unknown = suite, unknown

    def split(self, task: str, domain: str, part: Part) -> Declared:
        """Return a part of a domain, capped as the split rule says.

        Raises
        ------
        DataError
            If the suite declares no counts for the domain, and nothing stands in for them.
        """
        counts = self.suite.tasks[task].domains[domain].counts
        if counts is None and self._unknown is not None:
            return Declared(self._unknown, digest("declared", self.suite.hash, task, domain, part))
        if counts is None:
            raise DataError(
                f"{task}/{domain}: the suite declares no counts, so its size is not known without its data; "
                f"--data-root says where they are"
            )
        rule, classes = self.suite.split_of(task), len(self.suite.tasks[task].classes or ())
        of_class = {"train": rule.max_train_per_class, "val": rule.max_val_per_class, "test": rule.max_test_per_class}
        in_all = {"train": rule.max_train, "val": rule.max_val, "test": rule.max_test}
        n: int = getattr(counts, part)
        if (a_class := of_class[part]) is not None and classes:
            n = min(n, a_class * classes)
        if (most := in_all[part]) is not None:
            n = min(n, max(most, classes) if part == "train" else most)
        return Declared(n, digest("declared", self.suite.hash, task, domain, part))

    def training(
        self, task: str, sources: tuple[str, ...], part: Literal["train", "val"], shots: Literal["full"] | int = "full"
    ) -> Declared:
        """Return what a method trains or validates on."""
        parts = [self.split(task, source, part) for source in sources]
        classes = len(self.suite.tasks[task].classes or ())
        sizes = [len(own) if shots == "full" or not classes else min(len(own), shots * classes) for own in parts]
        return Declared(sum(sizes), digest("declared", [own.hash for own in parts], shots))

    def measured(
        self,
        task: str | Pair,
        sources: tuple[str, ...],
        target: str,
        role: Role,
        classes: Sequence[str] | None = None,
        max_images: int | None = None,
    ) -> Declared:
        """Return what a predictor is measured on."""
        name = task.task if isinstance(task, Pair) else task
        domains = (target,) if role == "ood-test" else sources
        parts = [self.split(name, domain, PART_OF_ROLE[role]) for domain in domains]
        n = sum(map(len, parts))
        chosen = None if classes is None else list(classes)
        return Declared(
            n if max_images is None else min(n, max_images),
            digest("declared", [own.hash for own in parts], role, chosen, max_images),
        )

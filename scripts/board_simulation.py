"""Simulate the board's rules and write what they keep into its page: ``python scripts/board_simulation.py [--check]``.

``--check`` simulates nothing: it exits with 1 where the page's table is not of this version of the simulation. The full
simulation takes a few minutes of one core; the tests run smaller ones of the same functions.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tlbench.leaderboard.generalisation import over_tasks
from tlbench.leaderboard.intervals import resample
from tlbench.leaderboard.measured import Measured, Part
from tlbench.leaderboard.prepared import ROW, Row
from tlbench.leaderboard.ties import LEVEL, compare_over_draws, compare_over_tasks
from tlbench.leaderboard.units import Margin, Units

ROOT: Final = Path(__file__).parents[1]
BLOCK: Final = re.compile(r"(<!-- simulation -->\n)(.*?)(<!-- /simulation -->)", re.DOTALL)
_UNEQUAL: Final = (1.0, 1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 3.0, 4.0, 5.0)


@dataclass(frozen=True)
class World:
    """Where scores come from: accuracies of rows on pairs of domains.

    A row's number on a pair is the sum of its own level, of effects that all rows share (of the task, skewed; of the
    target domain), of what the row alone does on this task and this target, and of noise.

    Attributes
    ----------
    rows, tasks : int
    rows_differ : {"no", "in spread", "in skewness"}
        Whether half of the rows are ten times steadier over tasks than the others; in skewness, what the others do is
        skewed.
    skewed : bool
        Whether the tasks' levels, and what a row alone does on a task, are skewed (exponential), else normal.
    unequal : bool
        Whether tasks differ in how far rows are apart on them, up to fivefold.
    better : tuple of float
        Added to the level of the first rows, in standard deviations over tasks of the difference of two rows.
    """

    rows: int = 8
    tasks: int = 10
    rows_differ: str = "no"
    skewed: bool = True
    unequal: bool = True
    better: tuple[float, ...] = ()

    def scores(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return scores by task, shape (rows, tasks)."""
        spread = np.resize(_UNEQUAL, self.tasks) if self.unequal else np.ones(self.tasks)
        shape = (self.rows, self.tasks)
        own = rng.exponential(size=shape) - 1 if self.skewed else rng.normal(size=shape)
        if self.rows_differ == "in spread":
            own = own * rng.choice([-1.0, 1.0], shape)  # symmetric, with tails as long as before
        if self.rows_differ != "no":
            own[self.rows // 2 :] *= 0.1
        level = rng.exponential(size=self.tasks)
        # The same draws with or without skewness: an exponential number, or the normal one of its quantile.
        task = 0.1 * (level if self.skewed else 1 + ndtri(-np.expm1(-level))) * spread
        scores = 0.5 + task + 0.02 * spread * own
        for column in range(self.tasks):
            domains = 2 + column % 4
            target, of_row = 0.05 * rng.normal(size=domains), 0.01 * rng.normal(size=(self.rows, domains))
            noise = 0.005 * rng.normal(size=(self.rows, domains * (domains - 1)))
            # Every target is met from each of the other domains: the mean over pairs is that over targets.
            scores[:, column] += (target + of_row).mean(axis=1) + noise.mean(axis=1)
        ahead = np.zeros(self.rows)
        ahead[: len(self.better)] = self.better
        return np.asarray(scores + ahead[:, None] * self.unit)

    @property
    def unit(self) -> float:
        """Standard deviation over tasks of the difference of two rows that are alike."""
        spread = np.resize(_UNEQUAL, self.tasks) if self.unequal else np.ones(self.tasks)
        domains = 2 + np.arange(self.tasks) % 4
        variances = (0.02 * spread) ** 2 + 0.01**2 / domains + 0.005**2 / (domains * (domains - 1))
        return float(np.sqrt(2 * variances.mean()))


@dataclass(frozen=True)
class Found:
    """A share that was counted.

    >>> str(Found(5, 100))
    '5.0 % ± 2.2'
    """

    count: int
    of: int

    @property
    def share(self) -> float:
        return self.count / self.of

    @property
    def error(self) -> float:
        """Its Monte-Carlo standard error."""
        return float(np.sqrt(max(self.share * (1 - self.share), 1 / self.of) / self.of))

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % ± {100 * self.error:.1f}"


def false_differences(world: World, runs: int, seed: int = 0) -> Found:
    """Return how often any two rows that are alike are told apart."""
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(runs):
        compared = compare_over_tasks(world.scores(rng))
        alike = compared.first >= len(world.better)
        count += bool((compared.adjusted_p[alike] <= LEVEL).any())
    return Found(count, runs)


def detected(world: World, runs: int, seed: int = 0) -> Found:
    """Return how often the first row, better than the second, is told apart from it."""
    rng = np.random.default_rng(seed)
    return Found(sum(compare_over_tasks(world.scores(rng)).adjusted_p[0] <= LEVEL for _ in range(runs)), runs)


def found_with(world: World, power: float, runs: int, seed: int = 0) -> float:
    """Return the difference that is found so often, in the world's units, by bisection."""
    low, high = 0.0, 12.0
    for _ in range(8):
        middle = (low + high) / 2
        enough = detected(replace(world, better=(middle,)), runs, seed).share >= power
        low, high = (low, middle) if enough else (middle, high)
    return (low + high) / 2


def covered_by_tasks(world: World, runs: int, seed: int = 0) -> Found:
    """Return how often the generalisation interval of a row holds its mean over all tasks that there might be."""
    rng = np.random.default_rng(seed)
    spread = np.resize(_UNEQUAL, world.tasks) if world.unequal else np.ones(world.tasks)
    truth = 0.5 + 0.1 * spread.mean()
    count = 0
    for _ in range(runs):
        low, high = over_tasks(world.scores(rng)[0])
        count += low <= truth <= high
    return Found(count, runs)


@dataclass(frozen=True)
class Images:
    """Where outcomes of images come from, on four pairs of two sources and two targets.

    Attributes
    ----------
    rows, seeds, clusters, images : int
        Images of each cluster.
    seed_spread : float
        Of what a seed does to a fit; the images' clusters spread by 0.1, what a row alone does on one by 0.05.
    pure_noise : bool
        Whether an image that one seed gets wrong says nothing of the others: the worst case of the crossed bootstrap.
    """

    rows: int = 6
    seeds: int = 3
    clusters: int = 30
    images: int = 5
    seed_spread: float = 0.02
    pure_noise: bool = False
    names: tuple[Row, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(tuple(f"{column}{row}" for column in ROW) for row in range(self.rows))
        object.__setattr__(self, "names", names)

    def draw(self, rng: np.random.Generator) -> tuple[Measured, dict[Row, float]]:
        """Return what the images contribute, and the scores; every row's true score is 0.5."""
        targets = {}
        for target in ("c", "d"):
            shared = 0.1 * rng.normal(size=self.clusters)
            alone = 0.05 * rng.normal(size=(self.rows, self.clusters))
            of_image = 0.3 * rng.normal(size=(self.rows, self.clusters, self.images))
            targets[target] = 0 if self.pure_noise else shared[:, None] + alone[:, :, None] + of_image
        fits = {source: self.seed_spread * rng.normal(size=(self.rows, self.seeds)) for source in ("a", "b")}
        parts = []
        scores = dict.fromkeys(self.names, 0.0)
        for source, target in (("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")):
            noise = 0.3 * rng.normal(size=(self.seeds, self.rows, self.clusters, self.images))
            values = 0.5 + targets[target] + fits[source].T[:, :, None, None] + noise
            units = Units(
                Margin(("simulated", target), np.zeros(self.clusters, np.int64), ("",)),
                np.repeat(np.arange(self.clusters), self.images),
            )
            sums = 0.25 * values.sum(axis=3)
            part = Part(("t", source), units)
            for number, row in enumerate(self.names):
                part.sums[row] = {seed: sums[seed, number] for seed in range(self.seeds)}
                scores[row] += 0.25 * float(values[:, number].mean())
            parts.append(part)
        return Measured(tuple(parts), {}), scores


def covered_by_images(world: Images, runs: int, *, draws: int = 1000, seed: int = 0) -> tuple[Found, Found]:
    """Return how often the first row's measurement interval holds the truth, and how often any two are told apart."""
    rng = np.random.default_rng(seed)
    inside = apart = 0
    for _ in range(runs):
        measured, scores = world.draw(rng)
        found = resample(measured, scores, dict.fromkeys(world.names, tuple(range(world.seeds))), draws=draws)
        low, high = found.intervals()[world.names[0]]
        inside += low <= 0.5 <= high
        compared = compare_over_draws(found.values, found.samples, found.degrees_of_differences())
        apart += bool((compared.adjusted_p <= LEVEL).any())
    return Found(inside, runs), Found(apart, runs)


def table(runs: int, say: Callable[[str], None] = lambda line: None) -> str:
    """Return the simulation's tables as Markdown."""
    lines = [
        f"{runs:,} simulated boards a cell (of the measurement interval half as many, and a fifth for each step of the "
        "search for what is found); ± is the Monte-Carlo standard error.",
        "",
        "How often any two rows that are alike are told apart (at most 5 % is promised):",
        "",
        "| rows are | tasks | 2 rows | 8 rows | 20 rows |",
        "| :-- | --: | --: | --: | --: |",
    ]
    worlds = {
        "alike; tasks skewed and unequal": World(),
        "alike; tasks normal and equal": World(skewed=False, unequal=False),
        "of unequal spread": World(rows_differ="in spread"),
        "alike but for three that are better": World(better=(4.0, 3.0, 2.0)),
        "of unequal skewness: **not** promised": World(rows_differ="in skewness"),
    }
    for words, world in worlds.items():
        for tasks in (6, 10):
            cells = [
                "–" if rows <= len(world.better) + 1 else
                str(false_differences(replace(world, rows=rows, tasks=tasks), runs))
                for rows in (2, 8, 20)
            ]  # fmt: skip
            lines.append(f"| {words} | {tasks} | {' | '.join(cells)} |")
            say(lines[-1])
    lines += [
        "",
        "The difference that is found with 80 %, in standard deviations over tasks of the difference of two rows "
        "(and in points of accuracy where that deviation is 3 points):",
        "",
        "| tasks | 2 rows | 8 rows | 20 rows |",
        "| :-- | --: | --: | --: |",
    ]
    for words, world in {"10, equal": World(skewed=False, unequal=False), "10, skewed and unequal": World()}.items():
        at = [found_with(replace(world, rows=rows), 0.8, max(runs // 5, 100)) for rows in (2, 8, 20)]
        lines.append(f"| {words} | {' | '.join(f'{d:.1f} ({3 * d:.0f})' for d in at)} |")
        say(lines[-1])
    lines += [
        "",
        "How often a 95 % interval holds the truth, and how often the measurement bootstrap tells any of six rows "
        "apart that are alike:",
        "",
        "| interval | of | holds | told apart |",
        "| :-- | :-- | --: | --: |",
    ]
    for words, world in {"normal, equal": World(skewed=False, unequal=False), "skewed, unequal": World()}.items():
        for tasks in (6, 10):
            held = covered_by_tasks(replace(world, tasks=tasks), runs)
            lines.append(f"| generalisation | {tasks} tasks, {words} | {held} | |")
            say(lines[-1])
    for words, images in {
        "3 seeds, 30 clusters of 5 images": Images(),
        "3 seeds, 8 clusters of 5 images": Images(clusters=8),
        "3 seeds that differ much": Images(seed_spread=0.1),
        "1 seed, 30 clusters": Images(seeds=1, seed_spread=0.0),
        "3 seeds, images of pure noise": Images(pure_noise=True),
    }.items():
        held, apart = covered_by_images(images, max(runs // 2, 100))
        lines.append(f"| measurement | {words} | {held} | {apart} |")
        say(lines[-1])
    return "\n".join(lines)


def version() -> str:
    """Return a word that changes with this file and the rules that it simulates, but with no comment or line break."""
    package = ROOT / "benchmark" / "tlbench"
    files = [Path(__file__), *(package / "leaderboard" / f"{name}.py" for name in ("ties", "intervals"))]
    code = "".join(ast.dump(ast.parse(path.read_text(encoding="utf-8"))) for path in files)
    return hashlib.sha256(code.encode("utf-8")).hexdigest()[:12]


def main() -> int:
    """Rewrite the page, or with ``--check`` exit with 1 where it is of another version."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="simulate nothing; exit 1 if the page is of another version"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "board.md")
    parser.add_argument("--runs", type=int, default=1500)
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        print(f"{options.page}: expected markers <!-- simulation --> and <!-- /simulation -->", file=sys.stderr)
        return 2
    stamp = f"<!-- version {version()} -->"
    if options.check:
        if stamp in text:
            return 0
        print(f"{options.page}: the table is stale; run python scripts/board_simulation.py", file=sys.stderr)
        return 1
    made = f"\n{table(options.runs, say=print)}\n\n{stamp}\n"
    options.page.write_text(BLOCK.sub(lambda found: f"{found[1]}{made}{found[3]}", text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The options that several commands share, and how their words are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypedDict

import typer

from tlbench.errors import UsageError

RUNS = Path("tlbench-runs")
_LONGEST_NUMBER = 18  # digits, so that it fits a 64-bit column

SuiteOption = Annotated[str, typer.Option("--suite", help="one of `tlbench suites list`, or a file of yours (.toml)")]
MODEL = typer.Option(
    "--model",
    help="one of `tlbench models list`, temperature(lp-ft), mymodel.py[:Class], package.module:Class, card.toml",
)
ModelOption = Annotated[str, MODEL]
BackboneOption = Annotated[
    str | None,
    typer.Option("--backbone", help="pretrained network, such as small-cnn or timm:resnet18; default: the suite's"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="a setting of the method; repeatable; base.lr=... reaches inside"),
]
NameOption = Annotated[str | None, typer.Option("--name", help="row of the board; default: the model in this syntax")]
GridOption = Annotated[
    bool,
    typer.Option(
        "--grid",
        help="every row of the suite's grid: backbones, shots, regimes and augmentations, "
        "each with learning rate and epochs selected on ID-val",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", metavar="KEY=VALUE,...", help="one point of the suite's grid; --set takes any value"),
]
SeedsOption = Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="default: the suite's")]
ShotsOption = Annotated[
    str | None, typer.Option("--shots", metavar="K,...", help="training images a class, or full; default: the suite's")
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KEY=NAME,...", help="a part of the suite by task, source or target; repeatable"),
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="the I-th of N equal parts of the plan, 1 to N")
]
MetricsOption = Annotated[
    str | None,
    typer.Option("--metrics", metavar="A,B", help="metrics whose conditions are to be measured; default: all"),
]


def _folder(text: str) -> Path:
    if not text.strip():
        raise UsageError("--data-root: expected a folder, got an empty word; is a variable of the shell not set?")
    return Path(text)


DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root", metavar="<path>", parser=_folder, help="folder of the data sets; default: the suite file's"
    ),
]
RunDirOption = Annotated[Path, typer.Option("--run-dir", help="folder of your own records")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N; default: a GPU where there is one")
]
PrecisionOption = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(
        "--precision",
        help="bfloat16: a faster forward pass on GPUs and on CPUs with AMX; it moves NLL and ECE, so its rows are "
        "model@bfloat16, ranked apart; attacks stay float32",
    ),
]
AllVariantsOption = Annotated[
    bool,
    typer.Option(
        "--all-variants",
        help="measure every predictor of a fit under every condition; default: clean sets for the unranked",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress.")]


class Part(TypedDict):
    """The part of a suite to work on, as `tlbench.api` takes it."""

    seeds: tuple[int, ...] | None
    shots: tuple[str, ...] | None
    only: tuple[str, ...]
    metrics: tuple[str, ...] | None
    shard: str | None


def part_of_suite(
    *, seeds: str | None, shots: str | None, only: list[str] | None, metrics: str | None, shard: str | None
) -> Part:
    """Return what ``--seeds``, ``--shots``, ``--only``, ``--metrics`` and ``--shard`` say."""
    return {
        "seeds": _numbers("--seeds", seeds),
        "shots": _words("--shots", shots),
        "only": tuple(only or ()),
        "metrics": _words("--metrics", metrics),
        "shard": shard,
    }


def check_run_dir(run_dir: Path) -> None:
    """Refuse a run folder that was named and is not there; the default one need not be."""
    if run_dir != RUNS and not run_dir.is_dir():
        raise UsageError(f"--run-dir {run_dir}: expected a run folder, found none")


def _words(option: str, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise UsageError(f"{option}: expected at least one value, got '{text}'")
    return words


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    words = _words(option, text)
    if words is None:
        return None
    if not all(word.isdecimal() and word.isascii() and len(word) <= _LONGEST_NUMBER for word in words):
        raise UsageError(f"{option}: expected whole numbers such as 0,1,2, got '{text}'")
    return tuple(dict.fromkeys(int(word) for word in words))

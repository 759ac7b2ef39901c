"""Words on a command line to one call of `tlbench.api`.

Commands import what they need inside their bodies, so that help is printed without PyTorch or pandas.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tlbench import __version__
from tlbench.cli_data import data_app
from tlbench.console import FAILED, results_only, run, say, show_json, show_table
from tlbench.errors import UsageError
from tlbench.showing import result_as_json, show_model, show_result, show_suite

if TYPE_CHECKING:
    from tlbench.api import GridRowResult
    from tlbench.suites.spec import Suite

_EXAMPLES = """Examples:

tlbench evaluate --suite digits --model linear-probe

tlbench leaderboard --suite digits

tlbench models list"""

_EVALUATE_EXAMPLES = """Examples:

tlbench evaluate --suite digits --model linear-probe

tlbench evaluate --suite digits --model "temperature(finetune(lr=1e-3))" --seeds 0

tlbench evaluate --suite digits --model mymodel.py --set lr=0.01 --only source=mnist

tlbench evaluate --suite ./mine.toml --model linear-probe --data-root /data

tlbench evaluate --suite ood172 --model finetune --grid --recipe regime=full --data-root /data

What is stored already is not computed again: the same command resumes."""

_PLAN_EXAMPLES = """Examples:

tlbench plan --suite ood172-lite --model finetune

tlbench plan --suite ood172 --model linear-probe --data-root /data --budget 24h

Neither data nor weights are needed where the suite says how many images there are."""

app = typer.Typer(
    help="Transfer learning under distribution shift, measured and compared.",
    epilog=_EXAMPLES,
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)
suites_app = typer.Typer(help="List, show and check suites: what is measured, and how.", rich_markup_mode=None)
models_app = typer.Typer(help="List, show and check models: what is measured.", rich_markup_mode=None)
app.add_typer(suites_app, name="suites")
app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")

SuiteOption = Annotated[str, typer.Option("--suite", help="one of `tlbench suites list`, or a file of yours (.toml)")]
_MODEL = typer.Option(
    "--model",
    help="one of `tlbench models list`, temperature(lp-ft), mymodel.py[:Class], package.module:Class, card.toml",
)
ModelOption = Annotated[str, _MODEL]
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
DataRootOption = Annotated[
    Path | None, typer.Option("--data-root", help="folder of the data sets; default: the suite file's")
]
RunDirOption = Annotated[Path, typer.Option("--run-dir", help="folder of your own records")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N; default: a GPU where there is one")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]
RUNS = Path("tlbench-runs")
_LIBRARIES = ("timm", "torchvision")
_LONGEST_NUMBER = 18  # digits, so that it fits a 64-bit column


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    0 complete, 1 something failed, 2 a mistake in the command or its files, 4 verification mismatch,
    130 interrupted.
    """
    command = typer.main.get_command(app)
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run(lambda: command.main(args=words, prog_name="tlbench", standalone_mode=False))


@app.callback()
def _tlbench(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"tlbench {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(epilog=_EVALUATE_EXAMPLES)
def evaluate(
    suite: SuiteOption,
    model: Annotated[str | None, _MODEL] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="SOURCE=FILE",
            help="instead of a model: a trained state dict (.safetensors, .pt) of the backbone; repeatable",
        ),
    ] = None,
    backbone: BackboneOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    grid: GridOption = False,
    recipe: RecipeOption = None,
    seeds: SeedsOption = None,
    shots: ShotsOption = None,
    only: OnlyOption = None,
    metrics: MetricsOption = None,
    device: DeviceOption = None,
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
    shard: ShardOption = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; equal ones give equal bits")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="images a forward pass when measuring")] = 128,
    json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Fit a model on a suite's sources; measure it on every target."""
    checkpoints = _checkpoints(checkpoint)
    if (model is None) == (checkpoints is None):
        raise UsageError("expected --model, or --checkpoint SOURCE=FILE for networks that are already trained")
    if (grid or recipe) and model is None:
        raise UsageError("--grid, --recipe: networks that are already trained have no recipe; they go with --model")
    _stop_early(suite, model, backbone)
    from tlbench import api

    if grid:
        assert model is not None
        with results_only():
            rows = api.evaluate_grid(
                suite,
                model,
                recipe=recipe,
                backbone=backbone,
                settings=tuple(settings or ()),
                name=name,
                seeds=_numbers("--seeds", seeds),
                shots=_words("--shots", shots),
                only=tuple(only or ()),
                metrics=_words("--metrics", metrics),
                device=device,
                data_root=data_root,
                run_dir=run_dir,
                shard=shard,
                threads=threads,
                batch_size=batch_size,
                quiet=quiet,
                say=None if quiet else say,
            )
        _show_grid(rows, json=json, told=not quiet)
        return FAILED if any(row.failed for row in rows) else 0
    with results_only():
        result = api.evaluate(
            suite,
            model,
            predictors=checkpoints,
            backbone=backbone,
            settings=tuple(settings or ()),
            name=name,
            recipe=recipe,
            seeds=_numbers("--seeds", seeds),
            shots=_words("--shots", shots),
            only=tuple(only or ()),
            metrics=_words("--metrics", metrics),
            device=device,
            data_root=data_root,
            run_dir=run_dir,
            shard=shard,
            threads=threads,
            batch_size=batch_size,
            quiet=quiet,
        )
    if json:
        show_json(result_as_json(result))
    else:
        show_result(result, suite, told=not quiet)
    return FAILED if result.failures else 0


@app.command()
def leaderboard(
    suite: SuiteOption,
    metric: Annotated[str | None, typer.Option("--metric", help="measure to rank by; default: the suite's")] = None,
    format: Annotated[Literal["table", "markdown", "csv", "json"], typer.Option("--format")] = "table",
    run_dir: RunDirOption = RUNS,
    published: Annotated[
        bool, typer.Option("--published/--own", help="show the published board, or one's own records alone")
    ] = True,
) -> None:
    """Rank the models of a suite: the published ones and one's own."""
    from tlbench import api

    if run_dir != RUNS and not run_dir.is_dir():
        raise UsageError(f"--run-dir {run_dir}: expected a run folder, found none")
    print(api.leaderboard(suite, metric=metric, run_dir=run_dir, published=published).to_text(format))


@app.command(epilog=_PLAN_EXAMPLES)
def plan(
    suite: SuiteOption,
    model: ModelOption,
    backbone: BackboneOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    seeds: SeedsOption = None,
    shots: ShotsOption = None,
    grid: GridOption = False,
    recipe: RecipeOption = None,
    only: OnlyOption = None,
    metrics: MetricsOption = None,
    device: DeviceOption = None,
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
    shard: ShardOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="24h", help="say what fits into this time: 90m, 24h, 2d")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="measure this machine's speed, or take the last probe's")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Say what an evaluation would do and how long it takes, before anything starts."""
    from dataclasses import asdict

    _stop_early(suite, model, backbone)
    from tlbench import api
    from tlbench.showing_plan import show_plan

    with results_only():
        summary = api.plan(
            suite,
            model,
            backbone=backbone,
            settings=tuple(settings or ()),
            name=name,
            seeds=_numbers("--seeds", seeds),
            shots=_words("--shots", shots),
            grid=grid,
            recipe=recipe,
            only=tuple(only or ()),
            metrics=_words("--metrics", metrics),
            device=device,
            data_root=data_root,
            run_dir=run_dir,
            shard=shard,
            threads=threads,
            budget=budget,
            probe=probe,
        )
    if json:
        show_json(asdict(summary))
    else:
        show_plan(summary)


@app.command()
def status(
    suite: SuiteOption,
    model: ModelOption,
    backbone: BackboneOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    seeds: SeedsOption = None,
    shots: ShotsOption = None,
    only: OnlyOption = None,
    metrics: MetricsOption = None,
    shard: ShardOption = None,
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
    json: JsonOption = False,
) -> int:
    """Say how much is stored, and how long that took against the forecast; exit 1 while something is missing."""
    from dataclasses import asdict

    _stop_early(suite, model, backbone)
    from tlbench import api
    from tlbench.showing_plan import show_status

    with results_only():
        summary = api.status(
            suite,
            model,
            backbone=backbone,
            settings=tuple(settings or ()),
            name=name,
            seeds=_numbers("--seeds", seeds),
            shots=_words("--shots", shots),
            only=tuple(only or ()),
            metrics=_words("--metrics", metrics),
            shard=shard,
            data_root=data_root,
            run_dir=run_dir,
        )
    if json:
        show_json(asdict(summary))
    else:
        show_status(summary)
    return FAILED if summary.fits_to_do or summary.measurements_to_do else 0


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="outputs of a network: Parquet or CSV, see docs/results.md")],
    suite: SuiteOption,
    model: Annotated[str, typer.Option("--model", help="row of the board")],
    output: Annotated[
        Literal["logits", "log_probs", "scores"], typer.Option("--output", help="what the outputs are")
    ] = "logits",
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
) -> None:
    """Score a file of outputs; clean measures only."""
    from tlbench import api

    result = api.score(file, suite, model=model, output=output, data_root=data_root, run_dir=run_dir)
    show_result(result, suite, rest="not all clean sets of the suite are in the file")


@app.command()
def submit(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="run folder, as --run-dir named it")],
    suite: Annotated[str | None, typer.Option("--suite", help="where the run holds several")] = None,
    model: Annotated[str | None, typer.Option("--model", help="row of the board, where the run holds several")] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="model card: name, method, authors, paper, licence")
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="folder of published results")] = Path("results"),
) -> None:
    """Write a model's records into the published results."""
    from tlbench import api

    written = api.submit(run_folder, card=card, suite=suite, model=model, results=results)
    print(written)
    say("next: commit this folder and open a pull request")


@suites_app.command("list")
def suites_list(json: JsonOption = False) -> None:
    """List the suites that come with tlbench."""
    from tlbench.suites.load import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    if json:
        keys = ("name", "version", "title")
        show_json([{**{key: getattr(suite, key) for key in keys}, "hash": suite.hash} for suite in suites])
        return
    headers = ["suite", "version", "tasks", "pairs", "title"]
    show_table(headers, [[s.name, s.version, len(s.tasks), len(s.pairs), s.title] for s in suites])


@suites_app.command("show")
def suites_show(
    name: Annotated[str, typer.Argument(help="name or file")],
    pairs: Annotated[bool, typer.Option("--pairs", help="list every pair")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a suite measures, and how."""
    from tlbench.suites.load import load_suite

    suite = load_suite(name)
    if json:
        listed = [pair.model_dump(mode="json") for pair in suite.pairs]
        show_json({**suite.model_dump(mode="json"), "hash": suite.hash, **({"pairs": listed} if pairs else {})})
    elif pairs:
        show_table(
            ["task", "source", "target", "shift"], [[p.task, p.source, p.target, p.shift or ""] for p in suite.pairs]
        )
    else:
        show_suite(suite)


@suites_app.command("validate")
def suites_validate(file: Annotated[str, typer.Argument(help="a suite file of yours, or a name")]) -> None:
    """Check a suite file; a mistake is told with its place and the nearest name."""
    suite = _checked_suite(file)
    print(f"{file}: a suite of {len(suite.tasks)} task(s), {len(suite.pairs)} pairs; hash {suite.hash}")


@suites_app.command("schema")
def suites_schema() -> None:
    """Print the JSON schema of a suite file, for an editor."""
    from tlbench.suites.load import suite_schema

    show_json(suite_schema())


@models_app.command("list")
def models_list(json: JsonOption = False) -> None:
    """List the registered methods and backbones, with what they are."""
    from tlbench import registry

    methods, backbones = registry.summaries("methods"), registry.summaries("backbones")
    if json:
        show_json(
            {
                "methods": [{"name": name, "summary": summary} for name, summary in methods.items()],
                "backbones": [{"name": name, "summary": summary} for name, summary in backbones.items()],
            }
        )
        return
    libraries = {f"{name}:NAME": f"Any network of {name} whose weights are on this machine." for name in _LIBRARIES}
    show_table(["method", ""], list(methods.items()))
    print()
    show_table(["backbone", ""], list({**backbones, **libraries}.items()))
    say("next: tlbench models show NAME")


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="as --model takes it")],
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show a model's settings, and what it reads and requires."""
    from tlbench.methods.resolve import describe_model, example_of, resolve_model

    with results_only():
        facts = describe_model(resolve_model(example_of(name), settings=tuple(settings or ())))
    if json:
        show_json(facts)
    else:
        show_model(facts)


@models_app.command("check")
def models_check(
    name: Annotated[str, typer.Argument(help="as --model takes it")],
    settings: SetOption = None,
    json: JsonOption = False,
) -> int:
    """Run the conformance kit on a model, in under a minute; what is broken is explained."""
    from tlbench.methods.resolve import example_of, resolve_model
    from tlbench.testing import check_method

    with results_only():
        checks = check_method(resolve_model(example_of(name), settings=tuple(settings or ())).method)
    if json:
        keys = ("name", "passed", "message", "seconds")
        show_json([{key: getattr(check, key) for key in keys} for check in checks])
    else:
        for check in checks:
            print(
                f"{'pass' if check.passed else 'FAIL'}  {check.name}" + (f": {check.message}" if check.message else "")
            )
    return 0 if all(check.passed for check in checks) else FAILED


def _show_grid(rows: Sequence[GridRowResult], *, json: bool, told: bool) -> None:
    """Print a line a row of the board, and how many were evaluated."""
    if json:
        listed = [
            {
                "model": row.model,
                "backbone": row.backbone,
                "shots": row.shots,
                "problem": row.problem,
                "result": result_as_json(row.result) if row.result else None,
            }
            for row in rows
        ]
        show_json({"rows": listed})
        return
    lines: list[list[object]] = []
    for row in rows:
        headline = row.result.headline if row.result else {}
        state = "not evaluated" if row.result is None else "complete" if row.result.complete else "not complete"
        lines.append([row.model, row.backbone, row.shots, *map(headline.get, ("id_accuracy", "ood_accuracy")), state])
    show_table(["model", "backbone", "shots", "id_accuracy", "ood_accuracy", ""], lines)
    for row in () if told else rows:
        for problem in (row.problem,) if row.result is None else row.result.failures:
            say(f"failed: {row.model}: {problem}")
    done = [row.result for row in rows if row.result is not None]
    failures = sum(len(result.failures) for result in done)
    say(
        f"{len(rows)} rows: {sum(result.complete for result in done)} complete, {len(rows) - len(done)} not evaluated, "
        f"{failures} failures; {sum(result.seconds for result in done):.0f} s; the same command does the rest"
    )


def _checkpoints(entries: list[str] | None) -> dict[str, str | Path] | None:
    found: dict[str, str | Path] = {}
    for entry in entries or ():
        source, sign, file = entry.partition("=")
        if not (source and sign and file):
            raise UsageError(f"--checkpoint {entry}: expected SOURCE=FILE, such as photo=photo.safetensors")
        if source in found:
            raise UsageError(f"--checkpoint {entry}: source '{source}' is given twice")
        found[source] = Path(file)
    return found or None


def _stop_early(suite: str, model: str | None, backbone: str | None) -> None:
    """Raise for what is wrong in the suite or its name, or the method's, before the engine takes seconds to load."""
    from tlbench import registry
    from tlbench.methods.resolve import resolve_model

    _checked_suite(suite)
    if backbone is not None and not backbone.strip():
        raise UsageError(f"--backbone: expected a name, got '{backbone}'")
    if model is not None and re.fullmatch(r"[\w-]*", model) and model not in registry.names("methods"):
        resolve_model(model)


def _checked_suite(ref: str) -> Suite:
    """Return a suite all of whose names exist; a mistake is told with the file that it stands in."""
    from tlbench import registry
    from tlbench.conditions.catalogue import condition_names
    from tlbench.data.readers.catalogue import READERS
    from tlbench.metrics.catalogue import METRICS
    from tlbench.suites.load import check_names, load_suite

    suite = load_suite(ref)
    check_names(
        suite,
        where=ref,
        readers=READERS,
        conditions=condition_names(),
        backbones=registry.names("backbones"),
        metrics=METRICS,
    )
    return suite


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

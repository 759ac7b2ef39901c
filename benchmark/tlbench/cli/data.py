"""`tlbench data`: what is there of a suite's data, whether it is right, and what can be done about it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tlbench.cli.console import FAILED, say, show_json
from tlbench.cli.options import DataRootOption, JsonOption, QuietOption, SuiteOption
from tlbench.cli.showing_data import (
    preparation_as_json,
    show_conversion,
    show_preparation,
    show_status,
    show_verification,
    status_as_json,
    verdict,
    verification_as_json,
)
from tlbench.errors import UsageError, VerificationError

app = typer.Typer(
    help="Look at a suite's data, check them, convert them, prepare them, rehearse without them.",
    rich_markup_mode=None,
)

_TaskOption = Annotated[list[str] | None, typer.Option("--task", metavar="NAME", help="one task; repeatable")]


@app.command()
def status(
    suite: SuiteOption,
    data_root: DataRootOption = None,
    task: _TaskOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what is there, what is missing, and where that is to be had; decodes nothing."""
    from tlbench import api

    found = api.data_status(suite, data_root=data_root, tasks=task or (), quiet=quiet)
    if json:
        show_json(status_as_json(found))
        return
    show_status(found)
    if any(own.state in ("present", "differs") for own in found.tasks):
        say(f"next: {_the_same('verify', suite, data_root)}")


@app.command()
def verify(
    suite: SuiteOption,
    data_root: DataRootOption = None,
    task: _TaskOption = None,
    deep: Annotated[bool, typer.Option("--deep/--quick", help="decode every image, or look at names only")] = True,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Check numbers, classes and members, and that every image can be read; exit 4 where something differs."""
    from tlbench import api

    found = api.data_verify(suite, data_root=data_root, tasks=task or (), deep=deep, quiet=quiet)
    if json:
        show_json(verification_as_json(found))
    else:
        show_verification(found)
    if not found.right:
        say(f"error: {verdict(found)}")
        return VerificationError.exit_code
    say(f"next: {_the_same('prepare', suite, data_root)}")
    return 0


@app.command()
def prepare(
    suite: SuiteOption,
    data_root: DataRootOption = None,
    task: _TaskOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Put the resized images into the cache, before a run; a killed one goes on where it stopped."""
    from tlbench import api

    made = api.data_prepare(suite, data_root=data_root, tasks=task or (), quiet=quiet)
    if json:
        show_json(preparation_as_json(made))
    else:
        show_preparation(made)
    for problem in made.problems.values():
        say(f"error: not prepared: {problem}")
    return FAILED if made.problems else 0


def _the_same(command: str, suite: str, data_root: Path | None) -> str:
    root = "" if data_root is None else f" --data-root {shlex.quote(str(data_root))}"
    return f"tlbench data {command} --suite {shlex.quote(suite)}{root}"


_REHEARSE_EXAMPLES = """Examples:

tlbench data rehearse --suite ood172 --out /scratch/rehearsal

tlbench evaluate --suite /scratch/rehearsal/ood172-rehearsal.toml --model finetune"""


@app.command(epilog=_REHEARSE_EXAMPLES)
def rehearse(
    suite: SuiteOption,
    out: Annotated[Path, typer.Option("--out", help="folder to write into: a new one, or one to be finished")],
    per_class: Annotated[
        int, typer.Option("--per-class", metavar="K", help="images a class of every training set, at least 10")
    ] = 10,
    quiet: QuietOption = False,
) -> None:
    """Write a small made-up copy of a suite's data, in the layouts of the originals, to try everything with."""
    from tlbench.data.rehearsal.rehearse import rehearsal_size
    from tlbench.data.rehearsal.rehearse import rehearse as write_copy
    from tlbench.engine.progress import Reporter
    from tlbench.suites.load import load_suite

    chosen = load_suite(suite)
    size = rehearsal_size(chosen, out, per_class)
    say(f"writing {size.files} files, about {size.disk_bytes / 1e6:.0f} MB of disk, to {out}")
    with Reporter(size.files, quiet=quiet) as reporter:
        reporter.doing("files")
        made = write_copy(chosen, out, per_class, lambda done, _: reporter.advance(done - reporter.done))
    for task in made.tasks_without_copy:
        say(f"{task}: needs no copy, its data come with tlbench")
    print(made.suite_file)
    say(f"{made.files} files, {made.file_bytes / 1e6:.1f} MB, in {made.seconds:.0f} s; made up, no board takes results")
    file = shlex.quote(str(made.suite_file))
    say(f"next: tlbench suites show {file}")
    say(f"      tlbench evaluate --suite {file} --model finetune")


def _out_folder(text: str) -> Path:
    if not text.strip():
        raise UsageError("--out: expected a folder, got an empty word; is a variable of the shell not set?")
    return Path(text)


_CONVERT_EXAMPLES = """Examples:

tlbench data convert --suite ood172 --task PACS --out /data --download

tlbench data convert --suite ood172 --task OfficeHome --from /copies/office-home --out /data

Stopped in the middle, the same command goes on.

Exit code 4: another number of images than the suite declares; the files are kept."""


@app.command(epilog=_CONVERT_EXAMPLES)
def convert(
    suite: SuiteOption,
    task: Annotated[list[str], typer.Option("--task", metavar="NAME", help="a task of the suite; repeatable")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="<path>", parser=_out_folder, help="the data root; the task's folder is made in it"
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="a folder of Parquet files or of save_to_disk, or a hub name; default: the suite's hub copy",
        ),
    ] = None,
    image: Annotated[str | None, typer.Option("--image", help="column of the images; default: the suite's")] = None,
    label: Annotated[str | None, typer.Option("--label", help="column of the labels")] = None,
    domain_column: Annotated[str | None, typer.Option("--domain-column", help="column of the domains")] = None,
    names: Annotated[
        Path | None,
        typer.Option("--names", help="file of class names, one a line in label order, for a copy without them"),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="commit, tag or branch of a hub copy")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="fetch a hub copy; without it nothing is fetched")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on, as the same command does anyway")] = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> int:
    """Write a hub copy of a task as folders of its stored images; none is encoded again."""
    from tlbench.data.conversion.convert import convert as write_folders
    from tlbench.data.conversion.convert import convertible
    from tlbench.data.conversion.result import Columns
    from tlbench.engine.progress import Reporter
    from tlbench.suites.load import load_suite

    chosen, tasks = load_suite(suite), list(dict.fromkeys(task))
    of_one_copy = {
        "--from": source,
        "--names": names,
        "--image": image,
        "--label": label,
        "--domain-column": domain_column,
        "--revision": revision,
    }
    given = [option for option, value in of_one_copy.items() if value is not None]
    if len(tasks) > 1 and given:
        raise UsageError(
            f"{given[0]} says something of one copy, and {len(tasks)} tasks are named ({', '.join(tasks)}): give them "
            f"one by one, or leave {given[0]} out, and every task's hub copy is taken"
        )
    for name in tasks:
        convertible(chosen, name, from_hub=source is None)
    made = []
    for name in tasks:
        with Reporter(0, quiet=quiet) as reporter:

            def progress(label: str, done: int, total: int, reporter: Reporter = reporter) -> None:
                reporter.total, reporter.done = total, done
                reporter.doing(label)

            conversion = write_folders(
                chosen,
                name,
                out,
                source=source,
                columns=Columns(image, label, domain_column),
                label_names=names,
                revision=revision,
                download=download,
                progress=progress,
            )
        made.append(conversion)
        if not json:
            show_conversion(conversion)
        if not conversion.complete:
            say(
                f"{name}: the images are not as many as the suite declares: another version of the data? The files are "
                f"kept; to convert another copy, remove the folders of these domains in {conversion.folder}, or name "
                f"another --out"
            )
    if json:
        documents = [conversion.document() for conversion in made]
        show_json(documents[0] if len(documents) == 1 else documents)
    return 0 if all(conversion.complete for conversion in made) else VerificationError.exit_code

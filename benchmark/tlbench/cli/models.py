"""`tlbench models`: methods and backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tlbench.cli.console import FAILED, results_only, say, show_json, show_table
from tlbench.cli.options import JsonOption, SetOption

app = typer.Typer(
    help="List, show and check models: methods, and the backbones that they start from.", rich_markup_mode=None
)

_LIBRARIES = ("timm", "torchvision")


@app.command("list")
def list_models(json: JsonOption = False) -> None:
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


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="as --model takes it")],
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show a model's settings, and what it reads and requires."""
    from tlbench.methods.resolve import describe_model, example_of, resolve_model

    with results_only():
        example = example_of(name)
        facts = describe_model(resolve_model(example, settings=tuple(settings or ())))
    if example != name:
        say(f"note: {name} wraps another method and has no default for it; shown is {example}, as --model takes it")
    if json:
        show_json(facts)
    else:
        _show_model(facts)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="as --model takes it")],
    settings: SetOption = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="network to try it on; default: small-cnn, without pretraining")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Run the conformance kit on a model, in under a minute; what is broken is explained."""
    from tlbench.methods.resolve import example_of, resolve_model
    from tlbench.models.zoo import load_backbone
    from tlbench.testing import check_method

    with results_only():
        network = None if backbone is None else load_backbone(backbone)
        method = resolve_model(example_of(name), settings=tuple(settings or ())).method
        checks = check_method(method, backbone=network)
    if json:
        keys = ("name", "passed", "message", "seconds")
        show_json([{key: getattr(one, key) for key in keys} for one in checks])
    else:
        for one in checks:
            print(f"{'pass' if one.passed else 'FAIL'}  {one.name}" + (f": {one.message}" if one.message else ""))
    return 0 if all(one.passed for one in checks) else FAILED


def _show_model(facts: Mapping[str, Any]) -> None:
    """Print what `describe_model` tells."""
    print(f"{facts['name']}: {facts['summary'] or 'no description'}\n")
    if facts["settings"]:
        rows = [[s["name"], s["type"], s["value"], s["default"]] for s in facts["settings"]]
        show_table(["setting", "type", "value", "default"], rows)
        print()
    rest = ("reads", "requires", "version", "deterministic", "control")
    show_table(["", ""], [[key, _shown(facts[key])] for key in rest])


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "nothing"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)

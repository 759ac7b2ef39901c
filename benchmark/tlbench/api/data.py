"""A suite's data: what is there, whether it is what it should be, and put in place before a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.api.selection import several
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from tlbench.data.build import Preparation
    from tlbench.data.inventory import Inventory
    from tlbench.data.verify import Verification


def data_status(
    suite: str | Path | Suite,
    *,
    data_root: str | Path | None = None,
    tasks: Sequence[str] = (),
    quiet: bool = False,
) -> Inventory:
    """Return what is there of a suite's data; lists names, decodes nothing."""
    from tlbench.data.inventory import find_data, take_inventory
    from tlbench.engine.progress import Reporter

    place = find_data(suite, data_root)
    chosen = place.chosen(several(tasks) or ())
    with Reporter(sum(len(place.suite.tasks[task].domains) for task in chosen), quiet=quiet) as reporter:

        def looking(name: str) -> None:
            reporter.doing(name)
            reporter.advance()

        return take_inventory(place, chosen, looking=looking)


def data_verify(
    suite: str | Path | Suite,
    *,
    data_root: str | Path | None = None,
    tasks: Sequence[str] = (),
    deep: bool = True,
    quiet: bool = False,
) -> Verification:
    """Hold a suite's data against what it says of them: numbers, classes, members, and every image readable."""
    from tlbench.data.inventory import find_data
    from tlbench.data.verify import decode_all, verify
    from tlbench.engine.progress import ImagesTold, Reporter

    with Reporter(0, quiet=quiet) as reporter:
        told = ImagesTold(reporter, "decoded")
        reporter.doing("looking at names")
        found = verify(find_data(suite, data_root), several(tasks) or (), progress=told)
        reporter.total = found.images
        return decode_all(found, told) if deep else found


def data_prepare(
    suite: str | Path | Suite,
    *,
    data_root: str | Path | None = None,
    tasks: Sequence[str] = (),
    quiet: bool = False,
) -> Preparation:
    """Put a suite's images into the cache, where a run would find them; a killed one goes on where it stopped."""
    from tlbench.data.build import build, plan_preparation
    from tlbench.data.inventory import find_data
    from tlbench.data.sizes import in_gigabytes
    from tlbench.engine.progress import ImagesTold, Reporter

    with Reporter(0, quiet=quiet) as reporter:
        told = ImagesTold(reporter, "prepared")
        reporter.doing("looking at names")
        made = plan_preparation(find_data(suite, data_root), several(tasks) or (), progress=told)
        reporter.total = made.images
        if made.images:
            reporter.say(
                f"{made.images} images to prepare: {in_gigabytes(made.bytes)} in {made.folder}, "
                f"where {in_gigabytes(made.free_bytes)} are free"
            )
        build(made, progress=told)
    return made

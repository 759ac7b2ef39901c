"""From a run to the published results."""

from __future__ import annotations

from pathlib import Path

from tlbench.suites.spec import Suite


def submit(
    run: str | Path,
    *,
    suite: str | Path | Suite | None = None,
    model: str | None = None,
    card: str | Path | None = None,
    results: str | Path = "results",
    allow_incomplete: bool = False,
) -> Path:
    """Write a model's finished work to the results folder, ready for a pull request.

    Parameters
    ----------
    run : path
        A run folder, or one model's folder inside it.
    suite, model : optional
        Which, where the run folder holds several.
    card : path, optional
        A model card to publish with the numbers.
    results : path
        The board's folder.
    allow_incomplete : bool
        Publish although measurements or seeds are missing: the row then stands unranked.

    Returns
    -------
    Path
        The folder that was written.
    """
    from tlbench.submissions.pack import locate
    from tlbench.submissions.pack import submit as pack

    found_suite, found_model, run_dir = locate(Path(run), suite, model)
    return pack(
        run_dir,
        suite=found_suite,
        model=found_model,
        card=Path(card) if card else None,
        results=Path(results),
        allow_incomplete=allow_incomplete,
    )

"""Whether the files of a submission are those that it names, by hash and size, and no others."""

from __future__ import annotations

from tlbench.errors import StoreError
from tlbench.records.inventory import INVENTORY, SUBMITTED, VERIFICATION, FileFact, read_inventory
from tlbench.records.published import MAX_PREDICTIONS_BYTES
from tlbench.submissions.verification.report import Check, Findings, not_checked
from tlbench.submissions.verification.submission import Submission


def hash_files(submission: Submission) -> dict[str, FileFact]:
    """Return hash and size of every file of a submission but ``verification.json``; of links and huge files none."""
    found: dict[str, FileFact] = {}
    for path in sorted(submission.folder.iterdir()) if submission.published else ():
        plain = not path.is_symlink() and path.is_file()
        if path.name != VERIFICATION and plain and path.stat().st_size <= MAX_PREDICTIONS_BYTES:
            found[path.name] = FileFact.of(path)
    return found


def check_files(submission: Submission, facts: dict[str, FileFact]) -> Check:
    """Answer whether the folder holds what ``submission.json`` says, and nothing else."""
    if not submission.published:
        return not_checked("files", f"a run folder has no {INVENTORY}")
    found, folder = Findings(), submission.folder
    if folder.is_symlink():
        found.add(f"{folder}: expected a folder, got a link")
    for path in sorted(folder.iterdir()):
        if path.name in (VERIFICATION, *SUBMITTED):
            if path.name not in facts and path.name != VERIFICATION:
                found.add(f"{path.name}: expected a plain file of at most {MAX_PREDICTIONS_BYTES:,} bytes")
        else:
            found.add(f"{path.name[:100]}: not a file of a submission")
    try:
        inventory = read_inventory(folder)
    except (StoreError, OSError) as problem:
        found.add(" ".join(str(problem).split()))
        return found.check("files", "")
    if inventory is None:
        return found.check("files", "", f"there is no {INVENTORY}; the folder was published before there were any")
    suite = submission.suite
    for what, given, wanted in (
        ("suite", inventory.suite, suite.name),
        ("suite_version", inventory.suite_version, suite.version),
        ("suite_hash", inventory.suite_hash, suite.hash),
        ("model", inventory.model, submission.model),
    ):
        if given != wanted:
            found.add(f"{INVENTORY}: {what} {str(given)[:80]!r}, expected {str(wanted)[:80]!r}")
    for name, fact in inventory.files.items():
        here = facts.get(name)
        if here is None:
            found.add(f"{name}: named in {INVENTORY}, not in the folder")
        elif here != fact:
            found.add(f"{name}: {_told(here)}, {INVENTORY} says {_told(fact)}")
    for name in sorted(set(facts) - {INVENTORY} - set(inventory.files) - set(inventory.elsewhere)):
        found.add(f"{name}: in the folder, not named in {INVENTORY}")
    for name, placed in inventory.elsewhere.items():
        here = facts.get(name)
        if here is not None and (here.sha256, here.bytes) != (placed.sha256, placed.bytes):
            found.add(f"{name}: {_told(here)}, {INVENTORY} says {_told(placed)}")
    away = sorted(set(inventory.elsewhere) - set(facts))
    done = f"{len(inventory.files)} files with the hashes and sizes of {INVENTORY}"
    return found.check("files", done, f"not here: {', '.join(away)}" if away else "")


def _told(fact: FileFact) -> str:
    return f"{fact.bytes:,} bytes, hash {fact.sha256[:12]}"

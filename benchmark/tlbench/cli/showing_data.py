"""What a suite's data look like when `tlbench data` prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tlbench.cli.console import printable, say, show_table, wrapped

if TYPE_CHECKING:
    from tlbench.data.build import Preparation
    from tlbench.data.conversion.result import Conversion
    from tlbench.data.inventory import DataPlace, Inventory, TaskState
    from tlbench.data.verify import Verification

_NAMED = 200


def show_status(found: Inventory) -> None:
    """Print a table of the tasks, and a block for each that cannot be used as it is."""
    rows = [
        [
            own.task,
            own.state,
            f"{sum(domain.images is not None for domain in own.domains)}/{len(own.domains)}",
            own.images,
            "undeclared" if own.expected is None else own.expected,
            _cached(own),
        ]
        for own in found.tasks
    ]
    show_table(["task", "state", "domains", "images", "expected", "cache"], rows, right=(4,))
    for own in found.tasks:
        if own.state != "present":
            print()
            _show_block(own)
    for own in found.tasks:
        for domain in own.domains:
            if domain.variant:
                print()
                _wrapped(f"{own.task}/{domain.domain}: these seem to be {domain.variant}")
            if domain.undecided:
                print()
                _wrapped(
                    f"{own.task}/{domain.domain}: {domain.images} files, of which up to {domain.undecided} may be "
                    "unreadable; nobody has looked yet (`tlbench data verify` does)"
                )
    print()
    place = found.place
    _wrapped(f"{found.pairs} of the suite's {len(place.suite.pairs)} pairs can run with the data in {place.root}")


def status_as_json(found: Inventory) -> dict[str, Any]:
    """Return what `tlbench data status --json` prints."""
    return {
        **_head(found.place),
        "pairs": found.pairs,
        "tasks": [
            {
                "task": own.task,
                "state": own.state,
                "looked_for": str(own.looked_for),
                "images": own.images,
                "expected": own.expected,
                "prepared": own.prepared,
                "obtain": own.obtain,
                "size": own.size,
                "licence": own.licence,
                "domains": [
                    {
                        "domain": domain.domain,
                        "images": domain.images,
                        "expected": domain.expected,
                        "variant": domain.variant,
                        "used": domain.used,
                        "prepared": domain.prepared,
                        "problem": domain.problem or None,
                        "undecided": domain.undecided,
                    }
                    for domain in own.domains
                ],
            }
            for own in found.tasks
        ],
    }


def show_verification(found: Verification) -> None:
    """Print a row a domain, what differs, every unreadable image, and the verdict."""
    from tlbench.data.counts import HEADERS, causes_of, rows_of

    headers = ["domain", "images", "counts", *(["unreadable"] if found.deep else []), "members"]
    show_table(
        headers,
        [
            [
                own.name,
                own.counted.found.all,
                _counts(own.counted),
                *([own.unreadable_count] if found.deep else []),
                f"{own.members[:8]} {own.confirmed}",
            ]
            for own in found.domains
        ],
    )
    if found.differing:
        print()
        show_table(list(HEADERS), rows_of(found.differing))
        for cause in causes_of(found.differing):
            _wrapped(cause)
    for text in _remarks(found):
        print()
        _wrapped(text)
    for own in found.domains:
        for image in own.unreadable[:_NAMED]:
            print(_one_line(image.reason.removesuffix("; get this file again")))
        if own.unreadable_count > _NAMED:
            print(f"... and {own.unreadable_count - _NAMED} more of {own.name} (--json names them)")


def verdict(found: Verification) -> str:
    """Return what is wrong in one line, empty where nothing is."""
    wrong = [
        (len(found.differing), "domain", "with other numbers of images than the suite counts"),
        (len(found.strangers), "domain", "with other members than those confirmed"),
        (found.unreadable, "image", "that cannot be decoded"),
        (len(found.problems), "problem", "named above"),
    ]
    return ", ".join(f"{_many(n, what)} {which}" for n, what, which in wrong if n)


def verification_as_json(found: Verification) -> dict[str, Any]:
    """Return what `tlbench data verify --json` prints."""
    return {
        **_head(found.place),
        "right": found.right,
        "deep": found.deep,
        "problems": list(found.problems),
        "missing": dict(found.missing),
        "domains": [
            {
                "task": own.counted.task,
                "domain": own.counted.domain,
                "counts": own.counted.found.model_dump(),
                "expected": own.counted.expected and own.counted.expected.model_dump(),
                "variant": own.counted.variant,
                "cause": own.counted.cause or None,
                "members": own.members,
                "confirmed": own.confirmed,
                "note": own.note or None,
                "decoded": own.decoded,
                "allowed_unreadable": list(own.allowed),
                "unreadable": [{"name": image.name, "reason": image.reason} for image in own.unreadable],
                "unreadable_count": own.unreadable_count,
            }
            for own in found.domains
        ],
    }


def show_preparation(made: Preparation) -> None:
    """Print a row a domain, and what is to be known of the data."""
    rows = [
        [own.name, own.images, "already" if own.done == own.images else "now, in part before" if own.done else "now"]
        for own in made.domains
    ]
    show_table(["domain", "images", "prepared"], rows)
    remarks = [*made.notes]
    if made.missing:
        remarks.append(_not_there(made.missing))
    for remark in remarks:
        print()
        _wrapped(remark)
    if not made.images and not made.problems:
        say(f"all of it was prepared already, in {made.folder}")


def preparation_as_json(made: Preparation) -> dict[str, Any]:
    """Return what `tlbench data prepare --json` prints."""
    return {
        **_head(made.place),
        "cache": str(made.folder),
        "bytes": made.bytes,
        "free_bytes": made.free_bytes,
        "notes": list(made.notes),
        "missing": dict(made.missing),
        "problems": dict(made.problems),
        "domains": [
            {"task": own.task, "domain": own.domain, "images": own.images, "prepared_before": own.done}
            for own in made.domains
        ],
    }


def show_conversion(conversion: Conversion) -> None:
    """Print a row a domain, where the copy is, and what its names are worth."""
    show_table(
        ["domain", "files", "expected", "difference", "formats"],
        [
            [
                one.domain,
                one.files,
                one.expected,
                one.variant or ("" if one.right or one.expected is None else f"{one.files - one.expected:+,}"),
                ", ".join(f"{n} {kind}" for kind, n in one.formats.items()),
            ]
            for one in conversion.domains
        ],
    )
    at = f" at {conversion.revision}" if conversion.revision else ""
    say(f"{conversion.source}{at} is in {conversion.folder}")
    # What splits are worth follows from the names only where the numbers of images are the published ones.
    if conversion.stored_names:
        worth = ": if these are the original ones, splits have the published members" if conversion.published else ""
        say(f"files have their stored names{worth}")
    else:
        worth = ": splits have the published counts, not the members" if conversion.published else ""
        say(f"files are called by row number ({conversion.reason}){worth}")
    if conversion.broken:
        say(f"kept as they are, though their bytes are no known kind of image: {conversion.broken}")
    if conversion.unlisted:
        say(f"GIF, which readers of folders pass over: {conversion.unlisted}")


def _head(place: DataPlace) -> dict[str, Any]:
    return {"suite": place.suite.name, "suite_hash": place.suite.hash, "data_root": str(place.root)}


def _cached(own: TaskState) -> str:
    if own.images is None or not own.prepared:
        return "-"
    whole = sum(domain.used for domain in own.domains)
    return "prepared" if own.prepared >= whole else f"{own.prepared / whole:.0%}"


def _show_block(own: TaskState) -> None:
    facts: list[tuple[str, str]] = []
    for domain in own.domains:
        if own.state != "missing" and domain.problem:
            facts.append(("", domain.problem))
        if domain.differs and domain.images is not None and domain.expected is not None:
            more = domain.images - domain.expected
            facts.append(
                (
                    "",
                    f"{own.task}/{domain.domain}: {domain.images:,} images, {abs(more):,} "
                    f"{'more' if more > 0 else 'fewer'} than the {domain.expected:,} that the suite counts",
                )
            )
    if own.state == "missing":
        facts.append(("looked for", f"{own.looked_for}{own.hint}"))
    if own.state in ("missing", "incomplete"):
        facts += [("to be had", own.obtain), ("size", own.size), ("licence", own.licence)]
    print(f"{own.task}: {own.state}")
    # What concerns the whole task is told by every domain.
    for name, text in dict.fromkeys(facts):
        if text:
            _wrapped(f"{name}: {text}" if name else text, indent="  ")


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _counts(counted: Any) -> str:
    if counted.expected is None:
        return "undeclared"
    return "variant" if counted.variant else "right" if counted.right else "differ"


def _remarks(found: Verification) -> list[str]:
    remarks = [f"problem: {problem}" for problem in found.problems]
    remarks += [own.counted.note for own in found.domains if own.counted.note]
    for own in found.domains:
        if own.allowed:
            remarks.append(
                f"{own.name}: left out as the suite says, {_many(len(own.allowed), 'unreadable image')}: "
                f"{', '.join(own.allowed)}"
            )
    notes: dict[str, list[str]] = {}
    for own in found.domains:
        if own.note:
            notes.setdefault(own.note, []).append(own.name)
    remarks += [f"{', '.join(names)}: {note}" for note, names in notes.items()]
    if any(own.confirmed == "not confirmed" for own in found.domains):
        remarks.append(
            "members: a hash of names, labels and parts; 'not confirmed' where nobody has confirmed it on the "
            "original data yet."
        )
    if found.missing:
        remarks.append(_not_there(found.missing))
    return remarks


def _wrapped(text: str, indent: str = "") -> None:
    print(wrapped(_one_line(text), first=indent, indent=f"{indent}  "))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _not_there(missing: Mapping[str, str]) -> str:
    return f"not there: {', '.join(missing)} (`tlbench data status` says where they are to be had)"

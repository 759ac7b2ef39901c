"""Check an installed tlbench as a user gets it: from an empty folder, without the checkout on the path.

Run by the Python of the environment in which the wheel is installed::

    python scripts/check_wheel.py
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path, PurePosixPath

CHECKOUT = Path(__file__).resolve().parent.parent
PARTS = {"benchmark/tlbench": "tlbench", "suites": "tlbench/suites/files", "results": "tlbench/results_published"}


def run(*command: str, folder: str) -> str:
    """Return what a command prints, or stop with its last words."""
    # A wide terminal, so that no name is broken over two lines of a table.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"wheel: {' '.join(command)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def check_commands(version: str, folder: str) -> None:
    """The command starts, and knows its version and every suite of the checkout."""
    command = str(Path(sysconfig.get_path("scripts")) / "tlbench")
    said = run(command, "--version", folder=folder)
    if version not in said:
        raise SystemExit(f"wheel: `tlbench --version` should say {version}, said {said!r}")
    listed = run(command, "suites", "list", folder=folder)
    missing = [path.stem for path in sorted((CHECKOUT / "suites").glob("*.toml")) if path.stem not in listed]
    if missing:
        raise SystemExit(f"wheel: `tlbench suites list` does not know {', '.join(missing)}; it said\n{listed}")


def check_origin(folder: str) -> None:
    """The package comes from site-packages and nowhere else."""
    origin = Path(run(sys.executable, "-c", "import tlbench; print(tlbench.__file__)", folder=folder)).resolve()
    site = Path(sysconfig.get_path("purelib")).resolve()
    if not origin.is_relative_to(site):
        raise SystemExit(f"wheel: tlbench should come from {site}, came from {origin}")


def check_files(version: str) -> int:
    """The wheel holds what the checkout holds, and nothing else; return the number of files."""
    expected = {
        PurePosixPath(target, path.relative_to(CHECKOUT / source).as_posix())
        for source, target in PARTS.items()
        for path in (CHECKOUT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    recorded = importlib.metadata.files("tlbench") or []
    beside = (f"tlbench-{version}.dist-info", "..", "__pycache__")  # metadata, the script in bin/, pip's bytecode
    shipped = {PurePosixPath(file) for file in recorded if not set(beside) & set(file.parts)}
    if expected != shipped:
        lines = [f"  missing {file}" for file in sorted(expected - shipped)]
        lines += [f"  stray   {file}" for file in sorted(shipped - expected)]
        raise SystemExit("\n".join(["wheel: its files differ from the checkout's", *lines]))
    return len(shipped)


def main() -> None:
    """Run every check; the first that fails ends the script with its reason and exit code 1."""
    version = importlib.metadata.version("tlbench")
    files = check_files(version)
    with tempfile.TemporaryDirectory() as folder:
        check_origin(folder)
        check_commands(version, folder)
    print(f"wheel: tlbench {version}, {files} files, all from the checkout")


if __name__ == "__main__":
    main()

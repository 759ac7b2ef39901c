"""A plug-in from a file that nobody installed: loaded by its path, its source kept with every number."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from tlbench.errors import PluginError, listed, nearest
from tlbench.methods.base import Method, method_name
from tlbench.seeds import digest
from tlbench.suites.toml_file import nearest_file

_folders: set[str] = set()
"""Folders of the plug-ins loaded by this process: their files may import the modules beside them."""


def load_file(path: Path, class_name: str | None = None) -> tuple[type[Method], str]:
    """Return the method defined in a file, and its source.

    Parameters
    ----------
    path : Path
        A Python file; it is run.
    class_name : str, optional
        Needed only where the file defines several methods. A name that begins with an underscore is
        not counted: it is a base of the others.

    Returns
    -------
    method : subclass of Method
    source : str
        Text of the file, and of the modules beside it that it imports.

    Raises
    ------
    PluginError
        If the file is missing, raises while it is imported, or does not define exactly one method
        and none is named.
    """
    if path.is_dir() or not path.exists():
        missing = f"no such file{nearest_file(path)}"
        raise PluginError(f"{path}: {'expected a Python file, got a folder' if path.is_dir() else missing}")
    module = _run(path)
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    }
    offered = sorted(name for name in found if not name.startswith("_"))
    if class_name is not None and class_name not in found:
        hint = nearest(class_name, found) or (f"; it defines {listed(offered)}" if offered else "")
        raise PluginError(f"{path}: there is no class '{class_name}' that extends tlbench.Method{hint}")
    if class_name is None and not offered:
        raise PluginError(f"{path}: expected a class that extends tlbench.Method, got none")
    if class_name is None and len(offered) > 1:
        ways = ", ".join(f"{path}:{name}" for name in offered)
        raise PluginError(f"{path}: expected one class that extends tlbench.Method, got {len(offered)}; say {ways}")
    return found[class_name or offered[0]], source_of(path)


def name_of(path: Path, method: type[Method]) -> str:
    """Return the name of a file's method: the file's stem, with the class where the file holds several.

    >>> name_of(Path("my method.py"), type("Mine", (Method,), {}))
    'my-method'
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "plugin"
    module = sys.modules.get(method.__module__)
    others = [
        value
        for name, value in (vars(module).items() if module and module.__name__ == _module_name(path) else ())
        if isinstance(value, type) and issubclass(value, Method) and not name.startswith("_")
        if value.__module__ == method.__module__ and value is not method
    ]
    return f"{stem}.{method_name(method)}" if others else stem


def source_of(path: Path) -> str:
    """Return the text of a plug-in: its file, then every module beside it that it imports, however deep."""
    files: dict[str, Path] = {}
    waiting = [path]
    texts = []
    while waiting:
        file = waiting.pop(0)
        text = file.read_text(encoding="utf-8")
        texts.append(text if file == path else f"# {file.relative_to(path.parent).as_posix()}\n{text}")
        for name in sorted(_imported(text)):
            for neighbour in _beside(path.parent, name):
                if str(neighbour) not in files and neighbour != path:
                    files[str(neighbour)] = neighbour
                    waiting.append(neighbour)
    return "\n".join(texts)


def _module_name(path: Path) -> str:
    return f"tlbench_plugin_{re.sub(r'[^A-Za-z0-9]', '_', path.stem)}_{digest(str(path.resolve()))[:8]}"


def _run(path: Path) -> ModuleType:
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: expected a Python file, whose name ends in .py")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that a neighbour never stands in for an installed package
    _folders.add(folder)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the module of a class by its name, while the class is being made.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:  # a stranger's code may raise anything while it is imported
        del sys.modules[name]
        raise PluginError(f"{_where(path, problem)}: {type(problem).__name__}: {_first_line(problem)}") from problem
    _refuse_namesakes(path)
    return module


def _where(path: Path, problem: BaseException) -> str:
    file = path.resolve()
    if isinstance(problem, SyntaxError):
        if problem.filename is None:  # what is no text at all has no lines
            return str(path)
        return f"{path if Path(problem.filename).resolve() == file else problem.filename}, line {problem.lineno}"
    frames = traceback.extract_tb(problem.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _first_line(problem: BaseException) -> str:
    if isinstance(problem, SyntaxError):
        return str(problem.msg)
    return (str(problem).strip().splitlines() or ["no message"])[0]


def _imported(text: str) -> set[str]:
    """Return the top-level modules that a source imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _beside(folder: Path, name: str) -> list[Path]:
    """Return the files that ``import name`` means, where they lie in ``folder`` and nothing installed comes first."""
    package, file = folder / name / "__init__.py", folder / f"{name}.py"
    here = package if package.is_file() else file
    if not here.is_file():
        return []
    origin = _origin(name)
    if origin is not None and origin.resolve() != here.resolve():
        return []
    return sorted(package.parent.rglob("*.py")) if here == package else [file]


def _origin(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _refuse_namesakes(path: Path) -> None:
    """Refuse a module that was loaded beside another plug-in and stands in for the one beside this file."""
    folder = path.resolve().parent
    for name in sorted(_imported(path.read_text(encoding="utf-8"))):
        origin = _origin(name)
        beside = (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
        if beside and origin is not None:
            homes = {str(parent) for parent in origin.resolve().parents[:2]}
            if str(folder) not in homes and homes & _folders:
                raise PluginError(
                    f"{path}: its module '{name}' was already loaded from {origin}, beside another plug-in; "
                    "rename one, or evaluate the two in separate commands"
                )

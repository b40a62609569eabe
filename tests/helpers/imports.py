"""What a file imports, and what that imports, by reading it."""

from __future__ import annotations

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).parent.parent.parent


def imported_modules(source: str, package: str) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it; relative ones resolved against `package`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            found.add(".".join(part for part in (base, node.module) if part))
            # `from package import submodule` imports the submodule too.
            found |= {".".join(part for part in (base, node.module, alias.name) if part) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            found |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found


@functools.cache
def needed_modules(module: str, package: str) -> frozenset[str]:
    """A module of the repository and all of `package` that it imports, directly or not."""
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        place = ROOT.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if name in found or not file.is_file():
            continue
        found.add(name)
        parent = name if place.is_dir() else name.rpartition(".")[0]
        imports = imported_modules(file.read_text(encoding="utf-8"), parent)
        waiting += [other for other in imports if other.startswith(f"{package}.")]
    return frozenset(found)

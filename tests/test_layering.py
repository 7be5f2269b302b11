"""The picture of the house: who may import whom. A new module needs a place in the table."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import fastnn

PACKAGE = Path(fastnn.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Room → the rooms below it that it may import. Rooms are modules or packages directly inside fastnn, and layers.base,
# which is all that optimisers and training need of a layer. Nobody may import the root.
KERNELS = {"_kernels"}
GATES = KERNELS | {"_arrays", "_threads"}
ARROWS: dict[str, set[str]] = {
    "_kernels": set(),
    "_arrays": set(),
    "_files": set(),
    "_minifloat": set(),
    "_losses": set(),
    "_parameters": KERNELS | {"_arrays"},
    "schedules": set(),
    "layers.base": set(),
    "_threads": KERNELS,
    "_config": KERNELS | {"_threads"},
    "checkpoint": {"_files", "_minifloat"},
    "random": GATES,
    "functional": GATES | {"random"},
    "init": GATES | {"random", "layers.base"},
    "layers": GATES | {"random", "functional", "init", "layers.base"},
    "convert": {"layers"},
    "inference": GATES | {"checkpoint", "functional", "layers"},
    "optim": GATES | {"_parameters", "random"},
    "gradients": GATES | {"_losses", "_parameters", "random"},
}
LIBRARY = set(ARROWS)
ARROWS["_bar"] = set()
ARROWS["_run"] = LIBRARY | {"_bar"}
ARROWS["train"] = LIBRARY | {"_bar", "_run"}
ARROWS["cli"] = LIBRARY | {"_bar", "_run", "train", "_config"}
ARROWS["__main__"] = {"cli"}

# What is imported with the package, and what only inside the function that needs it.
ALWAYS = {"numpy", "fastnn"} | set(sys.stdlib_module_names)
LAZY = {
    "scipy": LIBRARY | {"cli"},
    "matplotlib": {"schedules", "init", "train", "cli"},
    "tqdm": {"_bar", "train", "cli"},
    "sklearn": {"cli"},
}


class Import(NamedTuple):
    module: str
    line: int
    lazy: bool


def imports(path: Path) -> Iterator[Import]:
    """Every import statement, as the dotted names it may load; those for the type checker alone left out."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, lazy)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path.name}:{child.lineno}: imports are absolute"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield Import(whole if child.module == "fastnn" else child.module, child.lineno, lazy)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, lazy or inside)

    yield from visit(ast.parse(path.read_text()), False)


def room(dotted: str) -> str:
    """The room that a module inside fastnn belongs to."""
    parts = dotted.split(".")[1:]
    return "layers.base" if parts[:2] == ["layers", "base"] else parts[0] if parts else ""


def name_of(path: Path) -> str:
    parts = ("fastnn", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    here = room(name_of(path))
    if not here:
        return  # the root re-exports all
    assert here in ARROWS, f"{path.name} has no place in the picture: add it to ARROWS"
    for imported in imports(path):
        if imported.module.split(".")[0] != "fastnn":
            continue
        there = room(imported.module)
        assert there, f"{path.name}:{imported.line} imports the package root"
        assert there == here or there in ARROWS[here], f"{path.name}:{imported.line}: {here} may not import {there}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_other_packages(path):
    here = room(name_of(path))
    for imported in imports(path):
        top = imported.module.split(".")[0]
        if top not in ALWAYS:
            assert imported.lazy, f"{path.name}:{imported.line}: import {top} inside the function that needs it"
            assert here in LAZY.get(top, ()), f"{path.name}:{imported.line}: {here} may not use {top}"


def test_the_arrows_have_no_cycle():
    done: set[str] = set()
    while done != set(ARROWS):
        ready = {name for name, below in ARROWS.items() if below - {name} <= done} - done
        assert ready, f"a cycle among {set(ARROWS) - done}"
        done |= ready


CYTHON = sorted((PACKAGE / "_kernels").glob("*.p[yx][xd]"))


@pytest.mark.parametrize("path", CYTHON, ids=lambda p: p.name)
def test_kernels_import_nothing_above_them(path):
    for line in path.read_text().splitlines():
        if found := re.match(r"\s*(?:from|import|cimport)\s+([\w.]+)", line):
            top = found[1].split(".")
            assert top[0] in {"cython", "libc", "numpy", "cpython", "math"} or top[:2] == ["fastnn", "_kernels"], line


@pytest.mark.parametrize("path", CYTHON, ids=lambda p: p.name)
def test_threads_have_one_home(path):
    if path.stem != "_runtime":
        text = re.sub(r"#.*", "", path.read_text())
        assert not re.search(r"\bprange\b|\bopenmp\b|\bomp_|_OPENMP|\bpthread_|\bteam_run\b", text)

"""The package as a whole: what importing it costs, that everything public is documented, and what is shipped."""

import ast
import doctest
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastnn

PACKAGE = Path(fastnn.__file__).parent
ROOT = PACKAGE.parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(PACKAGE)], "fastnn.")
    if not module.name.startswith("fastnn._kernels") and module.name != "fastnn.__main__"
)


def imported_by(statement):
    """The modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


EVERYTHING = "import fastnn; [getattr(fastnn, name) for name in fastnn.__all__]"


@pytest.fixture(scope="module", params=["import fastnn", EVERYTHING], ids=["import", "everything"])
def extra(request):
    """What a statement loads beyond numpy."""
    return imported_by(request.param) - imported_by("import numpy")


class TestImport:
    def test_brings_nothing_heavier_than_numpy(self, extra):
        tops = {name.split(".")[0] for name in extra}
        foreign = tops - set(sys.stdlib_module_names) - {"fastnn", "numpy"}
        assert {name for name in foreign if "cython" not in name} == set()

    def test_leaves_out_the_parts_of_numpy_that_load_on_demand(self, extra):
        assert not extra & {"numpy.random", "numpy.fft", "numpy.polynomial", "numpy.ma", "numpy.testing"}

    def test_brings_the_gates_and_kernels_alone(self):
        # The other modules, about 0.3 ms each, wait until they are used.
        ours = {name for name in imported_by("import fastnn") if name.split(".")[0] == "fastnn"}
        above = {name for name in ours if not name.startswith("fastnn._kernels")}
        assert above == {"fastnn", "fastnn._config", "fastnn._threads"}

    def test_all_names_are_found_where_the_type_checker_finds_them(self):
        tree = ast.parse((PACKAGE / "__init__.py").read_text())
        (block,) = (
            node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        typed = {}
        exec(ast.unparse(block.body), typed)
        del typed["__builtins__"]
        now = {"__version__", "get_num_threads", "set_num_threads", "show_config"}
        assert typed.keys() | now == set(fastnn.__all__) <= set(dir(fastnn))
        assert [name for name, value in typed.items() if getattr(fastnn, name) is not value] == []

    def test_a_name_that_does_not_exist_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="module 'fastnn' has no attribute 'linear'"):
            fastnn.linear  # noqa: B018

    def test_expensive_standard_modules_stay_out(self, extra):
        assert not extra & {"argparse", "asyncio", "concurrent.futures", "multiprocessing", "subprocess", "unittest"}

    def test_floating_point_state_is_left_alone(self):
        # Start-up code of -ffast-math would flush subnormals to zero in the whole process.
        kernels = (
            "from fastnn import _kernels; [getattr(_kernels, name) for m in _kernels.MODULES.values() for name in m]"
        )
        code = f"{kernels}; assert 5e-324 / 2 * 2 == 0 and 5e-324 * 3 == 1.5e-323"
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True
        )


PUBLIC_MODULES = [
    "fastnn",
    *(name for name in MODULES if re.fullmatch(r"fastnn\.[a-z]\w*", name) and name != "fastnn.cli"),
]


def public_objects():
    """Every class and function that a public module lists, under the name where it is defined."""
    for name in PUBLIC_MODULES:
        module = importlib.import_module(name)
        for item in module.__all__:
            value = getattr(module, item)
            if inspect.isclass(value) or inspect.isroutine(value):
                yield f"{value.__module__}.{value.__qualname__}", value


PUBLIC = dict(sorted(public_objects()))


@pytest.mark.parametrize("name", PUBLIC)
class TestDocumentation:
    def test_has_a_docstring(self, name):
        text = inspect.getdoc(PUBLIC[name]) or ""
        assert len(text.split()) >= 5

    def test_has_an_example_that_runs(self, name):
        # --doctest-modules runs them; this only asks that there is one. Companions may refer to their operation's.
        if name.endswith(("_forward", "_backward")):
            stem = re.sub(r"_(forward|backward)$", "", name)
            assert stem in PUBLIC
            return
        if getattr(PUBLIC[name], "_is_protocol", False):
            return  # nothing to call
        finder = doctest.DocTestFinder(recurse=inspect.isclass(PUBLIC[name]))
        assert any(test.examples for test in finder.find(PUBLIC[name], name, globs={}))

    def test_names_every_parameter(self, name):
        value = PUBLIC[name]
        if inspect.isclass(value) or name.endswith(("_forward", "_backward")):
            return
        text = inspect.getdoc(value) or ""
        missing = [p for p in inspect.signature(value).parameters if not re.search(rf"\b{p}\b", text)]
        assert missing == []


def test_every_module_has_a_docstring():
    undocumented = [
        str(path) for path in PACKAGE.rglob("*.py") if path.read_text() and not path.read_text().startswith('"""')
    ]
    assert undocumented == []


def test_every_public_module_lists_its_names():
    for name in PUBLIC_MODULES:
        module = importlib.import_module(name)
        assert len(module.__all__) == len(set(module.__all__)), name
        assert [item for item in module.__all__ if not hasattr(module, item)] == [], name


def test_typed():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_kernels" / "__init__.pyi").exists()


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.\w+)?", fastnn.__version__)
    if importlib.util.find_spec("fastnn") and (installed := distribution()):
        assert installed.version == fastnn.__version__


def distribution():
    try:
        return importlib.metadata.distribution("fastnn")
    except importlib.metadata.PackageNotFoundError:
        return None  # run from the source tree


def test_what_is_installed():
    if not (found := distribution()):
        pytest.skip("fastnn is not installed, only on the path")
    needed = {re.split(r"[<>=; ]", line)[0] for line in found.requires or [] if "extra ==" not in line}
    assert needed == {"numpy", "scipy"}


class TestSources:
    """What an sdist must carry is listed in MANIFEST.in; a wheel holds no sources of kernels."""

    @pytest.fixture(autouse=True)
    def in_a_checkout(self):
        if not (ROOT / "MANIFEST.in").exists():
            pytest.skip("not a source tree")

    def test_the_sdist_carries_every_kernel_source(self):
        manifest = (ROOT / "MANIFEST.in").read_text()
        suffixes = {path.suffix for path in (PACKAGE / "_kernels").iterdir() if path.is_file()} - {".so", ".py"}
        assert suffixes <= {suffix.lstrip("*") for suffix in re.findall(r"\*\.\w+", manifest)}

    def test_no_generated_c(self):
        assert not list(PACKAGE.rglob("*.c"))

    def test_pre_commit_runs_the_versions_that_make_lint_runs(self):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        pinned = dict(line.split("==") for line in extras["lint"] if "==" in line)
        hooks = dict(re.findall(r"/([\w-]+)\n +rev: v([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text()))
        hooks = {re.sub("-pre-commit|mirrors-", "", name): version for name, version in hooks.items()}
        assert pinned.items() <= hooks.items()

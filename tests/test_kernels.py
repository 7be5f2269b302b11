"""The choice of the ISA build, the types of the entry points, and the instructions that each build holds."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn
from fastnn import _kernels

FOLDER = Path(_kernels.__file__).parent


def run(code, **environment):
    kept = {k: v for k, v in os.environ.items() if k != "FASTNN_ISA"} | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, timeout=60
    )


WHICH = "from fastnn import _kernels; print(_kernels.ISA)"


class TestChoice:
    def test_the_best_usable_build_is_the_default(self):
        assert run(WHICH).stdout.strip() == _kernels.available()[0]

    @pytest.mark.parametrize("build", _kernels.available())
    def test_each_usable_build_can_be_asked_for(self, build):
        done = run(WHICH + "; import fastnn.functional", FASTNN_ISA=build)
        assert done.stdout.strip() == build, done.stderr

    def test_an_unknown_build(self):
        done = run(WHICH, FASTNN_ISA="sse9")
        assert done.returncode == 1
        assert (
            "ImportError: FASTNN_ISA must be one of x86_64_v4, x86_64_v3, x86_64_v2, generic, got 'sse9'" in done.stderr
        )

    @pytest.mark.parametrize("build", sorted(set(_kernels.LEVELS) - set(_kernels.available())))
    def test_a_build_that_is_not_usable(self, build):
        done = run(WHICH, FASTNN_ISA=build)
        assert done.returncode == 1
        assert f"ImportError: FASTNN_ISA={build} is not usable here" in done.stderr

    def test_a_processor_too_old_for_every_build(self, monkeypatch):
        monkeypatch.setattr(_kernels, "cpu_level", lambda: -1)
        with pytest.raises(ImportError, match="none of which runs on this CPU"):
            _kernels._choose("")

    def test_a_processor_that_runs_only_the_older_builds(self, monkeypatch):
        monkeypatch.setattr(_kernels, "built", lambda: ["x86_64_v4", "x86_64_v3", "x86_64_v2"])
        for level, best in ((4, "x86_64_v4"), (3, "x86_64_v3"), (2, "x86_64_v2")):
            monkeypatch.setattr(_kernels, "cpu_level", lambda level=level: level)
            assert _kernels._choose("") == best
        with pytest.raises(ImportError, match="not usable here"):
            _kernels._choose("x86_64_v3")

    @pytest.fixture
    def copy(self, tmp_path):
        """A copy of the package to break, its best build's folder, and how to run code with it."""
        shutil.copytree(
            FOLDER.parent, tmp_path / "fastnn", ignore=shutil.ignore_patterns("__pycache__", "*.pyx", "*.c")
        )
        build = tmp_path / "fastnn" / "_kernels" / _kernels.available()[0]
        return build, lambda code: run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}")

    @pytest.mark.parametrize("content", [b"", b"not a library at all"])
    def test_a_broken_build_raises_at_import_and_is_not_replaced(self, copy, content):
        build, run_with = copy
        next(build.glob("*.so")).write_bytes(content)
        done = run_with(WHICH)
        assert done.returncode == 1
        assert f"ImportError: the kernel build {build.name} is broken" in done.stderr

    def test_an_incomplete_build_raises_at_import_and_is_not_replaced(self, copy):
        build, run_with = copy
        next(build.glob("softmax.*.so")).unlink()
        done = run_with(WHICH)
        assert done.returncode == 1
        assert f"ImportError: the kernel build {build.name} lacks softmax" in done.stderr

    def test_a_library_that_does_not_load_raises_when_it_is_used(self, copy):
        build, run_with = copy
        path = next(build.glob("softmax.*.so"))
        path.write_bytes(path.read_bytes()[:16] + bytes(4096))  # only its first bytes are right
        assert run_with(WHICH).stdout.strip() == build.name
        done = run_with("from fastnn import _kernels; hasattr(_kernels, 'softmax')")
        assert done.returncode == 1
        assert "ImportError" in done.stderr


class TestLoading:
    """A build's modules are loaded when a name of them is first used."""

    LOADED = (
        "print(*sorted(name.split('.')[3] for name in sys.modules if name.count('.') == 3 and '_kernels.' in name))"
    )

    def test_the_import_loads_none(self):
        assert run(f"import sys, fastnn; {self.LOADED}").stdout.split() == []

    def test_a_frozen_network_loads_what_its_steps_are_made_of(self, tmp_path):
        path = str(tmp_path / "net")
        layers = fastnn.Linear(4, 3), fastnn.LayerNorm(3), fastnn.ReLU(), fastnn.Linear(3, 2)
        fastnn.freeze(fastnn.Sequential(*layers)).save(path)
        code = f"import sys, numpy as np, fastnn; fastnn.load_frozen({path!r})(np.ones((1, 4), np.float32)); "
        assert run(code + self.LOADED).stdout.split() == ["activation", "linear_step", "rows_forward"]

    @pytest.mark.parametrize("module", _kernels.MODULES)
    def test_the_table_lists_what_a_module_hands_on(self, module):
        build = importlib.import_module(f"fastnn._kernels.{_kernels.ISA}.{module}")
        assert sorted(_kernels.MODULES[module]) == sorted(build.__all__)
        for name in build.__all__:
            assert getattr(_kernels, name) is getattr(build, name)

    def test_a_name_that_no_module_has(self):
        with pytest.raises(AttributeError, match="has no attribute 'convolve'"):
            _kernels.convolve  # noqa: B018


class TestTypes:
    """_kernels/__init__.pyi says what there is at run time."""

    TREE = ast.parse((FOLDER / "__init__.pyi").read_text())

    def declared(self):
        names = {n.name: n for n in self.TREE.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        constants = {n.target.id for n in self.TREE.body if isinstance(n, ast.AnnAssign)}
        return names, constants

    def entry_points(self):
        return {
            name
            for module in _kernels.MODULES
            for name in importlib.import_module(f"fastnn._kernels.{_kernels.ISA}.{module}").__all__
        }

    def test_every_declared_name_exists(self):
        names, constants = self.declared()
        assert [name for name in names.keys() | constants if not hasattr(_kernels, name)] == []

    def test_every_entry_point_is_declared(self):
        names, constants = self.declared()
        assert self.entry_points() - names.keys() - constants == set()

    def test_every_source_is_loaded(self):
        sources = {path.stem for path in FOLDER.glob("*.pyx")}
        assert {name for name in sources if not name.startswith("_")} == set(_kernels.MODULES)

    def test_parameters_agree(self):
        # Compiled functions carry their signature as the first line of the docstring.
        compared = 0
        for name, node in self.declared()[0].items():
            function = getattr(_kernels, name)
            found = re.match(rf"{name}\((.*)\)", (function.__doc__ or "").split("\n")[0].split(" -> ")[0])
            if isinstance(node, ast.FunctionDef) and found:
                typed = [a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
                actual = [re.split(r"[=:]", part)[0].split()[-1] for part in split(found[1]) if part.strip(" */")]
                assert typed == actual, name
                compared += 1
        assert compared > 10


def split(parameters):
    """The parameters of a signature: commas inside brackets belong to defaults."""
    parts, depth = [""], 0
    for character in parameters:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
class TestInstructions:
    """No build holds instructions of a level above its own: it would crash on the machines it is for."""

    def disassembled(self, build):
        libraries = sorted((FOLDER / build).glob("*.so"))
        if not libraries:
            pytest.skip(f"{build} is not built here")
        for library in libraries:
            command = ["objdump", "-d", "--no-show-raw-insn", "-M", "intel", str(library)]
            yield library.name, subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def registers(self, build):
        """Library → the vector and mask registers that its code names."""
        return {name: set(re.findall(r"\b(?:[xyz]mm\d+|k[0-7])\b", code)) for name, code in self.disassembled(build)}

    def test_v4_uses_the_wide_registers(self):
        assert any("zmm0" in used for used in self.registers("x86_64_v4").values())

    def test_v3_has_no_avx512(self):
        allowed = {f"{kind}mm{k}" for kind in "xy" for k in range(16)}
        assert {name: extra for name, used in self.registers("x86_64_v3").items() if (extra := used - allowed)} == {}

    def test_v2_has_no_avx(self):
        allowed = {f"xmm{k}" for k in range(16)}
        assert {name: extra for name, used in self.registers("x86_64_v2").items() if (extra := used - allowed)} == {}
        for name, code in self.disassembled("x86_64_v2"):
            assert "\tv" not in code.replace("\tverr", "").replace("\tverw", ""), name  # AVX's names begin with v

    def test_the_runtime_is_for_the_baseline(self):
        library = next(FOLDER.glob("_runtime*.so"))
        code = subprocess.run(["objdump", "-d", "-M", "intel", str(library)], capture_output=True, text=True).stdout
        assert "ymm0" not in code

"""Build of the compiled parts: the extension table × the ISA table. All metadata is in pyproject.toml.

Environment: ``FASTNN_DEBUG=1`` builds with bounds checks and without optimisation; ``FASTNN_THREADS=none`` builds for
one thread, ``openmp`` with OpenMP's threads in place of our own, to compare; ``FASTNN_BUILD_ISA=x86_64_v3,...`` builds
only those levels (default: all of this machine's family); ``FASTNN_SANITIZE=address,undefined`` builds with the
compiler's sanitizers (see ``make sanitize``).
"""

import copy
import os
import platform
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("src/fastnn/_kernels")
DEBUG = os.environ.get("FASTNN_DEBUG") == "1"
SANITIZE = os.environ.get("FASTNN_SANITIZE")

# Level → compiler flags. One C file per .pyx serves every level: the module's init symbol depends only on the last
# part of its name. prefetchw, which the levels do not name, is a no-operation where a CPU lacks it. `generic` is
# whatever the compiler targets by default (aarch64: NEON).
X86_LEVELS = {
    "x86_64_v2": ["-march=x86-64-v2"],
    "x86_64_v3": ["-march=x86-64-v3", "-mprfchw"],
    "x86_64_v4": ["-march=x86-64-v4", "-mprfchw", "-mprefer-vector-width=512"],
}
LEVELS = X86_LEVELS if platform.machine() in ("x86_64", "AMD64") else {"generic": []}
if chosen := os.environ.get("FASTNN_BUILD_ISA"):
    LEVELS = {level: ({"generic": []} | X86_LEVELS)[level] for level in chosen.split(",")}

# Never -ffast-math: it reorders sums, and GCC's start-up code for it changes the importing process's FPU state.
# -ffp-contract=off keeps fused multiply-adds where the source says fma, so that every level rounds alike.
FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wno-unused-function"]
# Loops that copy or clear a few registers' worth of a local array stay loops: as calls of memcpy they would force the
# array, and what is computed into it, out of the registers.
FLAGS += ["-fno-tree-loop-distribute-patterns"]
# Release builds carry no debug information, which the interpreter's own flags ask for: it is most of a wheel.
FLAGS += ["-O1", "-g"] if DEBUG or SANITIZE else ["-O3", "-g0"]
STRIP = ["-Wl,--strip-all"] if sys.platform == "linux" and not (DEBUG or SANITIZE) else []
# A finding ends the process, so that no run can pass over it.
CHECKS = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"] if SANITIZE else []

# Whose threads (team.h) → flags of the one module that starts them.
THREADS = {"own": ["-pthread"], "openmp": ["-fopenmp", "-DTEAM_OPENMP"], "none": ["-DTEAM_NONE"]}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}


def extension(name: str, source: str, flags: list[str], threads: list[str]) -> Extension:
    """One shared object; the flags for `threads` go to compiler and linker."""
    return Extension(
        name,
        [source],
        include_dirs=[numpy.get_include(), KERNELS.as_posix()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=FLAGS + CHECKS + flags + threads,
        extra_link_args=threads + STRIP + CHECKS,
        libraries=["m"],
        depends=[path.as_posix() for path in KERNELS.glob("*.h")],
    )


def extensions() -> list[Extension]:
    """Names with an underscore (no hot loops) once, for the baseline CPU; every other .pyx once per level."""
    sources = {path.stem: path.as_posix() for path in sorted(KERNELS.glob("*.pyx"))}
    generated = cythonize(
        [Extension(f"fastnn._kernels.{name}", [path]) for name, path in sources.items()],
        include_path=["src"],
        build_dir="build/cython-debug" if DEBUG else "build/cython",  # the C differs: bounds checks
        compiler_directives=DIRECTIVES,
        nthreads=os.cpu_count() or 1,
    )
    c_file = {module.name.rpartition(".")[2]: module.sources[0] for module in generated}
    once = [name for name in c_file if name.startswith("_")]
    threads = {"_runtime": THREADS[os.environ.get("FASTNN_THREADS", "own")]}
    table = [extension(f"fastnn._kernels.{name}", c_file.pop(name), [], threads.get(name, [])) for name in once]
    for level, flags in LEVELS.items():
        table += [extension(f"fastnn._kernels.{level}.{name}", c, flags, []) for name, c in c_file.items()]
    return table


class BuildLevels(build_ext):
    """Builds in parallel, with an object folder per level because the levels share their C files."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count() or 1

    def copy_extensions_to_source(self):
        for level in LEVELS:
            (KERNELS / level).mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def build_extension(self, ext):
        worker = copy.copy(self)
        worker.build_temp = os.path.join(self.build_temp, *ext.name.split(".")[:-1])
        build_ext.build_extension(worker, ext)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildLevels})

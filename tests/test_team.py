"""The thread team by itself (team.c), as fastnn has it and in its other forms; and what Python sees of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastnn import _kernels

HERE = Path(__file__).parent
HEADERS = Path(_kernels.__file__).parent
FORMS = {"own": [], "OpenMP": ["-DTEAM_OPENMP", "-fopenmp"], "none": ["-DTEAM_NONE"]}
PARTS = ("many", "nested", "absent", "helped", "modes", "affinity", "forks", "refused")
ONE_THREAD = {("none", part) for part in ("absent", "helped", "modes", "affinity")}
# libgomp's threads keep the modes and the processors that they began with; without more it ends the process.
IMPOSSIBLE = ONE_THREAD | {("OpenMP", part) for part in ("modes", "affinity", "refused")}

pytestmark = [
    pytest.mark.skipif(os.name != "posix" or shutil.which("cc") is None, reason="needs a C compiler and POSIX"),
    pytest.mark.skipif(not (HEADERS / "team.h").exists(), reason="installed without the sources"),
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="another library is preloaded"),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The program for a form of the team and further compiler switches, each made once; None where they are unknown."""
    folder, made = tmp_path_factory.mktemp("team"), {}

    def program(form, *switches):
        key = (form, switches)
        if key not in made:
            target = folder / f"team{len(made)}"
            command = ["cc", "-O2", "-g", "-pthread", "-Wall", "-Wextra", "-Werror", *FORMS[form], *switches]
            command += [f"-I{HEADERS}", str(HERE / "team.c"), "-o", str(target), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True)
            usable = done.returncode == 0 and subprocess.run([target], capture_output=True).returncode == 0
            if not switches and form != "OpenMP":
                assert usable, done.stderr
            made[key] = target if usable else None
        return made[key] or pytest.skip(f"the compiler has no {form} {switches}")

    return program


def run(program, part):
    environment = os.environ | {"TSAN_OPTIONS": "die_after_fork=0"}
    done = subprocess.run([program, part], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("form", FORMS)
def test_every_block_is_done_once(form, part, compiled):
    if (form, part) in IMPOSSIBLE:
        pytest.skip("not of this form")
    assert run(compiled(form), part) == form


@pytest.mark.parametrize("part", PARTS[:-1])
def test_no_data_race(part, compiled):
    assert run(compiled("own", "-fsanitize=thread"), part) == "own"


@pytest.mark.skipif(_kernels.team_kind() != "own", reason="another team")
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
def test_workers_start_when_needed_are_shared_and_take_no_signals():
    code = """
import os, signal, threading, time, numpy as np, fastnn, fastnn.functional as F
def workers(expected):  # their masks of blocked signals, when as many are there; a new thread takes a moment to begin
    for _ in range(500):
        tasks = [open(f"/proc/self/task/{task}/status").read() for task in os.listdir("/proc/self/task")]
        found = [int(task.split("SigBlk:")[1].split()[0], 16) for task in tasks if "Name:\\tfastnn" in task]
        if len(found) == expected:
            return found
        time.sleep(0.01)
    os._exit(len(found) + 10)
fastnn.set_num_threads(3)
x = np.ones((2048, 512), np.float32)
F.relu(x[:8])
workers(0)
callers = [threading.Thread(target=lambda: [F.relu(x) for _ in range(20)]) for _ in range(6)]
[t.start() for t in callers], [t.join() for t in callers]
blocked = workers(2)
bit = lambda number: 1 << number - 1
assert all(b & bit(2) and b & bit(14) and b & bit(15) and not b & (bit(11) | bit(signal.SIGSYS)) for b in blocked)
child = os.fork()
if child == 0:
    assert fastnn.get_num_threads() == 1
    F.relu(x)
    workers(0)
    fastnn.set_num_threads(2)
    assert F.relu(x)[0, 0] == 1
    workers(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0  # 2560 + 256·n: n workers
print("fine")
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["fine"], done.stderr

"""The thread policy: what limits the number, what overrides it, and that a forked child does not hang."""

import math
import os
import signal
import subprocess
import sys

import pytest

import fastnn
from fastnn import _kernels, _threads

needs_team = pytest.mark.skipif(_kernels.team_kind() == "none", reason="built without threads")


def run(code, **environment):
    """What a fresh process prints."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FASTNN_NUM_THREADS", "OMP_NUM_THREADS")}
    kept["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, timeout=60
    )


COUNT = "import fastnn; print(fastnn.get_num_threads())"


@pytest.fixture
def default_threads():
    before = fastnn.get_num_threads()
    yield
    fastnn.set_num_threads(before)


class TestQuota:
    def fake(self, tmp_path, lines, files):
        proc, root = tmp_path / "cgroup", tmp_path / "fs"
        proc.write_text("".join(line + "\n" for line in lines))
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return _threads._cgroup_quota(proc, root)

    def test_version_2(self, tmp_path):
        assert self.fake(tmp_path, ["0::/a/b"], {"a/b/cpu.max": "150000 100000\n"}) == 1.5

    def test_version_2_without_a_limit(self, tmp_path):
        assert self.fake(tmp_path, ["0::/a"], {"a/cpu.max": "max 100000\n"}) == math.inf

    def test_the_tightest_ancestor_binds(self, tmp_path):
        files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000", "cpu.max": "300000 100000"}
        assert self.fake(tmp_path, ["0::/a/b"], files) == 0.5

    def test_inside_a_container_the_mount_is_the_group(self, tmp_path):
        assert self.fake(tmp_path, ["0::/docker/123"], {"cpu.max": "200000 100000"}) == 2

    def test_version_1(self, tmp_path):
        files = {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}
        assert self.fake(tmp_path, ["5:memory:/a", "4:cpu,cpuacct:/a"], files) == 2.5

    def test_version_1_without_a_limit(self, tmp_path):
        files = {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}
        assert self.fake(tmp_path, ["4:cpu:/a"], files) == math.inf

    def test_both_versions_mounted(self, tmp_path):
        files = {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000", "cpu.max": "400000 100000"}
        assert self.fake(tmp_path, ["0::/", "4:cpu:/"], files) == 1

    @pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "100000 0"])
    def test_what_cannot_be_read_is_no_limit(self, tmp_path, text):
        assert self.fake(tmp_path, ["0::/"], {"cpu.max": text}) == math.inf

    def test_no_control_groups(self, tmp_path):
        assert _threads._cgroup_quota(tmp_path / "missing", tmp_path) == math.inf


class TestDefault:
    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch):
        monkeypatch.delenv("FASTNN_NUM_THREADS", raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(_threads, "_affinity", lambda: 8)
        monkeypatch.setattr(_threads, "_cgroup_quota", lambda: math.inf)
        self.patch = monkeypatch

    def test_affinity(self):
        assert _threads._default() == 8

    @pytest.mark.parametrize(("quota", "threads"), [(0.2, 1), (1.0, 1), (1.5, 2), (6.0, 6), (64.0, 8)])
    def test_quota_is_rounded_up(self, quota, threads):
        self.patch.setattr(_threads, "_cgroup_quota", lambda: quota)
        assert _threads._default() == threads

    @pytest.mark.parametrize(
        ("text", "threads"), [("3", 3), ("3,2", 3), (" 5 ", 5), ("100", 8), ("0", 8), ("", 8), ("x", 8), ("-2", 8)]
    )
    def test_omp_num_threads(self, text, threads):
        self.patch.setenv("OMP_NUM_THREADS", text)
        assert _threads._default() == threads

    def test_our_variable_overrides_all(self):
        self.patch.setenv("FASTNN_NUM_THREADS", "12")
        self.patch.setenv("OMP_NUM_THREADS", "2")
        assert _threads._default() == 12

    @pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
    def test_a_bad_value_is_an_import_error(self, text):
        self.patch.setenv("FASTNN_NUM_THREADS", text)
        with pytest.raises(ImportError, match=f"FASTNN_NUM_THREADS must be an integer of at least 1, got '{text}'"):
            _threads._default()


class TestProcess:
    @needs_team
    def test_environment(self):
        assert run(COUNT, FASTNN_NUM_THREADS="3").stdout.strip() == "3"
        assert run(COUNT, OMP_NUM_THREADS="1").stdout.strip() == "1"

    def test_a_bad_value_stops_the_import(self):
        done = run(COUNT, FASTNN_NUM_THREADS="none")
        assert done.returncode == 1
        assert "ImportError: FASTNN_NUM_THREADS must be an integer" in done.stderr

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
    def test_affinity(self):
        confine = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]);"
        assert run(confine + COUNT).stdout.strip() == "1"


class TestSetting:
    @needs_team
    @pytest.mark.parametrize("n", [1, 2, 17])
    def test_is_honoured(self, n, default_threads):
        fastnn.set_num_threads(n)
        assert fastnn.get_num_threads() == n

    @pytest.mark.parametrize("n", [0, -1, 2**16 + 1])
    def test_range(self, n):
        before = fastnn.get_num_threads()
        with pytest.raises(ValueError, match=f"n must be at least 1 .*, got {n}"):
            fastnn.set_num_threads(n)
        assert fastnn.get_num_threads() == before

    @pytest.mark.parametrize("n", [1.0, "2", None, True])
    def test_type(self, n):
        with pytest.raises(TypeError, match=f"n must be an integer, got {type(n).__name__}"):
            fastnn.set_num_threads(n)


FORK = """
import os, sys
import numpy as np
import fastnn, fastnn.functional as F
fastnn.set_num_threads(2)
x = np.random.default_rng(0).standard_normal((4096, 1024)).astype(np.float32)
before = F.relu(x)  # the parent has a team now
child = os.fork()
if child == 0:
    assert fastnn.get_num_threads() == 1
    assert (F.relu(x) == before).all()
    fastnn.set_num_threads(2)
    assert fastnn.get_num_threads() == 2
    os._exit(0 if (F.relu(x) == before).all() else 3)
_, status = os.waitpid(child, 0)
assert fastnn.get_num_threads() == 2
print("child", os.waitstatus_to_exitcode(status))
"""


@needs_team
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_begins_with_one_thread_and_does_not_hang():
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORK],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        pytest.fail("the forked child hung")
    assert (out.strip(), process.returncode) == ("child 0", 0), err


@needs_team
def test_many_python_threads_may_call_at_once(default_threads):
    import concurrent.futures

    import numpy as np

    import fastnn.functional as F

    fastnn.set_num_threads(2)
    x = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    expected = F.relu(x)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: F.relu(x), range(16)):
            np.testing.assert_array_equal(result, expected)


STRESS = os.path.join(os.path.dirname(__file__), "stress.py")
ON_LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")


@ON_LINUX
@pytest.mark.parametrize("options", [["--forks", "20", "--busy", "2"], ["--threads", "16", "--calls", "320"]], ids=str)
def test_stress_in_small(options):
    """Forks beside computing threads, and many threads at once: all right, none hangs, no thread is left over."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, STRESS, *options], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


MULTIPROCESSING = """
import multiprocessing, warnings, numpy as np, fastnn, fastnn.functional as F
warnings.simplefilter("ignore")
fastnn.set_num_threads(2)
x = np.ones((2048, 512), np.float32)
def work(k):
    return float(F.layer_norm(x + k * np.arange(512, dtype=np.float32), 512)[0, 0])
if __name__ == "__main__":
    expected = [work(k) for k in range(8)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map_async(work, range(8)).get(timeout=30) == expected
    print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_multiprocessing_by_fork():
    done = run(MULTIPROCESSING)
    assert done.stdout.split() == ["fine"], done.stderr


OPTIMIZER = """
import sys, threading, numpy as np, fastnn
sys.setswitchinterval(1e-6)
fastnn.set_num_threads(2)
STEPS, THREADS = 3, 4
for trial in range(60):
    wide = trial % 2  # arrays that kernels take as they are, and others, which they take as copies
    parameters = [fastnn.Parameter(np.ones((100_000, 1 + wide), np.float32)[:, 0]) for _ in range(4)]
    optimizer = fastnn.SGD(parameters, lr=2.0**-10, momentum=0.5)
    accumulator = fastnn.GradientAccumulator(parameters, statistics=True)
    def work(k):
        for _ in range(STEPS):
            optimizer.step()
            fastnn.optim.clip_grad_norm(parameters, 1.0)
            accumulator.add(1.0)
            optimizer.zero_grad()
            if k == 0:
                optimizer.load_state_dict(optimizer.state_dict())
                accumulator._bind()
    team = [threading.Thread(target=work, args=(k,)) for k in range(THREADS)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert all((p.data == 1).all() for p in parameters)
print("fine")
"""


def test_an_optimizer_shared_by_threads_keeps_its_memory_whole():
    """The first step, which makes the buffers, most of all. All gradients are zeros, so that every order is right."""
    done = run(OPTIMIZER, MALLOC_MMAP_THRESHOLD_="65536")  # glibc unmaps what is freed: who still uses it ends
    assert done.stdout.split() == ["fine"], done.stderr


def test_evaluation_in_many_threads_gives_the_same_bits():
    """Layers in evaluation mode and generators are shared by threads; every operation runs beside every other."""
    import concurrent.futures

    import numpy as np

    from operations import FUNCTIONS, network

    def everything(_):
        return [a.tobytes() for op in FUNCTIONS.values() for a in op.run(op.arguments(np.float32))]

    model, x = network(np.float32).eval(), np.ones((3, 4, 4, 6), np.float32)
    generator = fastnn.Generator(3)
    expected, y = everything(0), model(x).tobytes()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for result in pool.map(everything, range(8)):
            assert result == expected
        assert set(pool.map(lambda _: model(x).tobytes(), range(64))) == {y}
        draws = list(pool.map(lambda _: generator.words((4,)).tobytes(), range(200)))
    assert len(set(draws)) == 200  # no stream was given out twice
    assert generator.stream == 200

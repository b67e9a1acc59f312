"""The process survives: flat memory, MemoryError, forks, user threads, the same bits on any number of threads."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import deepseek
import deepseek.nn.functional as F
import pytest
from deepseek import Tensor, nn
from deepseek.models import LanguageModel, ModelConfig


def run_script(script: str, timeout: float = 120, **environment: str) -> str:
    """Runs Python code in a process of its own, so that a hang or an abort fails one test only; returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# --- memory -----------------------------------------------------------------------------------------------------------


class Doubled(deepseek.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 2 + x * 0


def make_varied_step() -> Callable[[], None]:
    """A training step with everything that could hold on to memory: hooks, views, in-place, Function, second order."""
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 4))
    optimizer = deepseek.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = deepseek.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.999**step)
    x, target = deepseek.randn(8, 16), deepseek.randint(0, 4, (8,))

    def step() -> None:
        optimizer.zero_grad()
        inputs = x.clone().requires_grad_()
        hidden = Doubled.apply(model[:3](inputs))
        hidden.register_hook(lambda grad: grad * 1.0)
        hidden[:, 0] *= 0.5
        hidden.view(-1)[3:7].add_(1.0)
        loss = F.cross_entropy(model[3:](hidden), target)
        (slope,) = deepseek.autograd.grad(loss, inputs, create_graph=True)
        (loss + slope.square().sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()

    return step


def resident_bytes() -> int:
    """Without files mapped in: the kernel drops and reloads their pages as it likes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.nosan
def test_memory_is_flat_over_2000_training_steps() -> None:
    step = make_varied_step()
    for _ in range(200):
        step()
    gc.collect()
    resident, allocated = [resident_bytes()], deepseek.memory_stats()["allocated_bytes"]
    objects = len(gc.get_objects())
    for _ in range(2):
        for _ in range(1000):
            step()
        gc.collect()
        resident.append(resident_bytes())
    assert deepseek.memory_stats()["allocated_bytes"] == allocated
    assert len(gc.get_objects()) - objects < 200  # a leak of one object a step would be 2,000
    grown = min(after - before for before, after in pairwise(resident))  # a leak shows in both halves
    assert grown < 1 << 20, f"{grown / 1000:.0f} bytes a step"  # one leaked 16 x 32 gradient a step would be 2 MB


def test_failed_calls_do_not_leak() -> None:
    a, b = deepseek.randn(64, 64, requires_grad=True), deepseek.randn(3, 5)

    def fail() -> None:
        with pytest.raises(RuntimeError):
            a.exp() @ b
        with pytest.raises(RuntimeError):
            a.exp().backward()  # not a scalar
        y = a.exp()
        with deepseek.no_grad():
            y.add_(1)
        with pytest.raises(RuntimeError, match="inplace"):
            y.sum().backward()

    fail()
    gc.collect()
    before = deepseek.memory_stats()["allocated_bytes"]
    for _ in range(20):
        fail()
    gc.collect()
    assert deepseek.memory_stats()["allocated_bytes"] == before


TOO_BIG: dict[str, Callable[[], object]] = {
    "empty": lambda: deepseek.empty((2**40, 2**20)),
    "empty_uint8": lambda: deepseek.empty(2**50, dtype=deepseek.uint8),
    "zeros": lambda: deepseek.zeros(2**45),
    "full": lambda: deepseek.full((2**30, 2**20), 1.5),
    "randn": lambda: deepseek.randn(2**45),
    "arange": lambda: deepseek.arange(2**50),
    "eye": lambda: deepseek.eye(2**25),
    "expand_then_copy": lambda: deepseek.ones(1).expand(2**45).contiguous(),
    "broadcast_add": lambda: deepseek.ones(2**24, 1) + deepseek.ones(1, 2**24),
    "matmul": lambda: deepseek.ones(2**24, 1) @ deepseek.ones(1, 2**24),
    "repeat": lambda: deepseek.ones(2**20).repeat(2**25),
    "one_hot": lambda: F.one_hot(deepseek.zeros(2**12, dtype=deepseek.int64), 2**40),
    "pad": lambda: F.pad(deepseek.ones(2), (0, 2**45)),
    "convert": lambda: deepseek.ones(1, dtype=deepseek.uint8).expand(2**45).double(),
}


@pytest.mark.parametrize("name", TOO_BIG)
def test_absurd_sizes_raise_memory_error_and_the_next_op_works(name: str) -> None:
    before = deepseek.memory_stats()["allocated_bytes"]
    with pytest.raises(MemoryError, match=r"\d"):
        TOO_BIG[name]()
    gc.collect()
    assert deepseek.memory_stats()["allocated_bytes"] == before
    assert (deepseek.ones(1000) + 1).sum().item() == 2000


@pytest.mark.parametrize("shape", [(2**40, 2**40), (2**62, 4), (2**63 - 1, 2)])
def test_sizes_beyond_64_bits_are_errors(shape: tuple[int, ...]) -> None:
    with pytest.raises((RuntimeError, MemoryError)):
        deepseek.empty(shape)
    assert deepseek.ones(2).sum().item() == 2


@pytest.mark.nosan
def test_the_limit_of_the_address_space_is_a_memory_error() -> None:
    run_script("""
        import resource
        import deepseek

        x = deepseek.randn(512, 512)
        (x @ x).sum()  # the threads exist before the limit does
        now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (192 << 20),) * 2)

        for round in range(3):
            held = []
            try:
                while True:
                    held.append(deepseek.ones(1 << 20))  # 4 MiB
            except MemoryError as error:
                assert "1048576" in str(error), error
            assert 10 < len(held) < 60, len(held)
            assert held[-1].sum().item() == 1 << 20
            del held
            deepseek.empty_cache()
            assert (x + 1 - x).sum().item() > 0
            assert deepseek.ones(1 << 20).sum().item() == 1 << 20

        # Out of memory in the middle of backward: the graph is dropped, and a new one works.
        w = deepseek.ones(1 << 20, requires_grad=True)
        for attempt in range(2):
            y = w
            for _ in range(8):
                y = y * 1.5
            loss, hog = y.sum(), []
            try:
                while True:
                    hog.append(deepseek.empty(1 << 18))
            except MemoryError:
                pass
            try:
                loss.backward()
                raise SystemExit("backward found memory where there was none")
            except MemoryError:
                pass
            del hog, y, loss
            w.grad = None
            (w * 3).sum().backward()
            assert w.grad[0].item() == 3.0
            w.grad = None
    """)


# --- forks and threads ------------------------------------------------------------------------------------------------


def test_forked_children_finish_after_heavy_work() -> None:
    out = run_script("""
        import os
        import deepseek

        deepseek.set_num_threads(2)
        deepseek.manual_seed(0)
        a = deepseek.randn(384, 384, requires_grad=True)

        def work():
            a.grad = None
            loss = ((a @ a).softmax(-1).exp().sum(0) ** 2).mean() + a.reshape(-1).sort().values[::2].sum()
            loss.backward()
            return a.grad.double().square().sum().item(), loss.item()

        expected = work()
        for round in range(3):
            for threads in (None, 1, 2):
                child = os.fork()
                if child == 0:
                    if threads:
                        deepseek.set_num_threads(threads)
                    ok = deepseek.get_num_threads() == (threads or 1) and all(work() == expected for _ in range(3))
                    os._exit(0 if ok else 1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, (round, threads)
            assert work() == expected  # the parent's pool still works
        grandchild = os.fork()
        if grandchild == 0:
            if os.fork() == 0:
                os._exit(0 if work() == expected else 1)
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
        print("done")
    """)
    assert out == "done\n"


def test_multiprocessing_pool_after_heavy_work() -> None:
    out = run_script("""
        import multiprocessing
        import deepseek

        def work(seed):
            generator = deepseek.Generator().manual_seed(seed)
            x = deepseek.randn(256, 256, generator=generator)
            return (x @ x).abs().sum().item()

        expected = [work(seed) for seed in range(6)]
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert pool.map(work, range(6)) == expected
        print("done")
    """)
    assert out == "done\n"


@pytest.mark.threads
def test_user_threads_train_side_by_side() -> None:
    def train(seed: int) -> float:
        generator = deepseek.Generator().manual_seed(seed)
        w = deepseek.randn(64, 64, generator=generator).requires_grad_()
        x = deepseek.randn(512, 64, generator=generator)
        for _ in range(20):
            w.grad = None
            (x @ w).tanh().square().mean().backward()
            with deepseek.no_grad():
                w -= 0.5 * w.grad
        return w.detach().double().sum().item()

    expected = [train(seed) for seed in range(4)]
    found: dict[int, float] = {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: train(seed)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found.get(seed) for seed in range(4)] == expected


@pytest.fixture
def thread_count() -> Iterator[Callable[[int], None]]:
    before = deepseek.get_num_threads()
    yield deepseek.set_num_threads
    deepseek.set_num_threads(before)


def bits(tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for t in tensors:
        digest.update(t.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def train_language_model(steps: int) -> tuple[str, str]:
    """Bits of the losses and of all parameters after some steps, large enough for every kernel to use its threads."""
    deepseek.manual_seed(7)
    config = ModelConfig(vocab_size=256, dim=64, n_heads=4, n_layers=2, context=64)
    model = LanguageModel(config)
    optimizer = deepseek.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        tokens = deepseek.randint(0, 256, (16, 65))
        optimizer.zero_grad()
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.rebalance_experts()
        losses.append(loss.detach())
    return bits(losses), bits(list(model.parameters()))


def test_training_gives_the_same_bits_on_any_number_of_threads(thread_count: Callable[[int], None]) -> None:
    results = []
    for threads in (1, 2, 3, 2):
        thread_count(threads)
        results.append(train_language_model(20))
    assert all(result == results[0] for result in results)


# --- the process around us --------------------------------------------------------------------------------------------


def test_import_and_work_leave_the_floating_point_mode_alone() -> None:
    out = run_script("""
        import ctypes, platform, sys, threading

        libm = ctypes.CDLL("libm.so.6")
        def mxcsr():
            env = ctypes.create_string_buffer(64)
            assert libm.fegetenv(env) == 0
            return int.from_bytes(env.raw[28:32], "little") & 0xFFC0  # the last word of x86-64's fenv_t, less the flags

        x86 = platform.machine() == "x86_64"
        before = mxcsr() if x86 else 0
        tiny = sys.float_info.min
        import deepseek
        if x86:
            assert mxcsr() == before == 0x1F80, hex(mxcsr())
        x = deepseek.randn(600, 600, requires_grad=True)
        (x @ x).softmax(-1).sum().backward()
        if x86:
            assert mxcsr() == before, hex(mxcsr())
        assert tiny / 4 > 0
        # Subnormal numbers survive in kernels, in the pool's threads too.
        small = deepseek.full((1 << 20,), 1e-40)
        assert (small * 1.0 > 0).all().item() and (small + small > small).all().item()
        assert deepseek.full((4096,), 5e-324, dtype=deepseek.float64).sum().item() > 0
        print("done")
    """)
    assert out == "done\n"


def test_no_other_thread_pool() -> None:
    pytest.importorskip("threadpoolctl")
    out = run_script("""
        import deepseek
        x = deepseek.randn(300, 300)
        (x @ x).double().matmul(x.double())
        import threadpoolctl
        print(threadpoolctl.threadpool_info())
    """)
    assert out == "[]\n"


def test_thread_count_from_the_environment() -> None:
    script = "import deepseek; print(deepseek.get_num_threads())"
    assert run_script(script, DEEPSEEK_NUM_THREADS="1", OMP_NUM_THREADS="2") == "1\n"
    assert run_script(script, OMP_NUM_THREADS="1") == "1\n"
    assert run_script("import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n" + script) == "1\n"


# --- beyond 2^31 elements ---------------------------------------------------------------------------------------------

HUGE = 2**31 + 7


def available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


@pytest.fixture
def room_for_huge() -> Iterator[None]:
    if available_bytes() < 5 * HUGE:
        pytest.skip("needs 10 GB of free memory")
    yield
    gc.collect()
    deepseek.empty_cache()


@pytest.mark.slow
@pytest.mark.nosan
@pytest.mark.parametrize("dtype", [deepseek.uint8, deepseek.int8], ids=str)
def test_more_than_two_billion_elements(dtype: deepseek.dtype, room_for_huge: None) -> None:
    x = deepseek.zeros(HUGE, dtype=dtype)
    assert x.numel() == HUGE
    x[-1] = 3
    x[2**31] = 5
    x[0] = 1
    assert x[HUGE - 1].item() == 3 and x[2**31].item() == 5
    assert x.sum().item() == 9
    assert x.max().item() == 5 and x.argmax().item() == 2**31
    assert x.count_nonzero().item() == 3
    assert x.nonzero().flatten().tolist() == [0, 2**31, HUGE - 1]
    assert x[2**31 - 1 :].tolist() == [0, 5, 0, 0, 0, 0, 0, 3]
    x += 1
    assert x[-2:].tolist() == [1, 4] and x.sum().item() == HUGE + 9
    y = x.clone()
    del x
    assert deepseek.equal(y[-8:], y.flip(0)[:8].flip(0))
    assert (y == 6).any().item()
    places = deepseek.tensor([HUGE - 1, 2**31, 0])
    assert y.index_select(0, places).tolist() == [4, 6, 2] == y[places].tolist()


@pytest.mark.slow
@pytest.mark.nosan
def test_more_than_two_billion_elements_in_two_dims(room_for_huge: None) -> None:
    rows, columns = 2**16 + 1, 2**15
    x = deepseek.ones(rows, columns, dtype=deepseek.int8)
    x[-1, -1] = 7
    assert x.t()[-1, -1].item() == 7
    assert x.sum(0)[-1].item() == rows + 6
    assert x.sum(1)[-1].item() == columns + 6
    assert x.reshape(-1)[-1].item() == 7
    assert deepseek.cat([x[-1:], x[:1]]).tolist()[0][-1] == 7

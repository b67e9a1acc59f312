"""Python threads that compute at the same time get what they would get one after the other. `make tsan` runs this file
under ThreadSanitizer; the tensors are large enough for kernels to run without the interpreter lock, on several threads.
"""

import threading
from collections.abc import Callable

import deepseek
import pytest
from deepseek import Tensor, nn, optim
from deepseek.io import safetensors

pytestmark = pytest.mark.threads
THREADS, ROUNDS = 4, 3
SHARED = deepseek.randn(600, 600, generator=deepseek.Generator().manual_seed(1))  # 1.4 MB


def numbers(seed: int, *size: int) -> Tensor:
    return deepseek.randn(*size, generator=deepseek.Generator().manual_seed(seed))


def ops(seed: int) -> list[Tensor]:
    x = numbers(seed, 600, 600)
    y = (x @ SHARED).softmax(-1) + SHARED.exp().sum(0)
    return [y, y.t().contiguous().cumsum(1), y.sort(1)[0], deepseek.cat([x, SHARED])[::3], y.argmax(1).bincount()]


def in_place(seed: int) -> list[Tensor]:
    x = numbers(seed, 900, 600)
    x[:, ::2] *= SHARED[0, ::2]
    x.view(-1).add_(1).clamp_(-2, 2)
    x[100:700].copy_(SHARED)
    return [x]


def gradients_of_a_shared_leaf(seed: int) -> list[Tensor]:
    x = numbers(seed, 600, 600)
    return list(deepseek.autograd.grad((x @ LEAF).tanh().square().sum(), [LEAF]))


def training(seed: int) -> list[Tensor]:
    generator = deepseek.Generator().manual_seed(seed)
    model = nn.Linear(700, 600)
    with deepseek.no_grad():
        for p in model.parameters():
            p.copy_(deepseek.randn(*p.shape, generator=generator))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(numbers(seed, 500, 700)).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@deepseek.jit
def captured(x: Tensor, w: Tensor) -> Tensor:
    return (x @ w).relu().sum(1)


def replay(seed: int) -> list[Tensor]:
    return [captured(numbers(seed, 600, 600), SHARED)]


def random_numbers(seed: int) -> list[Tensor]:
    generator = deepseek.Generator().manual_seed(seed)
    return [deepseek.rand(700, 700, generator=generator), deepseek.randint(0, 9, (400_000,), generator=generator)]


def files(seed: int) -> list[Tensor]:
    loaded = safetensors.load(safetensors.save({"x": numbers(seed, 600, 600), "t": SHARED.t()}))
    return [loaded["x"], loaded["t"], FILE["b"][: seed + 10], FILE["unaligned"]]


def modes(seed: int) -> list[Tensor]:
    with deepseek.no_grad() if seed % 2 else deepseek.enable_grad():
        y = LEAF * 2
        return [deepseek.tensor([y.requires_grad == (seed % 2 == 0), deepseek.is_grad_enabled() == (seed % 2 == 0)])]


LEAF = numbers(2, 600, 600).requires_grad_()
FILE: dict[str, Tensor] = {}
WORK = [ops, in_place, gradients_of_a_shared_leaf, training, replay, random_numbers, files, modes]


@pytest.fixture(autouse=True, scope="module")
def shared_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "f"
    safetensors.save_file(
        {"b": SHARED, "a": deepseek.ones(3, dtype=deepseek.uint8), "unaligned": SHARED.double()}, path
    )
    FILE.update(safetensors.load_file(path))


def in_threads(work: list[Callable[[int], list[Tensor]]]) -> list[list[Tensor]]:
    """Results of work[i](i), all started at the same moment."""
    results: list[list[Tensor]] = [[] for _ in work]
    start = threading.Barrier(len(work))

    def run(i: int) -> None:
        start.wait()
        results[i] = work[i](i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def check(work: list[Callable[[int], list[Tensor]]]) -> None:
    expected = [function(i) for i, function in enumerate(work)]
    for _ in range(ROUNDS):
        for mine, theirs in zip(in_threads(work), expected, strict=True):
            assert len(mine) == len(theirs)
            assert all(deepseek.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("function", WORK)
def test_one_kind_of_work_side_by_side(function):
    check([function] * THREADS)


def test_all_kinds_of_work_side_by_side():
    check(WORK)


def test_tensors_of_one_open_file(tmp_path):
    """They share one mapping and, each, one storage, made by whichever thread is first."""
    names = [f"t{i}" for i in range(50)]
    safetensors.save_file({name: numbers(i, 1000) for i, name in enumerate(names)}, tmp_path / "f")
    with safetensors.safe_open(tmp_path / "f") as file:
        results = in_threads([lambda i: [file.get_tensor(name) for name in names]] * THREADS)
    for i, tensors in enumerate(zip(*results, strict=True)):
        assert len({t.data_ptr() for t in tensors}) == 1
        assert deepseek.equal(tensors[0], numbers(i, 1000))


def test_a_tensor_that_dies_in_another_thread():
    for _ in range(ROUNDS):
        box = [[numbers(i, 600, 600)] for i in range(THREADS)]
        in_threads([lambda i, box=box: [box[i].pop().sum()]] * THREADS)
        assert box == [[]] * THREADS


def test_backward_into_one_leaf_by_several_threads_loses_nothing() -> None:
    shared = deepseek.zeros(2_000_000).requires_grad_()

    def adds(_: int) -> list[Tensor]:
        for _ in range(4):
            (shared * 1.0).sum().backward()
        return []

    for _ in range(3):
        shared.grad = None
        in_threads([adds] * 3)
        assert bool((shared.grad == 12).all())

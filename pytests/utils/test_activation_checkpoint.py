"""utils.checkpoint: gradients have the bits of the plain call; what differs, or was written, is an error."""

from __future__ import annotations

import collections
import contextlib
import gc
import random
import weakref
from typing import Any

import deepseek
import pytest
from deepseek import _C, nn
from deepseek.autograd import gradcheck, gradgradcheck
from deepseek.utils.checkpoint import checkpoint, checkpoint_sequential, computed_again


def model() -> Any:
    deepseek.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.3), nn.LayerNorm(16), nn.Linear(16, 8))


def gradients(net: Any, call: Any, x: deepseek.Tensor) -> list[deepseek.Tensor]:
    deepseek.manual_seed(1)
    out = call(x)
    found = deepseek.autograd.grad(out.float().pow(2).sum(), [x, *net.parameters()])
    return [*found, out.detach(), deepseek.rand(3)]  # and the random numbers go on as they would


def equal(a: list[deepseek.Tensor], b: list[deepseek.Tensor]) -> bool:
    return all((x == y).all() for x, y in zip(a, b, strict=True))


CALLS = {
    "plain": lambda net: lambda x: checkpoint(net, x),
    "reentrant": lambda net: lambda x: checkpoint(net, x, use_reentrant=True),
    "to the end": lambda net: lambda x: checkpoint(net, x, early_stop=False),
    "in keywords and structures": lambda net: lambda x: checkpoint(lambda a, b: net(a["x"][0]) + b, {"x": [x]}, b=0),
    "nested": lambda net: lambda x: checkpoint(lambda y: checkpoint(net[2:], checkpoint(net[:2], y)), x),
    "one in two": lambda net: lambda x: checkpoint_sequential(net, 2, x),
    "each": lambda net: lambda x: checkpoint_sequential(list(net), 5, x),
    "whole": lambda net: lambda x: checkpoint_sequential(net, 1, x),
}  # fmt: skip


@pytest.mark.parametrize("autocast", [None, deepseek.bfloat16, deepseek.float16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_the_same_bits(name: str, autocast: Any) -> None:
    net, x = model(), deepseek.randn(4, 8).requires_grad_()

    def cast(call: Any) -> Any:
        def run(x: Any) -> Any:
            with contextlib.nullcontext() if autocast is None else deepseek.autocast("cpu", dtype=autocast):
                return call(x)

        return run

    assert equal(gradients(net, cast(CALLS[name](net)), x), gradients(net, cast(net), x))


def test_derivatives() -> None:
    x, w = (deepseek.randn(3, 3, dtype=deepseek.float64).requires_grad_() for _ in range(2))

    def f(x, w):
        return checkpoint(lambda a: deepseek.tanh(a @ w).exp() * a, x)

    assert gradcheck(f, (x, w))
    assert gradgradcheck(f, (x, w))


@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed: int) -> None:
    """Chains of ops cut into checkpoints at random places, nested at random."""
    rng = random.Random(seed)
    steps = [deepseek.tanh, deepseek.sin, lambda t: t * 2, lambda t: deepseek.softmax(t, -1), lambda t: t @ t.mT]
    steps += [lambda t: nn.functional.dropout(t, 0.5), lambda t: t.cumsum(0), lambda t: t + t.mean(), deepseek.exp]
    chain = [rng.choice(steps[:-1]) for _ in range(rng.randint(2, 9))]

    def run(chain: list, x: Any, depth: int) -> Any:
        if len(chain) < 2 or depth > 3:
            for step in chain:
                x = step(x)
            return x
        cut = rng.randint(1, len(chain) - 1)
        first, second = chain[:cut], chain[cut:]
        plan = rng.random(), rng.random()  # drawn outside: the second call must do the same
        state = rng.getstate()

        def one(y):
            rng.setstate(state)
            return run(first, y, depth + 1)

        x = checkpoint(one, x) if plan[0] < 0.7 else one(x)
        return checkpoint(lambda y: run(second, y, 9), x) if plan[1] < 0.7 else run(second, x, 9)

    x = deepseek.randn(5, 5, dtype=deepseek.float64).requires_grad_()
    deepseek.manual_seed(seed)
    plain = x
    for step in chain:
        plain = step(plain)
    deepseek.manual_seed(seed)
    out = run(chain, x, 0)
    assert (out == plain).all()
    want, got = (deepseek.autograd.grad(y.sum(), x)[0] for y in (plain, out))
    assert (want == got).all()


def test_a_second_backward_computes_again() -> None:
    calls = []
    x = deepseek.randn(4).requires_grad_()
    out = checkpoint(lambda t: calls.append(1) or t.exp().sin(), x)
    first = deepseek.autograd.grad(out.sum(), x, retain_graph=True)[0]
    assert (deepseek.autograd.grad(out.sum(), x)[0] == first).all()
    assert len(calls) == 3


def test_without_gradients_it_is_a_call() -> None:
    calls = []
    with deepseek.no_grad():
        out = checkpoint(lambda t: calls.append(1) or t * 2, deepseek.ones(3, requires_grad=True))
    assert not out.requires_grad
    assert len(calls) == 1


def test_it_takes_less_memory() -> None:
    net = nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.GELU()) for _ in range(8)))
    x = deepseek.randn(1024, 256).requires_grad_()

    def held(call: Any) -> int:
        before = deepseek.memory_stats()["allocated_bytes"]
        out = call()
        after = deepseek.memory_stats()["allocated_bytes"]
        del out
        return after - before

    assert held(lambda: checkpoint_sequential(net, 4, x)) < 0.5 * held(lambda: net(x))


def test_contexts_are_entered_for_each_call() -> None:
    log = []

    @contextlib.contextmanager
    def enter(name: str) -> Any:
        log.append(name)
        yield

    x = deepseek.ones(3, requires_grad=True)
    checkpoint(deepseek.exp, x, context_fn=lambda: (enter("first"), enter("second"))).sum().backward()
    assert log == ["first", "second"]


def test_another_second_call_is_an_error() -> None:
    count = [0]

    def grows(t):
        count[0] += 1
        return deepseek.exp(t[: count[0]])

    x = deepseek.ones(4, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"saved .*float32 \[2\] as tensor 0 where the first saved .*float32 \[1\]"):
        checkpoint(grows, x).sum().backward()

    def shrinks(t):
        count[0] += 1
        return deepseek.exp(t) if count[0] % 2 else t + 2

    count[0] = 0
    with pytest.raises(RuntimeError, match="second call saved 0 tensors, the first 1"):
        checkpoint(shrinks, x).sum().backward()


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_tensor_that_the_function_itself_writes_is_an_error(early_stop: bool) -> None:
    def writes(t):
        y = t.exp()
        z = y.sin()  # its gradient needs y
        y.mul_(2)
        return z.exp()

    x = deepseek.randn(3).requires_grad_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        writes(x).sum().backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        checkpoint(writes, x, early_stop=early_stop).sum().backward()


@pytest.mark.parametrize("which", ["argument", "parameter"])
def test_a_tensor_written_in_between_is_an_error(which: str) -> None:
    x, w = (deepseek.randn(3, 3).requires_grad_() for _ in range(2))
    out = checkpoint(lambda t: (t @ w).exp(), x)
    with deepseek.no_grad():
        (x if which == "argument" else w).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "determinism_check must be", lambda x: checkpoint(deepseek.exp, x, determinism_check="all")),
        (NotImplementedError, "debug=True", lambda x: checkpoint(deepseek.exp, x, debug=True)),
        (ValueError, "segments must be from 1 to .*, 1; got 2", lambda x: checkpoint_sequential([deepseek.exp], 2, x)),
        (ValueError, "segments must be from 1", lambda x: checkpoint_sequential([deepseek.exp], 0, x)),
        (ValueError, "Unexpected keyword arguments: use", lambda x: checkpoint_sequential([deepseek.exp], 1, x, use=1)),
        (ZeroDivisionError, "by zero", lambda x: checkpoint(lambda t: t * (1 // 0), x)),
    ],
)  # fmt: skip
def test_bad_calls(error: type[Exception], text: str, call: Any) -> None:
    with pytest.raises(error, match=text):
        call(deepseek.ones(3, requires_grad=True))


def test_an_interrupted_second_call_is_made_again() -> None:
    count = [0]

    def f(t):
        count[0] += 1
        b = t.exp()
        c = b.sin()
        if count[0] == 2:
            raise KeyboardInterrupt
        return c.exp() * b

    x = deepseek.randn(3).requires_grad_()
    out = checkpoint(f, x).sum()
    with pytest.raises(KeyboardInterrupt):
        out.backward()
    out.backward()
    want = deepseek.autograd.grad((x.exp().sin().exp() * x.exp()).sum(), x)[0]
    assert deepseek.allclose(x.grad, want)


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("create_graph", [True, False])
def test_a_function_may_ask_for_derivatives(create_graph: bool, early_stop: bool) -> None:
    def f(t):
        e = (t.exp() * t.sin()).sum()
        (g,) = deepseek.autograd.grad(e, t, create_graph=create_graph)
        return (g * g * t).sum()

    x = deepseek.randn(4, dtype=deepseek.float64).requires_grad_()
    want = deepseek.autograd.grad(f(x), x)[0]
    assert (deepseek.autograd.grad(checkpoint(f, x, early_stop=early_stop), x)[0] == want).all()


def test_a_cycle_through_nested_checkpoints_is_garbage() -> None:
    class Box:
        y: Any = None

    def build() -> Any:
        box, x = Box(), deepseek.randn(3).requires_grad_()

        def inner(t: Any, box: Box = box) -> Any:
            return t.exp()

        box.y = checkpoint(lambda t: checkpoint(inner, t).cos(), x)
        return weakref.ref(box)

    kept = build()
    gc.collect()
    assert kept() is None


def test_arguments_keep_their_types() -> None:
    seen = []

    def f(named, parameter, pair):
        seen.append((type(named), type(parameter), type(pair)))
        return (named["x"] * parameter * pair.a).exp().sum()

    pair = collections.namedtuple("Pair", "a")
    x, p = deepseek.ones(3, requires_grad=True), nn.Parameter(deepseek.ones(3))
    checkpoint(f, collections.defaultdict(list, x=x), p, pair(x * 1)).backward()
    assert seen[0] == seen[1]


def test_casts_of_weights_are_still_kept_afterwards() -> None:
    """As they are not of memory whose address was handed out."""
    net, x = nn.Linear(8, 8), deepseek.randn(2, 8).requires_grad_()
    checkpoint(net, x).sum().backward()
    with computed_again(lambda: net(x), [x, net.weight]) as wide:
        wide.exp().sum().backward()
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        net(x)
        assert _C._autocast_cache_size() > 0


# --- one tensor
def test_a_tensor_that_was_written_is_kept() -> None:
    def run(again: bool) -> Any:
        x = deepseek.ones(3, requires_grad=True)
        with computed_again(lambda: x * 2, [x]) if again else contextlib.nullcontext(x * 2) as wide:
            wide.add_(1)
            out = (wide * wide).sum()
        return deepseek.autograd.grad(out, x)[0]

    assert (run(True) == run(False)).all()


def product(x: deepseek.Tensor, w: deepseek.Tensor, calls: list[int]) -> deepseek.Tensor:
    def compute() -> deepseek.Tensor:
        calls.append(1)
        return nn.functional.dropout(x @ w, 0.5)

    with computed_again(compute, [x, w]) as wide:
        return wide.exp() * wide


def test_a_tensor_is_computed_again() -> None:
    x, w = (deepseek.randn(3, 3, dtype=deepseek.float64).requires_grad_() for _ in range(2))
    calls: list[int] = []
    deepseek.manual_seed(2)
    found = deepseek.autograd.grad(product(x, w, calls).sum(), (x, w))
    assert len(calls) == 2
    deepseek.manual_seed(2)
    wide = nn.functional.dropout(x @ w, 0.5)
    plain = deepseek.autograd.grad((wide.exp() * wide).sum(), (x, w))
    assert equal(list(found), list(plain))
    with deepseek.no_grad():
        product(x, w, calls)
    assert len(calls) == 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_source_written_in_between_is_an_error(which: int) -> None:
    sources = [deepseek.randn(3, 3).requires_grad_() for _ in range(2)]
    out = product(*sources, [])
    with deepseek.no_grad():
        sources[which].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()

"""``deepseek.jit``: functions that run on every replay, weak references, containers that are one, late imports."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import deepseek
import numpy as np
import pytest

T: Any = deepseek
F = T.nn.functional


@T.jit.disable
def run(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@T.jit.disable
def read(o: Any) -> Any:
    return o.x * 2


@T.jit.disable
def sum_of(items: Any) -> Any:
    return sum(items, T.zeros(2))


@dataclasses.dataclass
class Holder:
    x: Any

    def twice(self) -> Any:
        return self.x * 2


def make_closure(x: Any) -> Callable[[], Any]:
    return lambda: x * 3


def undone(x: Any) -> Any:
    KEPT.x = x
    y = read(KEPT)
    KEPT.x = None
    return y


KEPT = Holder(None)
MADE_IN_CALL = {
    "closure": lambda x: run(lambda: x * 3),
    "factory": lambda x: run(make_closure(x)),
    "disabled": lambda x: T.jit.disable(lambda: x * 3)(),
    "partial": lambda x: run(functools.partial(T.mul, x, 3)),
    "partial of a closure": lambda x: run(functools.partial(lambda a: a * x, x)),
    "dataclass": lambda x: read(Holder(x)),
    "in a list": lambda x: run(lambda o: o[0].x * 2, [Holder(x)]),
    "bound method": lambda x: run(Holder(x).twice),
    "method of a tensor": lambda x: run(x.sin),
    "default": lambda x: run(lambda a=x: a * 2),
    "generator": lambda x: sum_of(x * k for k in range(3)),
    "iterator": lambda x: sum_of(iter([x, x])),
    "map": lambda x: sum_of(map(T.sin, [x, x])),
    "undone change": undone,
}


@pytest.mark.parametrize("name", MADE_IN_CALL)
def test_what_the_call_made_is_not_reused(name: str) -> None:
    f: Any = T.jit(MADE_IN_CALL[name])
    for k in range(1, 4):
        x = T.tensor([1.0, 2.0]) * k
        assert f(x).tolist() == MADE_IN_CALL[name](x).tolist()
    assert f._eager and "runs eagerly" in f.explain()


def test_step_takes_the_closure_of_each_call() -> None:
    def train(captured: bool) -> Any:
        w = T.ones(2, requires_grad=True)
        optimizer = T.optim.SGD([w], lr=0.25)

        def f(x: Any) -> None:
            def closure() -> Any:
                optimizer.zero_grad()
                loss = (w * x).sum()
                loss.backward()
                return loss

            optimizer.step(closure)

        g: Any = T.jit(f) if captured else f
        for k in range(3):
            g(T.tensor([1.0, 2.0]) * k)
        return w.tolist()

    assert train(True) == train(False)


LATEST = T.ones(2)
WEIGHT = T.ones(2, requires_grad=True)
OPTIMIZER = T.optim.SGD([WEIGHT], lr=0.25)


def known_closure() -> Any:
    OPTIMIZER.zero_grad()
    loss = (WEIGHT * LATEST).sum()
    loss.backward()
    return loss.detach()


def test_a_closure_that_was_there_before_stays_captured() -> None:
    @T.jit
    def f(x: Any) -> Any:
        LATEST.copy_(x)
        OPTIMIZER.step(known_closure)
        return x + 1

    with T.no_grad():
        WEIGHT.fill_(1)
    for k in range(4):
        f(T.tensor([1.0, 2.0]) * k)
    assert not f._eager, f.explain()
    assert WEIGHT.tolist() == [1 - 0.25 * 6, 1 - 0.25 * 12]


class Thing:
    k = 5.0


def test_weak_references_do_not_keep_their_objects() -> None:
    a, b = Thing(), Thing()
    ref, table, members = weakref.ref(a), weakref.WeakValueDictionary({"b": b}), weakref.WeakSet([b])
    proxy: Any = weakref.proxy(b)

    def through_proxy(x: Any) -> Any:
        try:
            return x * proxy.k
        except ReferenceError:
            return x * -1

    functions: list[Any] = [
        lambda x: x * (r.k if (r := ref()) else -1),
        lambda x: x * (r.k if (r := table.get("b")) else -1),
        lambda x: x * len(members),
        through_proxy,
    ]
    compiled = [T.jit(f) for f in functions]
    x = T.ones(2)
    for f, g in zip(functions, compiled, strict=True):
        assert f(x).tolist() == g(x).tolist() == g(x).tolist()
    del a, b
    assert ref() is None
    assert [f(x).tolist() for f in functions] == [g(x).tolist() for g in compiled]
    assert functions[0](x).tolist() == [-1, -1]


LIST: list[Any] = [1.0]
DICT = {"k": 1.0}


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (lambda x, a: x + (a is LIST), [(LIST,), ([1.0],), (LIST,)]),
        (lambda x, a: x + (a is LIST), [([1.0],), (LIST,), ([1.0],)]),
        (lambda x, a: x + (a is DICT), [(DICT,), ({"k": 1.0},), (DICT,)]),
        (lambda x, a, b: x + (a is b), [(LIST, LIST), ([1.0], [1.0]), (LIST, [1.0])]),
        (lambda x, a, b: x + (a[0] is b), [([LIST], LIST), ([[1.0]], [1.0])]),
    ],
)
def test_which_containers_are_one(function: Any, calls: Any) -> None:
    f: Any = T.jit(function)
    x = T.ones(2)
    for args in [*calls, *calls]:
        assert f(x, *args).tolist() == function(x, *args).tolist()
    assert not f._eager, f.explain()


def test_a_container_that_is_handed_back_is_that_one() -> None:
    def f(x: Any, a: Any) -> Any:
        made = [x + 1]
        return x * 2, a, [a], made, (made, LIST), a

    g: Any = T.jit(f)
    for k in range(3):
        a = [T.ones(2) * k, {"k": 1}]
        y, back, (inside,), made, (again, state), last = g(T.ones(2), a)
        assert back is a and inside is a and last is a and again is made and state is LIST and y.tolist() == [2, 2]
    assert not g._eager, g.explain()
    known = (T.ones(1), [T.ones(2)])
    h: Any = T.jit(lambda x, t: (x + 1, t, t[1]))
    for _ in range(3):
        _, t, inner = h(T.ones(1), known)
        assert t is known and inner is known[1]


@pytest.mark.parametrize(
    "body",
    [
        "with T.autocast('cpu'): y = x @ x",
        "y = x * (2 if T.cuda.is_available() else 3)",
        "y = T.linalg.norm(x)",
        "y = T.nn.functional.relu(x)",
        "y = x if T.amp.autocast else x + 1",
    ],
)
def test_a_name_that_loads_on_first_use_does_not_end_the_capture(body: str) -> None:
    program = f"""
import deepseek as T
def f(x):
    {body}
    return y
g = T.jit(f)
x = T.ones(2, 2)
assert g(x).tolist() == g(x).tolist() == f(x).tolist()
assert not g._eager, g.explain()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_what_is_loaded_late_is_watched() -> None:
    program = """
import deepseek as T
def f(x):
    return T.linalg.norm(x)
g = T.jit(f)
x = T.ones(4)
assert g(x).item() == g(x).item() == 2
T.linalg.norm = lambda x: x.sum()
assert g(x).item() == 4
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_one_hot_reads_nothing_back() -> None:
    f: Any = T.jit(lambda i: F.one_hot(i, 4))
    for k in range(3):
        assert f(T.tensor([0, k])).tolist() == np.eye(4)[[0, k]].tolist()
    assert len(f._entries) == 1 and not f._eager, f.explain()
    with pytest.raises(RuntimeError, match=r"smaller than num_classes: 4 is not below 4"):
        f(T.tensor([0, 4]))
    with pytest.raises(RuntimeError, match="non-negative"):
        f(T.tensor([0, -1]))
    with pytest.raises(RuntimeError, match="non-negative"):
        F.one_hot(T.tensor([3, -1]))


@pytest.mark.parametrize("mean", [0.0, T.tensor([1.0, 2.0])])
def test_normal_of_tensors_is_captured(mean: Any) -> None:
    def f(std: Any) -> Any:
        return T.normal(mean, std)

    g: Any = T.jit(f)
    for k in range(3):
        std = T.tensor([1.0, 0.5]) * k
        T.manual_seed(k)
        expected = f(std)
        T.manual_seed(k)
        assert T.equal(g(std), expected)
    assert not g._eager, g.explain()
    with pytest.raises(RuntimeError, match="elements of std >= 0"):
        g(T.tensor([1.0, -1.0]))


def test_numpy_scalars_and_functions_of_them_are_constants() -> None:
    f: Any = T.jit(lambda x: x / np.sqrt(x.shape[-1]) * SCALE + np.float64(2) * np.maximum(1, 3))
    for _ in range(3):
        assert f(T.ones(4)).tolist() == [7.0] * 4
    assert not f._eager, f.explain()
    g: Any = T.jit(lambda x: x * float(np.sqrt(ARRAY)[0]))
    assert [g(T.ones(1)).item(), ARRAY.fill(9), g(T.ones(1)).item()] == [2.0, None, 3.0] and g._eager
    pushes = np.frompyfunc(SEEN.append, 1, 1)
    h: Any = T.jit(lambda x: x * (pushes(1) is None))
    assert [h(T.ones(1)).item() for _ in range(3)] == [1.0] * 3 and len(SEEN) == 3


SCALE, ARRAY = np.float32(2), np.full(1, 4.0)
SEEN: list[Any] = []


@pytest.mark.parametrize("size", [0, 3])
def test_out_of_another_size(size: int) -> None:
    f: Any = T.jit(lambda x, o: T.add(x, 1, out=o))
    for k in range(3):
        o = T.empty(size)
        if size == 3:
            assert f(T.ones(3) * k, o) is o
        else:
            f(T.ones(3) * k, o)
        assert o.tolist() == [k + 1.0] * 3
    assert f._eager == (size == 0)


class Pair(NamedTuple):
    first: Any
    second: Any


def test_named_tuples_may_be_made() -> None:
    @deepseek.jit
    def f(x: Any) -> Any:
        pair = Pair(x + 1, second=x * 2)
        return pair.first * pair._replace(first=x).second

    for value in (1.0, 2.0, 3.0):
        x = deepseek.tensor([value])
        assert f(x).item() == (value + 1) * value * 2
    assert f._entries, f.explain()

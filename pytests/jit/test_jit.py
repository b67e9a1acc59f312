"""``deepseek.jit``: recording and replaying, arguments and results, values that are read back."""

from __future__ import annotations

import copy
from typing import Any

import deepseek
import pytest
from deepseek import nn
from jit_helpers import Net, rand, recordings


def test_a_function_is_recorded_once_and_replayed() -> None:
    calls = []

    @deepseek.jit(verify=True)
    def f(x: Any, y: Any) -> Any:
        calls.append  # noqa: B018  (a global list that stays as it is may be looked at)
        return (x + y).relu() * 2

    for _ in range(3):
        x, y = rand(3, 4), rand(4)
        assert f(x, y).equal((x + y).relu() * 2)
    assert recordings(f) == 1
    assert "relu" in f.graph() and f.graph().startswith("graph(")


def test_compile_is_the_same_and_options_are_checked() -> None:
    assert deepseek.compile is deepseek.jit.compile
    with pytest.raises(TypeError, match="expects a function or a module, got int"):
        deepseek.jit(3)
    with pytest.raises(ValueError, match=r"no pass 'fuse_all'; passes are .*dce"):
        deepseek.jit(lambda x: x, disabled_passes=["fuse_all"])
    with pytest.raises(IndexError, match="0 recordings"):
        deepseek.jit(lambda x: x).graph()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: (deepseek.ones(3, 5), 1.0), "size"),
        (lambda: (deepseek.ones(3, 4, dtype=deepseek.float64), 1.0), "dtype float32 became float64"),
        (lambda: (deepseek.ones(4, 3).t(), 1.0), "strides"),
        (lambda: (deepseek.ones(3, 4, requires_grad=True), 1.0), "requires_grad became True"),
        (lambda: (deepseek.ones(3, 4), 2.0), "the value 1.0 became 2.0"),
        (lambda: (deepseek.ones(3, 4), 1), "the value 1.0 became 1"),
        (lambda: (deepseek.ones(3, 4), -0.0), "the value 1.0 became -0.0"),
        (lambda: ([deepseek.ones(3, 4)], 1.0), "a Tensor became list"),
    ],
)
def test_other_arguments_are_recorded_again(other: Any, reason: str) -> None:
    @deepseek.jit
    def f(x: Any, a: float) -> Any:
        return (x[0] if isinstance(x, list) else x) * a

    f(deepseek.ones(3, 4), 1.0)
    x, a = other()
    expected = (x[0] if isinstance(x, list) else x) * a
    found = f(x, a)
    assert found.equal(expected) and found.dtype == expected.dtype
    assert recordings(f) == 2 and reason in f.explain()


def test_modes_are_guards() -> None:
    f = deepseek.jit(lambda x, w: x @ w)
    x, w = deepseek.ones(2, 2), deepseek.ones(2, 2, requires_grad=True)
    assert f(x, w).requires_grad
    with deepseek.no_grad():
        assert not f(x, w).requires_grad
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        assert f(x, w).dtype == deepseek.bfloat16
    assert f(x, w).dtype == deepseek.float32 and f(x, w).requires_grad
    assert recordings(f) == 3


def test_at_most_eight_recordings_the_oldest_goes() -> None:
    f = deepseek.jit(lambda x, n: x * n)
    x = deepseek.ones(2)
    for n in range(12):
        f(x, n)
        f(x, 0)
    assert recordings(f) == deepseek.jit.capture.MAX_RECORDINGS
    assert deepseek._C._jit_why(*f._entries[0], (x, 0), {}) == ""


def test_as_a_decorator_of_methods() -> None:
    class Half(nn.Module):
        def __init__(self, k: float) -> None:
            super().__init__()
            self.k = k

        @deepseek.jit
        def forward(self, x: Any) -> Any:
            return x * self.k

    x = deepseek.ones(2)
    one, two = Half(1.0), Half(2.0)
    for _ in range(2):
        assert one(x).tolist() == [1.0, 1.0] and two(x).tolist() == [2.0, 2.0]


def test_branches_on_values_are_guards() -> None:
    @deepseek.jit(verify=True)
    def f(x: Any) -> Any:
        return x * 2 if bool(x.sum() > 0) else x - 1

    for sign in (1, -1, 1, -1, 1):
        x = deepseek.ones(3) * sign
        assert f(x).equal(x * 2 if sign > 0 else x - 1)
    assert recordings(f) == 2 and "a value it read back" in f.explain()


def test_a_failed_check_puts_the_generator_back() -> None:
    @deepseek.jit
    def f(x: Any) -> Any:
        noise = deepseek.rand(3)
        return noise if x.sum().item() == 1.0 else noise + 1

    f(deepseek.tensor([1.0]))
    deepseek.manual_seed(5)
    expected = deepseek.rand(3) + 1
    deepseek.manual_seed(5)
    assert f(deepseek.tensor([2.0])).equal(expected)


def test_a_failed_check_puts_grad_back() -> None:
    w = rand(2, grad=True)
    kept = w.grad = deepseek.ones(2, dtype=w.dtype)

    @deepseek.jit
    def f(x: Any) -> Any:
        w.grad = None
        if x.sum().item() != 1.0:
            raise ValueError("the call is made again from here")
        return x

    f(deepseek.tensor([1.0]))
    w.grad = kept
    with pytest.raises(ValueError, match="again"):
        f(deepseek.tensor([2.0]))
    assert w.grad is None


def test_sizes_that_depend_on_values() -> None:
    f = deepseek.jit(lambda x: x[x > 0] * 2, verify=True)
    for values in ([1.0, -1.0, 2.0], [1.0, 1.0, 2.0], [3.0, -1.0, 4.0]):
        x = deepseek.tensor(values)
        assert f(x).equal(x[x > 0] * 2)


def test_a_compiled_function_inside_another() -> None:
    inner = deepseek.jit(lambda x: x * 2)
    outer = deepseek.jit(lambda x: inner(x) + 1)
    for _ in range(2):
        assert outer(deepseek.ones(2)).tolist() == [3.0, 3.0]
    assert "mul" in outer.graph()


def test_the_printed_graph() -> None:
    w = deepseek.ones(4, requires_grad=True)
    f = deepseek.jit(lambda x: (x * w).sum(dim=1, keepdim=True))
    f(deepseek.ones(2, 4))
    lines = f.graph().splitlines()
    assert lines[0] == "graph(%0: float32[2, 4])"
    assert lines[1] == "  %1 = captured float32[4] grad"
    assert lines[2].startswith("  %2 = mul(%0, %1)  # float32[2, 4] grad")
    assert "keepdim=True" in lines[3] and lines[-1].startswith("  return (%")


def test_a_copy_starts_without_recordings() -> None:
    f = deepseek.jit(Net().eval())
    x = deepseek.ones(1, 4)
    f(x)
    g = copy.deepcopy(f)
    assert recordings(g) == 0 and g(x).equal(f(x)) and next(iter(g.parameters())) is not next(iter(f.parameters()))


def test_containers_in_and_out() -> None:
    @deepseek.jit
    def f(batch: dict[str, Any], pair: tuple[Any, ...]) -> dict[str, Any]:
        values, order = (batch["x"] + pair[1]).sort()
        return {"top": (values, order), "n": 3, "none": None}

    for _ in range(2):
        out = f({"x": deepseek.tensor([3.0, 1.0])}, (None, 1.0))
        assert out["top"][0].tolist() == [2.0, 4.0] and out["n"] == 3 and out["none"] is None


def test_a_zero_of_the_other_sign_is_another_value() -> None:
    def scaled(x):
        return x * x.sum().item()

    captured = deepseek.jit(scaled)
    for value in (0.0, -0.0, 0.0, float("nan"), float("nan")):
        x = deepseek.tensor([value])
        assert captured(x).signbit().item() == scaled(x).signbit().item()
    assert captured.explain().count("recorded again") == 2  # -0.0 and NaN; the second 0.0 and NaN are replayed

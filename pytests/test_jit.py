"""``deepseek.jit``: what is captured, what is checked before a replay, and what runs eagerly instead."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn, optim
from deepseek.models import LanguageModel, ModelConfig
from deepseek.train import WindowSampler

SCALE = 2.0
SETTINGS = {"depth": 2}
SEEN: list[Any] = []


def rand(*shape: int, grad: bool = False) -> Any:
    return deepseek.randn(*shape, dtype=deepseek.float64, requires_grad=grad)


def recordings(f: Any) -> int:
    return len(f._entries)


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
    assert deepseek._C._jit_why(f._entries[0][0], (x, 0), {}) == ""


def test_globals_closure_and_containers_are_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    offset = 1.0

    @deepseek.jit
    def f(x: Any) -> Any:
        for _ in range(SETTINGS["depth"]):
            x = x * SCALE + offset
        return x

    x = deepseek.ones(2)
    assert f(x).tolist() == [7.0, 7.0]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert f(x).tolist() == [13.0, 13.0]
    assert "global SCALE changed from 2.0 to 3.0" in f.explain()
    offset = 0.0
    assert f(x).tolist() == [9.0, 9.0]
    monkeypatch.setitem(SETTINGS, "depth", 1)
    assert f(x).tolist() == [3.0, 3.0]


def helper(x: Any) -> Any:
    return x * SCALE


def test_what_called_functions_see_is_guarded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    f = deepseek.jit(lambda x: helper(x) + 1)
    x = deepseek.ones(2)
    assert f(x).tolist() == [3.0, 3.0]
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert f(x).tolist() == [6.0, 6.0]
    monkeypatch.setitem(globals(), "helper", lambda x: x)
    assert f(x).tolist() == [2.0, 2.0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.25)
        self.gain = 1.0
        self.calls = 0

    def forward(self, x: Any) -> Any:
        return self.b(self.drop(self.a(x).relu())) * self.gain


def test_attributes_of_modules_are_guards() -> None:
    net = Net()
    f = deepseek.jit(net)
    x = deepseek.ones(2, 4)
    net.eval()
    assert f(x).equal(net(x))
    net.gain = 3.0
    assert f(x).equal(net(x))
    assert "gain changed from 1.0 to 3.0" in f.explain()
    net.train()
    deepseek.manual_seed(1)
    expected = net(x)
    deepseek.manual_seed(1)
    assert f(x).equal(expected)
    net.eval()
    net.b = nn.Linear(8, 3)
    assert f(x).equal(net(x))
    net.b.weight = nn.Parameter(deepseek.ones(3, 8))
    assert f(x).equal(net(x))
    with deepseek.no_grad():
        net.b.weight.mul_(2)  # the same tensor: no new recording is needed
    before = recordings(f)
    assert f(x).equal(net(x)) and recordings(f) == before
    assert next(iter(f.parameters())) is net.a.weight


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


# --- gradients


def test_gradients_flow_through_a_replay_to_any_order() -> None:
    f = deepseek.jit(lambda x, w: (x @ w).tanh().pow(3).sum(), verify=True)
    x, w = rand(3, 4), rand(4, 2, grad=True)
    f(x, w)
    deepseek.testing.gradcheck(lambda w: f(x, w), (w,))
    deepseek.testing.gradgradcheck(lambda w: f(x, w), (w,))
    assert recordings(f) <= 4, f.explain()  # leaf or not, with and without gradients


def test_a_gradient_taken_inside() -> None:
    @deepseek.jit(verify=True)
    def penalty(x: Any, w: Any) -> Any:
        y = (x * w).sin().sum()
        (g,) = deepseek.autograd.grad(y, w, create_graph=True)
        return g.square().sum()

    w = rand(3, grad=True)
    for _ in range(3):
        x = rand(3)
        (found,) = deepseek.autograd.grad(penalty(x, w), w)
        (expected,) = deepseek.autograd.grad(penalty._function(x, w), w)
        assert found.equal(expected)
    assert recordings(penalty) == 1


def test_grad_accumulates_and_is_set() -> None:
    w = rand(3, grad=True)

    @deepseek.jit(verify=True)
    def f(x: Any) -> None:
        (x * w).sum().backward()

    x = rand(3)
    for n in range(1, 5):
        f(x)
        assert w.grad.allclose(x * n)
    w.grad = None
    f(x)
    assert w.grad.equal(x)
    assert recordings(f) == 1  # None or not: accumulating asks at run time


def test_no_tape_is_made_for_what_stays_inside() -> None:
    w = rand(3, grad=True)

    def f(x: Any) -> Any:
        loss = (x * w).sum()
        (g,) = deepseek.autograd.grad(loss, w)
        return g

    compiled = deepseek.jit(f)
    compiled(rand(3))
    assert not compiled(rand(3)).requires_grad


def train(step: Any, parts: Any, steps: int) -> list[Any]:
    deepseek.manual_seed(3)
    return [step(*parts).detach().clone() for _ in range(steps)]


def build_step(seed: int, set_to_none: bool) -> tuple[Any, Any, Any]:
    deepseek.manual_seed(seed)
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    x, y = deepseek.randn(16, 4), deepseek.randn(16, 3)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = (model(x) - y).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        return loss

    return step, model, optimizer


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_training_step_equals_eager_bit_for_bit(set_to_none: bool) -> None:
    """Dropout, backward, clipping, optimizer and schedule."""
    eager, a, _ = build_step(0, set_to_none)
    step, b, optimizer = build_step(0, set_to_none)
    compiled = deepseek.jit(step, verify=True)
    for steps in (1, 1, 6):
        expected, found = train(eager, (), steps), train(compiled, (), steps)
        assert [t.item() for t in expected] == [t.item() for t in found]
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert p.equal(q) and p.grad.equal(q.grad)
    assert compiled._entries, compiled.explain()
    assert recordings(compiled) <= 2, compiled.explain()
    assert optimizer.state[next(b.parameters())]["step"] == 8


@pytest.mark.parametrize("experts", [0, 4])
def test_the_language_models_step(experts: int) -> None:
    config = ModelConfig(dim=32, expert_dim=16, context=16, ngram_rows=64, n_routed_experts=experts)
    deepseek.manual_seed(0)
    eager = LanguageModel(config)
    captured = copy.deepcopy(eager)

    def make(model: Any) -> Any:
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)

        def step(tokens: Any) -> Any:
            optimizer.zero_grad()
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            return loss

        return step

    plain, compiled = make(eager), deepseek.jit(make(captured), verify=True)
    for _ in range(4):  # other tokens go to other experts, in the same recording
        tokens = deepseek.randint(0, 256, (2, config.context + 1))
        assert plain(tokens).item() == compiled(tokens).item()
    assert compiled._entries, compiled.explain()
    assert recordings(compiled) <= 2, compiled.explain()
    for p, q in zip(eager.parameters(), captured.parameters(), strict=True):
        assert p.equal(q)


# --- writes and views


def test_writes_into_arguments_and_captured_tensors() -> None:
    total = deepseek.zeros(3)

    @deepseek.jit(verify=True)
    def f(x: Any) -> Any:
        x[0] = 5
        x.view(-1)[1:].mul_(2)
        total.add_(x)
        return x

    for n in range(1, 4):
        x = deepseek.ones(3)
        assert f(x) is x and x.tolist() == [5.0, 2.0, 2.0]
        assert total.tolist() == [5.0 * n, 2.0 * n, 2.0 * n]


def test_writes_with_gradients() -> None:
    @deepseek.jit(verify=True)
    def f(x: Any) -> Any:
        y = x * 2
        y[:, 0] *= y[:, 1]
        z = deepseek.zeros(3, 2, dtype=y.dtype)
        z[1:] = y[:2]
        return z.exp().sum()

    for _ in range(3):
        x = rand(3, 2, grad=True)
        (found,) = deepseek.autograd.grad(f(x), x)
        (expected,) = deepseek.autograd.grad(f._function(x), x)
        assert found.equal(expected)
    assert recordings(f) == 1


def test_results_are_fresh_and_views_stay_views() -> None:
    @deepseek.jit
    def f(x: Any) -> tuple[Any, Any, Any]:
        c = deepseek.tensor([1.0, 2.0])
        return x + 1, x[0], c

    x = deepseek.zeros(2, 2)
    f(x)
    a, v, c = f(x)
    b, _, d = f(x)
    a.fill_(9)
    c.fill_(9)
    v.fill_(7)
    assert b.tolist() == [[1.0, 1.0], [1.0, 1.0]] and d.tolist() == [1.0, 2.0]
    assert x.tolist() == [[7.0, 7.0], [0.0, 0.0]]
    assert f(x)[2].tolist() == [1.0, 2.0]


def test_arguments_that_are_one_tensor_are_told_apart() -> None:
    @deepseek.jit
    def f(x: Any, y: Any) -> Any:
        x.add_(1)
        return x * y

    a, b = deepseek.ones(2), deepseek.ones(2)
    assert f(a, b).tolist() == [2.0, 2.0]
    c = deepseek.ones(2)
    assert f(c, c).tolist() == [4.0, 4.0]
    assert "share memory" in f.explain()


# --- values that are read back


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


def test_a_function_that_is_recorded_in_vain_runs_eagerly() -> None:
    f = deepseek.jit(lambda x: x * x.sum().item())
    for n in range(2 * deepseek.jit.capture.MAX_RECORDINGS + 2):
        assert f(deepseek.tensor([float(n)])).item() == float(n * n)
    assert f._eager and "had to be recorded again" in f.explain()


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


# --- what cannot be replayed runs eagerly


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: deepseek.from_numpy((x * 2).numpy()), "NumPy"),
        (lambda x: x + deepseek.tensor(np.ones(2)), "NumPy"),
        (lambda x: ..., "Ellipsis"),
        (lambda x: SEEN.append(x * 2) or x * 2, "SEEN"),
        (lambda x: object(), "object"),
        (lambda x: (x.add_(1), x.sum().item())[0], "read back after"),
        (lambda x: x.clone().requires_grad_(), "requires_grad is changed"),
        (lambda x: deepseek.rand(2, generator=deepseek.Generator()), "generator of its own"),
        (lambda x: deepseek.manual_seed(3) and x, "seeded"),
    ],
)
def test_what_cannot_be_replayed(function: Any, reason: str) -> None:
    f = deepseek.jit(function)
    f(deepseek.ones(2))
    assert not f._entries and "runs eagerly from now on: " in f.explain() and reason in f.explain()
    f(deepseek.ones(2))


def test_iterators_and_modes_are_not_captured() -> None:
    stream = iter([1.0, 2.0, 3.0])
    f = deepseek.jit(lambda x: x * next(stream))
    assert [f(deepseek.ones(1)).item() for _ in range(3)] == [1.0, 2.0, 3.0]
    assert "iterator" in f.explain()

    def g(x: Any) -> Any:
        deepseek.set_grad_enabled(False)
        return x

    try:
        f = deepseek.jit(g)
        f(deepseek.ones(1))
        assert "grad mode" in f.explain()
    finally:
        deepseek.set_grad_enabled(True)


def test_class_attributes_and_function_attributes_are_guards() -> None:
    class Scaled(nn.Module):
        factor = 2.0

        def forward(self, x: Any) -> Any:
            return x * self.factor * scale.by

    def scale() -> None: ...

    scale.by = 1.0
    f = deepseek.jit(Scaled())
    x = deepseek.ones(1)
    assert f(x).item() == 2.0
    Scaled.factor = 3.0
    assert f(x).item() == 3.0
    scale.by = 2.0
    assert f(x).item() == 6.0
    assert "Scaled.factor changed from 2.0 to 3.0" in f.explain()


def test_a_class_seen_by_name_is_guarded_like_any_other() -> None:
    class Scaled:
        factor = 2.0

        def apply(self, x: Any) -> Any:
            return x * self.factor

    one = Scaled()
    f = deepseek.jit(lambda x: one.apply(x) if isinstance(one, Scaled) else x)
    x = deepseek.ones(1)
    assert f(x).item() == 2.0
    Scaled.factor = 3.0
    assert f(x).item() == 3.0


def test_the_order_of_a_dict_does_not_matter_its_items_do() -> None:
    table = {"a": 1.0, "b": 2.0}
    f = deepseek.jit(lambda x: x * table["a"] + table["b"])
    x = deepseek.ones(1)
    assert f(x).item() == 3.0
    table["a"] = table.pop("a")
    assert f(x).item() == 3.0 and recordings(f) == 1
    table["a"], table["b"] = table["b"], table["a"]
    assert f(x).item() == 3.0 and recordings(f) == 2
    assert "table['a'] changed from 1.0 to 2.0" in f.explain()


def test_cycles_through_what_is_watched_are_collected() -> None:
    class Owner:
        def __init__(self) -> None:
            self.gain = 2.0
            self.f = deepseek.jit(lambda x: x * self.gain)

    owner = Owner()
    for _ in range(2):
        assert owner.f(deepseek.ones(1)).item() == 2.0
    alive = weakref.ref(owner)
    del owner
    gc.collect()
    assert alive() is None


def test_arguments_are_not_kept_alive() -> None:
    """A method's recordings belong to the class: they end with the instance, whose tensors they hold."""

    class Gain(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(deepseek.tensor([value]))

        @deepseek.jit
        def scaled(self, x: Any) -> Any:
            return x * self.weight

    one, two = Gain(1.0), Gain(2.0)
    for _ in range(3):
        assert [m.scaled(deepseek.ones(1)).item() for m in (one, two)] == [1.0, 2.0]
    assert recordings(Gain.scaled) == 2
    instance, weight = weakref.ref(one), weakref.ref(one.weight)
    del one
    gc.collect()
    assert instance() is None and weight() is None
    assert recordings(Gain.scaled) == 1 and two.scaled(deepseek.ones(1)).item() == 2.0
    three = Gain(3.0)
    assert [three.scaled(deepseek.ones(1)).item() for _ in range(3)] == [3.0] * 3


def test_cycles_through_arguments_and_host_calls_are_collected() -> None:
    class Plain:
        """Cannot be referred to weakly, so that the recording holds it."""

        __slots__ = ("f",)

    class Owner:
        pass

    def used() -> list[weakref.ref[Any]]:
        plain, owner = Plain(), Owner()
        w = rand(2, grad=True)
        optimizer = deepseek.optim.SGD([w], lr=0.1)

        def step(_: Any) -> Any:
            optimizer.zero_grad()
            loss = (w * w).sum()
            loss.backward()
            optimizer.step()
            return loss

        f = deepseek.jit(step)
        plain.f = owner.f = f  # type: ignore[attr-defined]
        optimizer.owner = owner  # type: ignore[attr-defined]
        for _ in range(3):
            f(plain)
        assert recordings(f), f.explain()
        return [weakref.ref(owner), weakref.ref(optimizer), weakref.ref(f)]

    dead = used()
    gc.collect()
    assert [ref() for ref in dead] == [None] * 3


def test_recordings_dropped_while_one_runs() -> None:
    w = rand(2, grad=True)
    optimizer = deepseek.optim.SGD([w], lr=0.1)
    drop = False

    def hook(*_: Any) -> None:
        if drop:
            f.reset()

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        return w.sum()

    f = deepseek.jit(step)
    optimizer.register_step_post_hook(hook)
    x, y = deepseek.ones(2), deepseek.ones(1)
    for _ in range(3):
        f(x), f(y)
    assert recordings(f) > 1, f.explain()
    drop = True
    f(x)  # the second in the list
    assert recordings(f) == 0


def test_batches_drawn_inside_are_not_captured() -> None:
    windows = WindowSampler(np.arange(1024, dtype=np.int64) % 256, 8, seed=0)
    model = nn.Embedding(256, 2)
    f = deepseek.jit(lambda: model(windows.next_batch(2)[0]))
    first, second = f(), f()
    assert not first.equal(second) and not f._entries


def test_a_changed_attribute_is_noticed() -> None:
    class Counting(Net):
        def forward(self, x: Any) -> Any:
            self.calls += 1
            return super().forward(x)

    net = Counting().eval()
    f = deepseek.jit(net)
    for _ in range(3):
        f(deepseek.ones(1, 4))
    assert net.calls == 3 and "calls changed from 0 to 1" in f.explain()


def test_backward_into_a_graph_from_outside() -> None:
    w = rand(3, grad=True)
    f = deepseek.jit(lambda loss: deepseek.autograd.grad(loss, w)[0])
    for scale in (1.0, 2.0):
        assert f((w * scale).sum()).tolist() == [scale] * 3
    assert "graph made before the call" in f.explain()


class Double(deepseek.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 5  # not the derivative, so that a replay that lost it shows


def test_user_functions() -> None:
    def gradient(x: Any) -> Any:
        return deepseek.autograd.grad(Double.apply(x).sum(), x)[0]

    x = rand(2, grad=True)
    inside = deepseek.jit(gradient)
    assert [inside(x).tolist() for _ in range(3)] == [[5.0, 5.0]] * 3
    outside = deepseek.jit(lambda x: Double.apply(x))
    for _ in range(3):
        assert deepseek.autograd.grad(outside(x).sum(), x)[0].tolist() == [5.0, 5.0]
    assert "user-defined Function" in outside.explain()


def test_an_error_while_recording_leaves_nothing_behind() -> None:
    @deepseek.jit
    def f(x: Any) -> Any:
        if x.shape[0] == 3:
            raise KeyError("three")
        return x + 1

    with pytest.raises(KeyError):
        f(deepseek.ones(3))
    assert not deepseek.jit.is_recording()
    assert f(deepseek.ones(2)).tolist() == [2.0, 2.0]


def test_a_compiled_function_inside_another() -> None:
    inner = deepseek.jit(lambda x: x * 2)
    outer = deepseek.jit(lambda x: inner(x) + 1)
    for _ in range(2):
        assert outer(deepseek.ones(2)).tolist() == [3.0, 3.0]
    assert "mul" in outer.graph()


def test_disabled_functions_run_every_time() -> None:
    log: list[float] = []

    class Sink:
        @staticmethod
        @deepseek.jit.disable
        def note(value: Any) -> Any:
            SEEN.append(value.item())
            return value * 10

    SEEN.clear()
    f = deepseek.jit(lambda x: Sink.note(x.sum()) + 1)
    assert [f(deepseek.tensor([v])).item() for v in (1.0, 2.0, 3.0)] == [11.0, 21.0, 31.0]
    assert SEEN == [1.0, 2.0, 3.0] and not log
    SEEN.clear()


# --- passes


def test_passes_remove_work_and_can_be_switched_off() -> None:
    def f(x: Any) -> Any:
        unused = x.exp().sum()  # noqa: F841
        return (x * 2).sin() + (x * 2).sin()

    full, plain = deepseek.jit(f, verify=True), deepseek.jit(f, disabled_passes=("cse", "dce"), verify=True)
    x = rand(3)
    assert full(x).equal(plain(x)) and full(x).equal(plain(x))
    assert full.graph().count("sin(") == 1 and "exp(" not in full.graph()
    assert plain.graph().count("sin(") == 2 and "exp(" in plain.graph()


def test_common_subexpressions_are_not_shared_across_writes() -> None:
    def f(x: Any) -> Any:
        a = x * 2
        x.add_(1)
        b = x * 2
        c = b + 0
        c.mul_(3)
        return a, b, c

    compiled = deepseek.jit(f, verify=True)
    for _ in range(2):
        found, expected = compiled(deepseek.ones(2)), f(deepseek.ones(2))
        assert [t.tolist() for t in found] == [t.tolist() for t in expected]


@pytest.mark.parametrize("dtype", [deepseek.float32, deepseek.bfloat16])
def test_linear_layers_take_what_follows_along(dtype: Any) -> None:
    layer, gate = nn.Linear(33, 70).to(dtype), nn.Linear(33, 70, bias=False).to(dtype)
    functional = nn.functional

    def f(x: Any, residual: Any) -> Any:
        return (
            functional.gelu(layer(x), approximate="tanh") + residual,
            functional.silu(gate(x)) * layer(x * 2),
            residual + gate(x * 2),
            functional.relu(layer(x.unsqueeze(0))),
        )

    x, residual = rand(5, 33).to(dtype), rand(5, 70).to(dtype)
    compiled = deepseek.jit(f, verify=True)
    with deepseek.no_grad():
        for _ in range(2):
            for found, expected in zip(compiled(x, residual), f(x, residual), strict=True):
                assert found.equal(expected) and found.stride() == expected.stride()
        graph = compiled.graph()
    assert graph.count("_linear_fused(") == 4 and "gelu" in graph and graph.count(" linear(") == 1
    compiled(x, residual)  # with gradients: nothing is fused
    compiled(x, residual)[0].sum().backward()
    assert layer.weight.grad is not None


def test_linear_layers_that_are_seen_by_others_stay_alone() -> None:
    layer = nn.Linear(4, 4)

    def f(x: Any) -> Any:
        first = layer(x)  # returned
        second = layer(x + 1)
        row = second[0]  # a view of it
        second.relu_()
        third = layer(x + 2)
        wide = third + deepseek.ones(2, 3, 4)  # another shape
        fourth = layer(x + 3)
        y = fourth.relu()
        x.mul_(2)  # written before the sum
        fifth = layer(x)
        return first, first.relu(), row, wide, y, fourth, fifth.double().relu()

    compiled = deepseek.jit(f, verify=True)
    with deepseek.no_grad():
        for _ in range(3):
            for found, expected in zip(compiled(deepseek.ones(3, 4)), f(deepseek.ones(3, 4)), strict=True):
                assert found.equal(expected)
        assert "_linear_fused" not in compiled.graph()


def test_nothing_moves_past_what_may_change_its_inputs() -> None:
    """Gradients are added to in place, and arguments may share memory with what was captured."""
    p = deepseek.zeros(6, 8).requires_grad_()
    functional = nn.functional

    def reads_grad(x: Any) -> Any:
        with deepseek.no_grad():
            before = functional.linear(x, p.grad)
        (p * 2).sum().backward()
        with deepseek.no_grad():
            return functional.relu(before), functional.linear(x, p.grad)

    def values(f: Any) -> list[Any]:
        p.grad = deepseek.zeros(6, 8)
        return [[t[0, 0].item() for t in f(deepseek.ones(2, 8))] for _ in range(4)]

    assert values(deepseek.jit(reads_grad, verify=True)) == values(reads_grad)

    w, x = deepseek.ones(4, 4), deepseek.ones(1, 4)

    def writes_argument(target: Any) -> Any:
        before = functional.linear(x, w)
        twice = w * 2
        target.mul_(0)
        return functional.relu(before), twice, w * 2

    compiled = deepseek.jit(writes_argument, verify=True)
    for target in (deepseek.ones(4, 4), deepseek.ones(4, 4), w):
        found = [t.sum().item() for t in compiled(target)]
    assert found == [16, 32, 0]


def test_layers_behind_a_host_function_are_not_fused() -> None:
    """There sizes may be others on a replay."""
    calls: set[int] = set()

    @deepseek.jit.disable
    def source(x: Any) -> Any:
        calls.add(len(calls))
        return x[:1] if len(calls) > 2 else x * 1

    w, other = rand(6, 8), rand(4, 6)
    compiled = deepseek.jit(lambda x: nn.functional.linear(source(x), w) + other, verify=True)
    assert [tuple(compiled(rand(4, 8)).shape) for _ in range(4)] == [(4, 6)] * 4


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


def test_memory_is_freed_after_the_last_use() -> None:
    def chain(x: Any) -> Any:
        for _ in range(30):
            x = x * 1.5
        return x

    f = deepseek.jit(chain)
    x = deepseek.ones(100_000)
    with deepseek.no_grad():
        f(x)
        deepseek.reset_peak_memory_stats()
        before = deepseek.memory_stats()["allocated_bytes"]
        f(x)
        assert deepseek.memory_stats()["peak_bytes"] - before < 4 * x.nbytes
    assert math.isfinite(f(x)[0].item())


def test_a_zero_of_the_other_sign_is_another_value() -> None:
    def scaled(x):
        return x * x.sum().item()

    captured = deepseek.jit(scaled)
    for value in (0.0, -0.0, 0.0, float("nan"), float("nan")):
        x = deepseek.tensor([value])
        assert captured(x).signbit().item() == scaled(x).signbit().item()
    assert captured.explain().count("recorded again") == 2  # -0.0 and NaN; the second 0.0 and NaN are replayed


def test_a_disabled_function_that_returns_a_number_or_fills_a_list_runs_eagerly() -> None:
    calls: list[int] = []

    @deepseek.jit.disable
    def count(x: Any) -> float:
        calls.append(1)
        return float(len(calls))

    @deepseek.jit.disable
    def fill(out: list[Any], x: Any) -> None:
        out.append(x * len(calls))

    def filled(x: Any) -> Any:
        out: list[Any] = []
        fill(out, x)
        return out[0]

    counted = deepseek.jit(lambda x: x * count(x))
    assert [counted(deepseek.ones(1)).item() for _ in range(4)] == [1, 2, 3, 4]
    listed = deepseek.jit(filled)
    assert [(listed(deepseek.ones(1)).item(), calls.append(1))[0] for _ in range(3)] == [4, 5, 6]


def test_a_disabled_function_sees_autocast_on_every_replay() -> None:
    @deepseek.jit.disable
    def product(x: Any) -> Any:
        return x @ x

    f = deepseek.jit(lambda x: product(x) + 0)
    with deepseek.autocast("cpu", dtype=deepseek.bfloat16):
        assert [f(deepseek.eye(2)).dtype for _ in range(3)] == [deepseek.bfloat16] * 3


def test_more_state_than_can_be_watched_is_not_captured() -> None:
    numbers = [1.0] * 2000

    def f(x: Any) -> Any:
        return x * numbers[1500]

    compiled = deepseek.jit(f)
    assert compiled(deepseek.ones(1)).item() == 1
    numbers[1500] = 3.0
    assert compiled(deepseek.ones(1)).item() == 3
    assert "too much state" in compiled.explain()


def test_a_list_inside_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        deepseek.jit(lambda x, y: x + 1)(deepseek.ones(1), endless)

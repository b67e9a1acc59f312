"""Modules: registration, state, modes, conversion and hooks."""

from __future__ import annotations

import copy
import re
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.testing import assert_close

F64 = deepseek.float64


def rand(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0, grad: bool = True) -> deepseek.Tensor:
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return deepseek.tensor(values.tolist(), dtype=F64).reshape(shape).requires_grad_(grad)


class Net(nn.Module):
    """Everything a module can hold: parameters, buffers of both kinds, children, a shared child and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(deepseek.ones(3))
        self.register_buffer("mean", deepseek.zeros(3))
        self.register_buffer("cache", deepseek.zeros(2), persistent=False)
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.ReLU()])
        self.again = self.first

    def forward(self, x: deepseek.Tensor) -> deepseek.Tensor:
        x = self.second(self.first(x * self.scale))
        for block in self.blocks:
            x = block(x)
        return x


# --- registration -----------------------------------------------------------------------------------------------------
def test_names_and_sharing() -> None:
    net = Net()
    names = ["scale", "first.weight", "first.bias", "second.bias", "blocks.0.weight"]
    assert [n for n, _ in net.named_parameters()] == names
    everything = [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert everything == [*names[:3], "second.weight", *names[3:], "again.weight", "again.bias"]
    assert [n for n, _ in net.named_parameters("net", recurse=False)] == ["net.scale"]
    assert [n for n, _ in net.named_buffers()] == ["mean", "cache"]
    assert [n for n, _ in net.named_children()] == ["first", "second", "blocks"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "second", "blocks", "blocks.0", "blocks.1"]
    assert "again" in [n for n, _ in net.named_modules(remove_duplicate=False)]
    assert len(list(net.parameters())) == 5 and len(list(net.buffers())) == 2 and len(list(net.modules())) == 6
    assert net.second.weight is net.first.weight


def test_assignment_moves_between_tables() -> None:
    m = nn.Module()
    m.x = 3
    m.x = nn.Parameter(deepseek.ones(2))
    assert "x" not in m.__dict__ and list(m._parameters) == ["x"]
    m.x = nn.Linear(2, 2)
    assert not m._parameters and list(m._modules) == ["x"]
    m.x = None
    assert m.x is None and list(m._modules) == ["x"]
    del m.x
    m.x = nn.Buffer(deepseek.ones(2), persistent=False)
    assert list(m._buffers) == ["x"] and not m.state_dict()
    m.x = deepseek.zeros(2)
    assert m._buffers["x"].tolist() == [0.0, 0.0] and not m.state_dict()
    m.y = deepseek.ones(2)  # a plain tensor is a plain attribute
    assert "y" in m.__dict__ and [n for n, _ in m.named_buffers()] == ["x"]
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'z'"):
        m.z  # noqa: B018
    assert not hasattr(m, "z") and {"x", "y"} <= set(dir(m))


@pytest.mark.parametrize(
    ("action", "error", "text"),
    [
        (lambda m: setattr(m, "weight", deepseek.ones(2)), TypeError, "as parameter 'weight'"),
        (lambda m: setattr(m, "child", 3), TypeError, "as child module 'child'"),
        (lambda m: setattr(m, "table", 3), TypeError, "as buffer 'table'"),
        (lambda m: m.register_parameter("a.b", None), KeyError, "name can.*t contain"),
        (lambda m: m.register_parameter("", None), KeyError, "empty string"),
        (lambda m: m.register_parameter("forward", None), KeyError, "already exists"),
        (lambda m: m.register_parameter(3, None), TypeError, "should be a string. Got int"),
        (lambda m: m.register_parameter("p", deepseek.ones(2)), TypeError, "Parameter or None required"),
        (lambda m: m.register_buffer("child", None), KeyError, "already exists"),
        (lambda m: m.register_buffer("b", 3), TypeError, "Tensor or None required"),
        (lambda m: m.add_module("m", 3), TypeError, "int is not a Module subclass"),
        (lambda m: m.train(1), ValueError, "boolean"),
        (lambda m: m.get_submodule("child.nothing"), AttributeError, "no attribute `nothing`"),
        (lambda m: m.get_submodule("weight"), AttributeError, "not an nn.Module"),
        (lambda m: m.get_parameter("table"), AttributeError, "not an nn.Parameter"),
        (lambda m: m.get_buffer("weight"), AttributeError, "not a buffer"),
        (lambda m: m.set_submodule("", nn.ReLU()), ValueError, "without a target"),
        (lambda m: m(deepseek.ones(2)), NotImplementedError, 'missing the required "forward"'),
        (lambda m: nn.Parameter([1.0]), TypeError, "expects a Tensor, but got list"),
        (lambda m: nn.Parameter(deepseek.ones(2, dtype=deepseek.int64)), RuntimeError, "(?i)float"),
    ],
)
def test_mistakes(action: Callable[[nn.Module], Any], error: type, text: str) -> None:
    m = nn.Module()
    m.weight = nn.Parameter(deepseek.ones(2))
    m.child = nn.Identity()
    m.register_buffer("table", deepseek.ones(2))
    with pytest.raises(error, match=text):
        action(m)


def test_assignment_before_init() -> None:
    class Early(nn.Module):
        def __init__(self, value: Any) -> None:
            self.value = value

    for value in (nn.Parameter(deepseek.ones(1)), nn.Linear(1, 1), nn.Buffer(deepseek.ones(1))):
        with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
            Early(value)


def test_access_by_path() -> None:
    net = Net()
    assert net.get_submodule("blocks.0") is net.blocks[0] and net.get_submodule("") is net
    assert net.get_parameter("first.weight") is net.first.weight and net.get_buffer("mean") is net.mean
    net.set_submodule("blocks.1", nn.GELU())
    assert isinstance(net.blocks[1], nn.GELU)
    with pytest.raises(AttributeError, match="no attribute `new`"):
        net.set_submodule("new", nn.GELU(), strict=True)


# --- state ------------------------------------------------------------------------------------------------------------
def test_state_dict_round_trip() -> None:
    one, two = Net(), Net()
    with deepseek.no_grad():
        one.mean.add_(5)
    state = one.state_dict()
    assert list(state) == [
        "scale",
        "mean",
        "first.weight",
        "first.bias",
        "second.weight",
        "second.bias",
        "blocks.0.weight",
        "again.weight",
        "again.bias",
    ]
    assert not any(t.requires_grad for t in state.values()) and not isinstance(state["scale"], nn.Parameter)
    assert one.state_dict(keep_vars=True)["scale"] is one.scale
    assert list(one.first.state_dict(prefix="x.")) == ["x.weight", "x.bias"]
    result = two.load_state_dict(state)
    assert repr(result) == "<All keys matched successfully>" and result == ([], [])
    x = deepseek.randn(4, 3)
    assert_close(one(x), two(x))
    assert two.mean.tolist() == [5.0] * 3 and two.second.weight is two.first.weight
    with deepseek.no_grad():
        one.scale.fill_(7)
    assert state["scale"].tolist() == [7.0] * 3, "a state dict shares storage"
    assert two.scale.tolist() == [1.0] * 3, "loading copies"


def test_load_lists_every_mismatch() -> None:
    state = Net().state_dict()
    del state["scale"], state["blocks.0.weight"]
    state["first.bias"] = deepseek.ones(4)
    state["extra"] = state["first.more"] = state["nothing.at.all"] = deepseek.ones(1)
    state["mean"] = "text"
    net = Net()
    with pytest.raises(RuntimeError) as info:
        net.load_state_dict(state)
    text = str(info.value)
    assert text.startswith("Error(s) in loading state_dict for Net:\n\tMissing key(s) in state_dict: ")
    assert '\tMissing key(s) in state_dict: "scale", "blocks.0.weight". \n\t' in text
    assert '\tUnexpected key(s) in state_dict: "extra", "nothing.at.all", "first.more". \n\t' in text
    assert re.search(
        r"size mismatch for first\.bias: copying a param with shape .*4.* from checkpoint, "
        r"the shape in current model is .*3",
        text,
    )
    assert 'parameter named "mean", expected a Tensor' in text
    with pytest.raises(RuntimeError, match="size mismatch") as lenient:
        net.load_state_dict(state, strict=False)
    assert "Missing" not in str(lenient.value)
    del state["first.bias"], state["mean"]
    keys = net.load_state_dict(state, strict=False)
    assert set(keys.missing_keys) == {"scale", "mean", "blocks.0.weight", "first.bias"}
    assert set(keys.unexpected_keys) == {"extra", "first.more", "nothing.at.all"}
    for mistake, hint in (
        ([1], "dict-like, got <class 'list'>"),
        ("runs/model.ds", r"load_state_dict\(deepseek.load\('runs/model.ds'\)\)"),
        (Path("model.safetensors"), r"deepseek.io.safetensors.load_file\('model.safetensors'\)"),
        (net, r"load_state_dict\(other.state_dict\(\)\)"),
        ({0: deepseek.ones(1)}, "keys of state_dict to be str, got 0 of type int"),
    ):
        with pytest.raises(TypeError, match=hint):
            net.load_state_dict(mistake)  # type: ignore[arg-type]


def test_load_with_assign() -> None:
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    weight = deepseek.ones(2, 2, dtype=F64)
    net.load_state_dict({"weight": weight, "bias": deepseek.zeros(2, dtype=F64)}, assign=True)
    assert net.weight.dtype == F64 and isinstance(net.weight, nn.Parameter)
    assert not net.weight.requires_grad and net.bias.requires_grad
    weight[0, 0] = 5
    assert net.weight.tolist() == [[5.0, 1.0], [1.0, 1.0]]
    copied = nn.Linear(2, 2)
    copied.load_state_dict({"weight": weight, "bias": deepseek.zeros(2)})
    assert copied.weight.dtype == deepseek.float32


def test_extra_state_and_version() -> None:
    class Counter(nn.Module):
        _version = 3

        def __init__(self) -> None:
            super().__init__()
            self.count = 0
            self.seen: Any = None

        def get_extra_state(self) -> Any:
            return {"count": self.count}

        def set_extra_state(self, state: Any) -> None:
            self.count = state["count"]

        def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            self.seen = metadata.get("version")
            super()._load_from_state_dict(state_dict, prefix, metadata, *rest)

    one, two = nn.Sequential(Counter()), nn.Sequential(Counter())
    one[0].count = 4
    state = one.state_dict()
    assert list(state) == ["0._extra_state"]
    two.load_state_dict(state)
    assert two[0].count == 4 and two[0].seen == 3
    with pytest.raises(RuntimeError, match="Missing"):
        two.load_state_dict({})
    with pytest.raises(RuntimeError, match="Unexpected"):
        nn.Sequential(nn.ReLU()).load_state_dict(state)


def test_state_hooks() -> None:
    net = nn.Sequential(nn.Linear(1, 1))
    calls: list[Any] = []
    handles = [
        net.register_state_dict_pre_hook(lambda m, prefix, keep: calls.append(("pre", prefix, keep))),
        net.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update(note=deepseek.ones(1))),
        net[0].register_load_state_dict_pre_hook(_rename),
        net.register_load_state_dict_post_hook(lambda m, keys: keys.unexpected_keys.remove("note")),
    ]
    state = net.state_dict()
    assert calls == [("pre", "", False)] and "note" in state
    old = {("0.w" if k == "0.weight" else k): v for k, v in state.items()}
    net.load_state_dict(old)
    for handle in handles:
        handle.remove()
    assert "note" not in net.state_dict()
    with pytest.raises(RuntimeError, match=r'(?s)Missing.*"0.weight".*Unexpected.*"note".*"0.w"'):
        net.load_state_dict(old)


def _rename(module: Any, state: Any, prefix: str, *rest: Any) -> None:
    if prefix + "w" in state:
        state[prefix + "weight"] = state.pop(prefix + "w")


def test_deepcopy() -> None:
    net = Net()
    net.eval()
    twin = copy.deepcopy(net)
    assert not twin.training and twin.second.weight is twin.first.weight and twin.again is twin.first
    assert twin.scale is not net.scale and isinstance(twin.scale, nn.Parameter) and twin.scale.requires_grad
    with deepseek.no_grad():
        twin.scale.fill_(3)
    assert net.scale.tolist() == [1.0] * 3
    x = deepseek.ones(1, 3)
    twin.scale.data = net.scale.data.clone()
    assert_close(net(x), twin(x))


# --- modes and conversion ---------------------------------------------------------------------------------------------
def test_modes() -> None:
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(deepseek.ones(1, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.scale.grad is not None and net.scale.grad.tolist() == [0.0] * 3
    net.zero_grad()
    assert net.scale.grad is None
    order: list[str] = []
    assert net.apply(lambda m: order.append(type(m).__name__)) is net
    assert order == ["Linear", "Linear", "Linear", "ReLU", "ModuleList", "Net"]


def test_conversion_keeps_identity_and_grad() -> None:
    net = Net()
    net.register_buffer("index", deepseek.arange(3))
    scale = net.scale
    net(deepseek.ones(1, 3)).sum().backward()
    assert net.double() is net
    assert net.scale is scale and scale.dtype == F64 and scale.grad.dtype == F64 and scale.is_leaf
    assert net.mean.dtype == F64 and net.index.dtype == deepseek.int64
    assert net(deepseek.ones(1, 3, dtype=F64)).dtype == F64
    for method, dtype in (("half", deepseek.float16), ("bfloat16", deepseek.bfloat16), ("float", deepseek.float32)):
        getattr(net, method)()
        assert net.first.weight.dtype == dtype and net.second.weight is net.first.weight
    assert net.to(F64).scale.dtype == F64
    assert net.to("cpu", deepseek.float32).scale.dtype == deepseek.float32
    assert net.to(deepseek.ones(1, dtype=F64)).scale.dtype == F64
    assert net.to(device="cpu", dtype=deepseek.float32, non_blocking=True).scale.dtype == deepseek.float32
    assert net.to("cpu") is net and net.cpu() is net
    assert net.type(F64).index.dtype == F64
    shape = net.to_empty(device="cpu").scale.shape
    assert tuple(shape) == (3,)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.cuda(),
        lambda m: m.to("cuda"),
        lambda m: m.to(device="cuda:1"),
        lambda m: m.to_empty(device="meta"),
        lambda m: nn.Linear(1, 1, device="cuda"),
    ],
)
def test_other_devices_are_refused(call: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(
        RuntimeError, match="device '(cuda|cuda:1|meta)' is not available: deepseek runs on the CPU only"
    ):
        call(nn.Linear(1, 1))


def test_integer_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match="floating point"):
        nn.Linear(1, 1).to(deepseek.int64)


# --- hooks ------------------------------------------------------------------------------------------------------------
def test_forward_hooks() -> None:
    m = nn.Linear(2, 2)
    calls: list[str] = []

    def note(text: str) -> Callable[..., None]:
        return lambda *args: calls.append(text)

    m.register_forward_hook(note("hook"))
    m.register_forward_hook(note("first hook"), prepend=True)
    m.register_forward_pre_hook(note("pre"))
    m.register_forward_pre_hook(note("first pre"), prepend=True)
    m(deepseek.ones(2))
    assert calls == ["first pre", "pre", "first hook", "hook"]


def test_hooks_replace_arguments_and_output() -> None:
    class Affine(nn.Module):
        def forward(self, x: deepseek.Tensor, *, shift: float = 0.0) -> deepseek.Tensor:
            return x + shift

    m = Affine()
    one = m.register_forward_pre_hook(lambda m, args: args[0] * 2)
    two = m.register_forward_pre_hook(lambda m, args, kwargs: (args, {"shift": kwargs["shift"] + 1}), with_kwargs=True)
    three = m.register_forward_hook(lambda m, args, kwargs, out: out + kwargs["shift"], with_kwargs=True)
    assert m(deepseek.tensor(5.0), shift=10).item() == 5 * 2 + 11 + 11
    with one:
        pass
    two.remove()
    two.remove()
    assert m(deepseek.tensor(5.0), shift=10).item() == 5 + 10 + 10
    three.remove()
    assert m(deepseek.tensor(5.0), shift=10).item() == 15 and not m._forward_hooks_with_kwargs
    m.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="new_args, new_kwargs"):
        m(deepseek.tensor(5.0))
    with pytest.raises(TypeError, match="callable"):
        m.register_forward_hook(3)  # type: ignore[arg-type]


def test_hook_called_after_error() -> None:
    class Fails(nn.Module):
        def forward(self) -> None:
            raise KeyError("inside")

    m, calls = Fails(), []
    m.register_forward_hook(lambda m, a, out: calls.append("normal"))
    m.register_forward_hook(lambda m, a, out: calls.append(out), always_call=True)
    with pytest.raises(KeyError, match="inside"):
        m()
    assert calls == [None]


def test_full_backward_hooks() -> None:
    m = nn.Linear(2, 1).double()
    seen: dict[str, Any] = {}
    m.register_full_backward_pre_hook(lambda m, grad_out: (grad_out[0] * 2,))

    def hook(module: Any, grad_in: Any, grad_out: Any) -> Any:
        seen["calls"] = seen.get("calls", 0) + 1
        seen["in"], seen["out"] = grad_in, grad_out
        return (grad_in[0] * 10,)

    handle = m.register_full_backward_hook(hook)
    x = rand(3, 2)
    m(x).sum().backward()
    weight = m.weight.detach()
    assert seen["calls"] == 1 and seen["out"][0].tolist() == [[2.0]] * 3
    assert_close(seen["in"][0], 2 * weight.expand(3, 2))
    assert_close(x.grad, 20 * weight.expand(3, 2))
    assert_close(m.weight.grad, 2 * x.detach().sum(0, keepdim=True))
    handle.remove()
    x.grad = None
    m(x).sum().backward()
    assert_close(x.grad, 2 * weight.expand(3, 2))


def test_backward_hook_without_input_gradient_and_with_tuples() -> None:
    class Two(nn.Module):
        def forward(self, a: deepseek.Tensor, n: int, b: deepseek.Tensor) -> tuple[deepseek.Tensor, ...]:
            return a * n, b * n

    calls: list[Any] = []
    m = Two()
    m.register_full_backward_hook(lambda m, gi, go: calls.append((gi, go)))
    a, b = rand(2), rand(2, seed=1)
    first, second = m(a, 3, b)
    (first.sum() + 2 * second.sum()).backward()
    grad_in, grad_out = calls.pop()
    assert [g if g is None else g.tolist() for g in grad_in] == [[3.0, 3.0], None, [6.0, 6.0]]
    assert [g.tolist() for g in grad_out] == [[1.0, 1.0], [2.0, 2.0]]
    m(a, 3, b)[0].sum().backward()  # the second output takes no part
    grad_in, grad_out = calls.pop()
    assert grad_in[2] is None and grad_out[1] is None
    layer = nn.Linear(2, 1)
    layer.register_full_backward_hook(lambda m, gi, go: calls.append((gi, go)))
    layer(deepseek.ones(1, 2)).sum().backward()
    assert calls[0][0] == (None,) and calls[0][1][0].tolist() == [[1.0]]
    assert layer.weight.grad is not None
    layer.register_full_backward_hook(lambda m, gi, go: (None, None))
    with pytest.raises(RuntimeError, match="2 gradients for grad_input, expected 1"):
        layer(deepseek.ones(1, 2, requires_grad=True)).sum().backward()


def test_tuple_of_results_keeps_its_type_through_backward_hooks() -> None:
    pair = namedtuple("pair", "a b")

    class Pair(nn.Module):
        def forward(self, x: deepseek.Tensor) -> Any:
            return pair(x * 2, x.detach())

    m = Pair()
    m.register_full_backward_hook(lambda *a: None)
    out = m(rand(2))
    assert isinstance(out, pair) and out.a.requires_grad and not out.b.requires_grad

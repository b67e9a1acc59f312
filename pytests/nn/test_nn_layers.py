"""Printing, containers, layers, attention; names that do not exist."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Any

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.nn import functional as F
from deepseek.nn import init
from deepseek.testing import assert_close, gradcheck

F64 = deepseek.float64


def rand(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0, grad: bool = True) -> deepseek.Tensor:
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return deepseek.tensor(values.tolist(), dtype=F64).reshape(shape).requires_grad_(grad)


# --- printing and containers ------------------------------------------------------------------------------------------
def test_repr_tree() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.Sequential(nn.ReLU(), nn.Dropout(0.1))))
    assert repr(net) == (
        "Sequential(\n  (a): Linear(in_features=2, out_features=3, bias=True)\n  (b): Sequential(\n    (0): ReLU()\n"
        "    (1): Dropout(p=0.1, inplace=False)\n  )\n)"
    )
    runs = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.GELU()])
    assert repr(runs) == "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): GELU(approximate='none')\n)"
    assert repr(nn.ModuleList()) == "ModuleList()" and repr(nn.Sequential()) == "Sequential()"


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Embedding(4, 2, padding_idx=-1), "Embedding(4, 2, padding_idx=3)"),
        (nn.LayerNorm([2, 3]), "LayerNorm((2, 3), eps=1e-05, elementwise_affine=True, bias=True)"),
        (nn.RMSNorm(4, eps=1e-6), "RMSNorm((4,), eps=1e-06, elementwise_affine=True)"),
        (nn.Softmax(dim=-1), "Softmax(dim=-1)"),
        (nn.ReLU(inplace=True), "ReLU(inplace=True)"),
        (nn.LeakyReLU(0.2), "LeakyReLU(negative_slope=0.2)"),
        (nn.ELU(), "ELU(alpha=1.0)"),
        (nn.Softplus(), "Softplus(beta=1.0, threshold=20.0)"),
        (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
        (nn.Unflatten(1, (2, 2)), "Unflatten(dim=1, unflattened_size=(2, 2))"),
        (nn.Identity(3, a=4), "Identity()"),
        (nn.Bilinear(1, 2, 3), "Bilinear(in1_features=1, in2_features=2, out_features=3, bias=True)"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss()"),
        (nn.ParameterDict({"a": deepseek.ones(2, 3)}).a, None),
    ],
)
def test_layer_repr(module: Any, text: str | None) -> None:
    if text is None:
        assert repr(module).startswith("Parameter containing:\n") and "requires_grad=True" in repr(module)
    else:
        assert repr(module) == text


def test_sequential() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert net(deepseek.ones(4, 2)).shape == (4, 1)
    assert net[-1] is net[2] and len(net[:2]) == 2 and isinstance(net[:2], nn.Sequential) and net[:2][0] is net[0]
    net.append(nn.Sigmoid()).insert(0, nn.Identity())
    assert [type(m).__name__ for m in net] == ["Identity", "Linear", "ReLU", "Linear", "Sigmoid"]
    assert isinstance(net.pop(0), nn.Identity)
    del net[1]
    net[1] = nn.Tanh()
    assert list(net._modules) == ["0", "1", "2"]
    assert [type(m).__name__ for m in net] == ["Linear", "Tanh", "Sigmoid"]
    assert len(net + nn.Sequential(nn.ReLU())) == 4 and len(net * 2) == 6
    named = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh(), c=nn.GELU()))
    del named[1]
    assert list(named._modules) == ["a", "c"] and named.c is named[1]
    for bad in (5, -6):
        with pytest.raises(IndexError, match="out of range"):
            net[bad]


def test_module_list_and_dict() -> None:
    items = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
    items += [nn.ReLU()]
    items.extend([nn.Tanh()])
    assert len(items) == 5 and len(items[1:3]) == 2 and isinstance(items[1:3], nn.ModuleList)
    assert len(items + [nn.ReLU()]) == 6 and len(list(items.parameters())) == 6  # noqa: RUF005
    with pytest.raises(TypeError, match="iterable"):
        items.extend(3)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="forward"):
        items(1)
    table = nn.ModuleDict({"a": nn.ReLU()})
    table["b"] = nn.Linear(1, 1)
    table.update([("c", nn.Tanh())])
    assert list(table) == ["a", "b", "c"] and "b" in table and table.b is table["b"] and len(table) == 3
    assert isinstance(table.pop("a"), nn.ReLU) and [k for k, _ in table.items()] == ["b", "c"]
    with pytest.raises(KeyError):
        table["nothing"]
    with pytest.raises(ValueError, match="length 1; 2 is required"):
        table.update([("x",)])  # type: ignore[list-item]
    table.clear()
    assert len(table) == 0


def test_parameter_containers() -> None:
    items = nn.ParameterList([deepseek.ones(2), nn.Parameter(deepseek.zeros(1), requires_grad=False)])
    items.append(deepseek.ones(3))
    assert len(items) == 3 and [p.requires_grad for p in items] == [True, False, True]
    assert [n for n, _ in items.named_parameters()] == ["0", "1", "2"] and items[-1].shape == (3,)
    items[0] = deepseek.full((2,), 5.0)
    assert items.state_dict()["0"].tolist() == [5.0, 5.0] and len(items[1:]) == 2
    with pytest.raises(TypeError, match="cannot assign 'int' as parameter '0'"):
        items[0] = 3
    table = nn.ParameterDict({"w": deepseek.ones(2)})
    table["b"] = deepseek.zeros(1)
    assert list(table.keys()) == ["w", "b"] and isinstance(table.w, nn.Parameter) and table.get("z") is None
    assert list(nn.Sequential(nn.Identity()).state_dict()) == [] and list(table.state_dict()) == ["w", "b"]
    assert table.copy()["w"] is table["w"] and "w" in table
    del table["w"]
    assert len(table) == 1


def test_parameter_containers_keep_other_values() -> None:
    """Only tensors become parameters; modules are registered, anything else is kept as in a list or dict."""
    items = nn.ParameterList([deepseek.ones(2), 3, "x", None, nn.Linear(1, 1)])
    assert len(items) == 5 and items[1] == 3 and items[2:4][0] == "x" and items[3] is None
    assert list(items.state_dict()) == ["0", "4.weight", "4.bias"] and list(items)[1:4] == [3, "x", None]
    assert repr(items).splitlines()[1:3] == [
        "  (0): Parameter containing: [deepseek.float32 of size 2]",
        "  (1): Object of type: int",
    ]
    table = nn.ParameterDict({"w": deepseek.ones(2), "n": 5, "none": None})
    assert [n for n, _ in table.named_parameters()] == ["w"] and table["n"] == 5 and "none" in table
    assert table.pop("n") == 5 and table.popitem() == ("none", None) and table.setdefault("k", 1) == 1
    assert list((table | {"z": 2}).keys()) == ["w", "k", "z"] and list(table.fromkeys("ab", 7).values()) == [7, 7]
    table |= {"v": deepseek.zeros(1)}
    assert list(reversed(table)) == ["v", "k", "w"] and list(table.state_dict()) == ["w", "v"]
    copied = copy.deepcopy(table)
    assert copied["k"] == 1 and list(copied) == ["w", "k", "v"] and copied["w"] is not table["w"]
    table.clear()
    assert len(table) == 0 and not list(table.parameters()) and table.pop("gone", 0) == 0
    for wrong in (lambda: table.pop("gone"), lambda: table["gone"], lambda: nn.ParameterDict({"train": 1})):
        with pytest.raises(KeyError):
            wrong()


def test_repr_shows_parameters_that_are_not_modules() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(deepseek.ones(3, 4))
            self.register_parameter("unused", None)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.fc, self.shift = Scale(), nn.Linear(2, 2), nn.Parameter(deepseek.tensor(1.0))

    assert repr(Model()) == "\n".join(
        [
            "Model(",
            "  (shift): Parameter containing: [deepseek.float32 of size ()]",
            "  (scale): Scale(",
            "    (w): Parameter containing: [deepseek.float32 of size 3x4]",
            "  )",
            "  (fc): Linear(in_features=2, out_features=2, bias=True)",
            ")",
        ]
    )


# --- layers -----------------------------------------------------------------------------------------------------------
def test_linear_and_its_start() -> None:
    deepseek.manual_seed(0)
    layer = nn.Linear(64, 300)
    bound = 1 / math.sqrt(64)
    for tensor in (layer.weight, layer.bias):
        values = tensor.detach().numpy()
        assert np.abs(values).max() <= bound and np.abs(values).max() > 0.95 * bound
        assert abs(values.mean()) < 0.1 * bound and abs(values.std() - bound / math.sqrt(3)) < 0.05 * bound
    x = deepseek.randn(5, 2, 64)
    assert_close(layer(x), x @ layer.weight.t() + layer.bias, rtol=1e-5, atol=1e-5)
    assert nn.Linear(2, 3, bias=False).bias is None and nn.Linear(2, 3, dtype=F64).weight.dtype == F64
    with pytest.warns(UserWarning, match="no-op"):
        assert nn.Linear(0, 2)(deepseek.ones(3, 0)).shape == (3, 2)


def test_embedding() -> None:
    layer = nn.Embedding(5, 3, padding_idx=1)
    assert layer.weight[1].tolist() == [0.0] * 3 and layer.weight[0].abs().sum().item() > 0
    out = layer(deepseek.tensor([[0, 1], [4, 4]]))
    assert out.shape == (2, 2, 3)
    out.sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0, 2.0]
    table = deepseek.ones(4, 2)
    frozen = nn.Embedding.from_pretrained(table)
    assert not frozen.weight.requires_grad and nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    table[0, 0] = 9
    assert frozen(deepseek.tensor([0])).tolist() == [[9.0, 1.0]]
    with pytest.raises(NotImplementedError, match="sparse"):
        nn.Embedding(4, 2, sparse=True)
    limited = nn.Embedding.from_pretrained(deepseek.ones(4, 2), max_norm=1.0)
    assert limited(deepseek.tensor([3])).norm().item() == pytest.approx(1.0) and limited.weight[0].tolist() == [1, 1]
    shared = nn.Embedding(4, 2, scale_grad_by_freq=True)
    shared(deepseek.tensor([0, 2, 2])).sum().backward()
    assert shared.weight.grad[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(AssertionError, match="within num_embeddings"):
        nn.Embedding(4, 2, padding_idx=4)


def test_norms() -> None:
    x = rand(4, 2, 6)
    v = x.detach().numpy()
    assert_close(
        nn.LayerNorm(6).double()(x),
        deepseek.tensor(
            ((v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)).tolist(), dtype=F64
        ),
    )
    norm = nn.RMSNorm((2, 6), eps=1e-6).double()
    root = np.sqrt((v * v).mean((-2, -1), keepdims=True) + 1e-6)
    assert_close(norm(x), deepseek.tensor((v / root).tolist(), dtype=F64))
    assert nn.LayerNorm(6, bias=False).bias is None and nn.LayerNorm(6, elementwise_affine=False).weight is None
    assert gradcheck(lambda a, w: F.rms_norm(a, (6,), w), (rand(2, 6), rand(6, seed=1)))
    zero = F.rms_norm(deepseek.full((2,), 1e-4, dtype=F64), (2,))
    assert_close(zero, deepseek.full((2,), 1e-4 / math.sqrt(1e-8 + np.finfo(np.float64).eps), dtype=F64))


def test_dropout() -> None:
    layer = nn.Dropout(0.25)
    x = deepseek.ones(100, 100)
    deepseek.manual_seed(1)
    y = layer(x)
    kept = (y != 0).float().mean().item()
    assert abs(kept - 0.75) < 0.02 and np.unique(y.numpy()).tolist() == [0.0, np.float32(1 / 0.75)]
    layer.eval()
    assert deepseek.equal(layer(x), x)
    z = deepseek.ones(1000)
    out = F.dropout(z, 0.5, inplace=True)
    assert out is z or deepseek.equal(out, z)
    assert 0 < (z == 0).sum().item() < 1000
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            nn.Dropout(p)


def test_inplace_activations_differentiate() -> None:
    for fn in (F.relu, F.silu, F.elu, F.leaky_relu, F.hardswish, F.mish, F.relu6):
        x, y = rand(3, 4), rand(3, 4)
        (fn(x) * 3).sum().backward()
        changed = y * 1
        result = fn(changed, inplace=True)
        assert deepseek.equal(result, changed)
        (result * 3).sum().backward()
        assert_close(x.grad, y.grad)


def test_flatten_unflatten() -> None:
    x = deepseek.arange(24).reshape(2, 3, 4)
    assert nn.Flatten()(x).shape == (2, 12) and nn.Flatten(0, 1)(x).shape == (6, 4)
    assert deepseek.equal(nn.Unflatten(1, (3, 4))(nn.Flatten()(x)), x) and nn.Unflatten(-1, (2, -1))(x).shape == (
        2,
        3,
        2,
        2,
    )


# --- attention --------------------------------------------------------------------------------------------------------
def by_hand(m: nn.MultiheadAttention, q: Any, k: Any, v: Any, mask: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Attention of unbatched arrays with plain loops over heads; mask is added to (L, S)."""
    arrays = [t.detach().numpy() for t in (m.in_proj_weight, m.in_proj_bias, m.out_proj.weight, m.out_proj.bias)]
    in_weight, in_bias, out_weight, out_bias = arrays
    size, dim = m.embed_dim, m.head_dim
    parts = [
        x @ in_weight[i * size : (i + 1) * size].T + in_bias[i * size : (i + 1) * size] for i, x in enumerate((q, k, v))
    ]
    outs, weights = [], []
    for h in range(m.num_heads):
        a, b, c = (p[:, h * dim : (h + 1) * dim] for p in parts)
        scores = a @ b.T / math.sqrt(dim) + (0 if mask is None else mask)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        weights.append(e / e.sum(-1, keepdims=True))
        outs.append(weights[-1] @ c)
    return np.concatenate(outs, 1) @ out_weight.T + out_bias, np.stack(weights)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_against_loops(batch_first: bool, need_weights: bool) -> None:
    deepseek.manual_seed(0)
    m = nn.MultiheadAttention(6, 2, batch_first=batch_first).double()
    q, k = rand(2, 3, 6), rand(2, 4, 6, seed=1)
    causal = deepseek.tensor(np.triu(np.ones((3, 4), bool), 2).tolist())
    padding = deepseek.tensor([[False, False, False, True], [False] * 4])
    args = (q, k, k) if batch_first else tuple(t.transpose(0, 1) for t in (q, k, k))
    out, weights = m(
        *args, key_padding_mask=padding, attn_mask=causal, need_weights=need_weights, average_attn_weights=False
    )
    out = out if batch_first else out.transpose(0, 1)
    for n in range(2):
        mask = np.where(causal.numpy() | padding.numpy()[n], -np.inf, 0.0)
        want, want_weights = by_hand(m, *(t.detach().numpy()[n] for t in (q, k, k)), mask)
        assert_close(out[n], deepseek.tensor(want.tolist(), dtype=F64))
        if need_weights:
            assert_close(weights[n], deepseek.tensor(want_weights.tolist(), dtype=F64))
    assert need_weights or weights is None


def test_attention_forms() -> None:
    m = nn.MultiheadAttention(4, 2).double()
    q = rand(3, 4)
    out, weights = m(q, q, q)
    assert out.shape == (3, 4) and weights.shape == (3, 3)
    assert_close(weights.sum(-1), deepseek.ones(3, dtype=F64))
    batched, _ = m(q.unsqueeze(1), q.unsqueeze(1), q.unsqueeze(1))
    assert_close(batched.squeeze(1), out)
    additive = deepseek.zeros(3, 3, dtype=F64).masked_fill(deepseek.ones(3, 3).triu(1).bool(), -math.inf)
    one = m(q, q, q, attn_mask=additive)[0]
    assert_close(one, m(q, q, q, attn_mask=additive.isinf(), need_weights=False, is_causal=True)[0])
    per_head = additive.expand(2, 3, 3).contiguous()
    assert_close(one, m(q, q, q, attn_mask=per_head)[0])
    other = nn.MultiheadAttention(4, 2, kdim=3, vdim=5, bias=False).double()
    assert other.in_proj_weight is None and other.in_proj_bias is None and other.out_proj.bias is None
    assert sorted(n for n, _ in other.named_parameters()) == [
        "k_proj_weight",
        "out_proj.weight",
        "q_proj_weight",
        "v_proj_weight",
    ]
    assert other(q, rand(2, 3), rand(2, 5))[0].shape == (3, 4)
    assert gradcheck(lambda a, b: m(a, b, b)[0], (q, rand(2, 4, seed=2)))
    for bad, error in (((q, q, rand(3, 5)), "value of size 4"), ((q, q[0], q), "2-D"), ((q[0], q, q), "1-D query")):
        with pytest.raises(AssertionError, match=error):
            m(*bad)
    with pytest.raises(RuntimeError, match=r"shape of the attn_mask is \(2, 2\), but should be \(3, 3\)"):
        m(q, q, q, attn_mask=deepseek.zeros(2, 2, dtype=F64))
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        m(q, q, q, is_causal=True)
    with pytest.raises(ValueError, match="divisible"):
        nn.MultiheadAttention(4, 3)
    with pytest.raises(NotImplementedError, match="add_bias_kv"):
        nn.MultiheadAttention(4, 2, add_bias_kv=True)


def test_transformer_layer() -> None:
    for norm_first in (False, True):
        m = nn.TransformerEncoderLayer(4, 2, 8, norm_first=norm_first, batch_first=True, activation="gelu").eval()
        x = deepseek.randn(2, 3, 4)
        y = m(x)
        assert y.shape == x.shape and deepseek.equal(y, m(x))
        y.sum().backward()
        assert all(p.grad is not None for p in m.parameters())
    with pytest.raises(RuntimeError, match="relu/gelu"):
        nn.TransformerEncoderLayer(4, 2, activation="swish")


# --- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "name", "nearest"),
    [
        (nn, "linear", "Linear"),
        (nn, "LayerNrom", "LayerNorm"),
        (nn, "Crossentropyloss", "CrossEntropyLoss"),
        (F, "cross_entropy_loss", "cross_entropy"),
        (F, "Relu", "relu"),
        (init, "xavier_uniform", "xavier_uniform_"),
        (nn.utils, "clip_grad_norm", "clip_grad_norm_"),
    ],
)
def test_missing_names_suggest(module: Any, name: str, nearest: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'; the nearest name is '{nearest}'"):
        getattr(module, name)
    assert not hasattr(module, "__nothing__")


@pytest.mark.parametrize("module", [nn, F, init, nn.utils])
def test_everything_announced_exists_and_is_documented(module: Any) -> None:
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__, name

"""HierarchicalAttention: its layer types by their masks, tasks, caches, bad input."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from attention.block_references import hierarchical, local_mask
from attention.selection_checks import check_selection_is_a_querys_own
from deepseek.attention import (
    BlockMeansCache,
    HierarchicalAttention,
    MixtureOfBlockAttention,
    SlidingCache,
    dynamic_block_attention,
)
from deepseek.autograd import gradcheck
from deepseek.nn import functional as F

f64 = deepseek.float64
TYPES = ("local", "global", "selected", "task")


def numbers(*shape: int, seed: int = 0) -> deepseek.Tensor:
    return deepseek.tensor(np.random.default_rng(seed).normal(size=shape))


def module(layer_type: str, **settings) -> HierarchicalAttention:
    deepseek.manual_seed(1)
    usual = {"window": 11, "paragraph": 16, "top_k": 2, "tasks": ["find", "sum up"]}
    m = HierarchicalAttention(16, 4, 2, layer_type=layer_type, **{**usual, **settings})
    for name, p in m.named_parameters():
        if name.endswith("adapt.up.weight"):
            p.data.normal_()
    return m


def test_defaults():
    m = HierarchicalAttention(16, 4)
    assert (m.layer_type, m.window, m.paragraph, m.causal) == ("local", 64, 64, True)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("layer_type", TYPES)
def test_against_numpy(layer_type, causal):
    m = module(layer_type, causal=causal, dtype=f64, rope_theta=None)
    x = numbers(2, 90, 16)
    out = m(x, task=["sum up", "find"])
    for b, task in enumerate(["sum up", "find"]):
        want = hierarchical(m, x[b].numpy(), task)
        np.testing.assert_allclose(out[b].detach().numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_the_mask_of_a_local_layer(causal):
    """What a query depends on is what the definition says, and the result that of attention under that mask."""
    m = module("local", causal=causal, rope_theta=None, dtype=f64)
    mask = local_mask(m, 40)
    x = numbers(1, 40, 16)
    for s in (0, 17, 39):
        changed = x.clone()
        changed[:, s] += 1
        differs = (m(changed) != m(x)).any(dim=-1)[0]
        assert differs.tolist() == mask[:, s].tolist()
    q, k, v = (p(x).unflatten(-1, (n, 4)).transpose(1, 2) for p, n in ((m.q_proj, 4), (m.k_proj, 2), (m.v_proj, 2)))
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=deepseek.tensor(mask), enable_gqa=True)
    np.testing.assert_allclose(
        m(x).detach().numpy(), m.o_proj(want.transpose(1, 2).flatten(-2)).detach().numpy(), rtol=0, atol=1e-13
    )


def test_the_mask_of_a_global_layer():
    """A change of a key reaches: its own paragraph, the next one, and all later ones by the mean."""
    m = module("global", rope_theta=None, dtype=f64)
    x = numbers(1, 90, 16)
    changed = x.clone()
    changed[:, 20] += 1
    differs = (m(changed) != m(x)).any(dim=-1)[0]
    assert differs.nonzero().squeeze(-1).tolist() == list(range(20, 90))
    q, k, v = (p(x).unflatten(-1, (n, 4)).transpose(1, 2) for p, n in ((m.q_proj, 4), (m.k_proj, 2), (m.v_proj, 2)))
    want = dynamic_block_attention(q, k, v, 16)
    np.testing.assert_allclose(
        m(x).detach().numpy(), m.o_proj(want.transpose(1, 2).flatten(-2)).detach().numpy(), rtol=0, atol=1e-13
    )


def test_a_selected_layer_is_a_mixture_of_blocks():
    m = module("selected")
    other = MixtureOfBlockAttention(16, 4, 2, block_size=16, top_k=2)
    other.load_state_dict(m.state_dict())
    x = deepseek.randn(2, 90, 16)
    assert (m(x) == other(x)).all()
    assert (m.selected_blocks(x) == other.selected_blocks(x)).all()


def test_selection_is_a_querys_own(monkeypatch):
    check_selection_is_a_querys_own(module("selected"), deepseek.randn(3, 90, 16), monkeypatch)


# --- tasks


@pytest.mark.parametrize("settings", [{}, {"task_gates": False}, {"adapter_rank": 0}])
def test_unused_tasks_get_no_gradient(settings):
    """Exactly None: their parameters take no part."""
    m = module("task", **settings)
    m(deepseek.randn(2, 40, 16), task="find").square().sum().backward()
    used = {name: p for name, p in m.named_parameters() if ".find." in name}
    unused = {name: p for name, p in m.named_parameters() if ".sum up." in name}
    assert all((p.grad != 0).any() for p in used.values())
    assert all(p.grad is None for p in unused.values())
    assert len(used) == len(unused) == {"{}": 4, "{'task_gates': False}": 2, "{'adapter_rank': 0}": 2}[str(settings)]
    optimizer = deepseek.optim.AdamW(m.parameters(), weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in unused.items()}
    optimizer.step()
    assert all((p == before[name]).all() for name, p in unused.items())


def test_sequences_of_different_tasks_in_one_batch():
    m, x = module("task"), deepseek.randn(3, 50, 16)
    tasks = ["find", "sum up", "find"]
    real = deepseek.arange(50) < deepseek.tensor([[50], [31], [7]])
    out, padded = m(x, task=tasks), m(x, task=tasks, attention_mask=real)
    for b, task in enumerate(tasks):
        n = int(real[b].sum())
        assert (out[b] == m(x[b : b + 1], task=task)[0]).all()
        assert (padded[b, :n] == out[b, :n]).all()
    assert (m(x[:1], task="find") != m(x[:1], task="sum up")).any()


def test_new_adapters_change_nothing():
    deepseek.manual_seed(0)
    m = HierarchicalAttention(16, 4, layer_type="task", tasks=["a", "b"], task_gates=False, paragraph=16)
    x = deepseek.randn(1, 60, 16)
    plain = HierarchicalAttention(16, 4, layer_type="global", paragraph=16)
    plain.load_state_dict({k: v for k, v in m.state_dict().items() if "tasks" not in k})
    assert (m(x, task="a") == plain(x)).all()


def test_a_stack_of_layer_types():
    layers = HierarchicalAttention.stack(
        16, 4, layer_types=["local", "global", "task"] * 2, window=8, paragraph=16, tasks=["a", "b"]
    )
    assert [layer.layer_type for layer in layers] == ["local", "global", "task"] * 2
    x = deepseek.randn(2, 40, 16)
    caches, parts = [layer.new_cache() for layer in layers], []

    def through(x, caches):
        for layer, cache in zip(layers, caches, strict=True):
            x = x + layer(x, cache=cache, task="b")
        return x

    want = through(x, [None] * 6)
    for begin, end in ((0, 13), (13, 14), (14, 40)):
        parts.append(through(x[:, begin:end], caches))
    assert (deepseek.cat(parts, dim=1) == want).all()
    want.sum().backward()
    assert all((p.grad is None) == (".a." in name) for name, p in layers.named_parameters())


@pytest.mark.parametrize("layer_type", TYPES)
def test_gradients(layer_type):
    m = HierarchicalAttention(4, 2, 1, layer_type=layer_type, window=5, paragraph=16, top_k=1, tasks=["a"], dtype=f64)
    x = numbers(1, 50, 4).requires_grad_()
    assert gradcheck(lambda x, *_: m(x, task="a"), [x, *m.parameters()], fast_mode=True)


# --- caches


@pytest.mark.parametrize(("layer_type", "keys"), [("local", 10), ("global", 31), ("task", 31)])
def test_caches_are_of_the_window_and_means(layer_type, keys):
    m = module(layer_type)
    cache = m.new_cache()
    with deepseek.no_grad():
        for n in (900, *[1] * 30, 1100):
            m(deepseek.randn(1, n, 16), cache=cache, task="find")
    assert cache.length == 2030
    assert cache._streams()["keys"].reach == keys
    assert cache._streams()["keys"].allocated <= (keys + 2 * 512) * 2 * 4 * 4
    if layer_type != "local":
        assert cache._streams()["value_means"].length == 126


@pytest.mark.parametrize("layer_type", TYPES)
def test_rewinding(layer_type):
    m, x = module(layer_type), deepseek.randn(2, 1300, 16)
    cache = m.new_cache(rewind=200)
    with deepseek.no_grad():
        want = m(x, task="find")
        m(x[:, :1100], cache=cache, task="find")
        m(deepseek.randn(2, 100, 16), cache=cache, task="find")
        cache.truncate(1003)
        assert (m(x[:, 1003:], cache=cache, task="find") == want[:, 1003:]).all()


# --- bad input


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: module("locale"), "layer_type must be one of local, global, selected, task, got 'locale'"),
        (lambda: module("local", window=0), "window must be positive"),
        (lambda: module("selected", top_k=-1), "top_k not negative, got 11 and -1"),
        (lambda: module("global", paragraph=48), "paragraph must be 16, 32, 64, 128, 256 or 512 tokens, got 48"),
        (lambda: module("task", tasks=()), "needs tasks, a list of different names"),
        (lambda: module("task", tasks="find"), "needs tasks, a list of different names, got 'find'"),
        (lambda: module("task", tasks=["a", "a"]), "needs tasks"),
        (lambda: module("task", tasks=["a.b"]), "named by a string without dots, got 'a.b'"),
        (lambda: module("task", tasks=["keys"]), "'keys' cannot name a task"),
        (lambda: module("task", tasks=["a", ""]), "named by a string without dots, got ''"),
        (lambda: module("task", task_gates=False, adapter_rank=0), "needs gates or an adapter_rank above 0"),
        (lambda: module("local", causal=False).new_cache(), "a cache needs causal=True"),
        (lambda: module("local").selected_blocks(deepseek.randn(1, 2, 16)), "'local' layer selects no paragraphs"),
    ],
)
def test_bad_settings(build, text):
    with pytest.raises(ValueError, match=text):
        build()


@pytest.mark.parametrize(
    ("layer_type", "call", "error", "text"),
    [
        ("task", lambda m, x: m(x), ValueError, "task must be one of find, sum up, got None"),
        ("task", lambda m, x: m(x, task="lose"), ValueError, "task must be one of find, sum up, got 'lose'"),
        ("task", lambda m, x: m(x, task=["find"]), ValueError, "1 tasks for 2 sequences"),
        ("local", lambda m, x: m(x, cache=BlockMeansCache(16)), TypeError, "takes a SlidingCache, got BlockMeansCache"),
        ("local", lambda m, x: m(x, cache=SlidingCache(12)), ValueError, "window of 11 and paragraphs of 16"),
        ("global", lambda m, x: m(x, cache=SlidingCache(11)), TypeError, "takes a BlockMeansCache"),
        ("global", lambda m, x: m(x, cache=BlockMeansCache(16)), ValueError, "for another layer than 'global'"),
        (
            "selected",
            lambda m, x: m(x, cache=BlockMeansCache(16, reach=31)),
            ValueError,
            "another layer than 'selected'",
        ),
        ("local", lambda m, x: m(x, attention_mask=deepseek.ones(2, 1, 5, 5)), NotImplementedError, "padding masks"),
    ],
)
def test_bad_calls(layer_type, call, error, text):
    with pytest.raises(error, match=text):
        call(module(layer_type), deepseek.randn(2, 5, 16))


@pytest.mark.parametrize("layer_type", TYPES)
def test_empty_single_and_padding_only(layer_type):
    m = module(layer_type)
    for shape in ((0, 5, 16), (2, 0, 16), (2, 1, 16)):
        assert list(m(deepseek.zeros(*shape), task="find").shape) == list(shape)
    assert (
        m(deepseek.randn(2, 4, 16), attention_mask=deepseek.zeros(2, 4, dtype=deepseek.bool), task="find") == 0
    ).all()

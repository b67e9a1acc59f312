"""The lightning indexer: its scores, what it selects, what it holds in a cache, and what it learns from."""

from __future__ import annotations

import copy
from collections.abc import Callable

import deepseek
import numpy as np
import pytest
from deepseek.attention import SparseIndexer, indexer, indexer_loss
from deepseek.attention.caches import IndexKeys, IndexRows
from deepseek.attention.functional import attend, sparse_attention
from deepseek.attention.indexer_loss import Attention
from deepseek.autograd import gradcheck
from latent_references import best, frequencies, index_scores, parameters

WIDTH, SOURCE, HEADS, HEAD, ROPE = 24, 12, 4, 16, 8


def make(topk: int = 5, seed: int = 0, **settings: object) -> SparseIndexer:
    deepseek.manual_seed(seed)
    made = SparseIndexer(WIDTH, HEADS, HEAD, topk, SOURCE, ROPE, **settings)
    with deepseek.no_grad():
        made.k_norm.weight.add_(deepseek.randn(HEAD) * 0.1)
        made.k_norm.bias.add_(deepseek.randn(HEAD))
    return made


def tokens(batch: int = 2, time: int = 30, seed: int = 1) -> tuple[deepseek.Tensor, deepseek.Tensor]:
    deepseek.manual_seed(seed)
    return deepseek.randn(batch, time, WIDTH), deepseek.randn(batch, time, SOURCE)


def reference(module: SparseIndexer, x: deepseek.Tensor, source: deepseek.Tensor, b: int = 0) -> np.ndarray:
    angles = frequencies(ROPE, 10000.0, None)
    return index_scores(
        parameters(module), x[b].double().numpy(), source[b].double().numpy(), heads=HEADS, rope=ROPE, angles=angles
    )


def as_sets(indices: deepseek.Tensor) -> list[list[int]]:
    """Selections of one sequence, without -1, in order of place."""
    return [sorted(i for i in row if i >= 0) for row in indices.tolist()]


@pytest.mark.parametrize("causal", [True, False])
def test_scores_are_the_formula(causal: bool) -> None:
    module, (x, source) = make(causal=causal), tokens()
    scores = module.scores(module.project(x, source)).detach().numpy()
    assert scores.dtype == np.float32
    for b in range(2):
        want = reference(module, x, source, b)
        seen = np.tril(np.ones_like(want)) > 0 if causal else np.ones_like(want) > 0
        np.testing.assert_allclose(scores[b][seen], want[seen], atol=1e-5)
        assert (scores[b][~seen] == -np.inf).all()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("topk", [1, 5, 29, 30, 40])
def test_selects_the_best_visible_keys(topk: int, causal: bool) -> None:
    module, (x, source) = make(topk, causal=causal), tokens()
    indices = module(x, source)
    assert list(indices.shape) == [2, 30, min(topk, 30)]
    assert indices.dtype is deepseek.int64
    assert not indices.requires_grad
    for b in range(2):
        scores = reference(module, x, source, b)
        want = [sorted(best(scores[t], t + 1 if causal else 30, topk)) for t in range(30)]
        assert as_sets(indices[b]) == want


def test_queries_come_from_x_where_no_rank_is_given() -> None:
    deepseek.manual_seed(0)
    module = SparseIndexer(WIDTH, 2, 16, 4, qk_rope_head_dim=0)
    assert list(module.wq_b.weight.shape) == [32, WIDTH]
    x, _ = tokens()
    assert (module(x) == module.select(module.project(x, x))).all()
    with pytest.raises(RuntimeError, match=r"queries are made of 12 features.*pass queries"):
        make().project(x)


@pytest.mark.parametrize("precision", ["float", "int8"])
@pytest.mark.parametrize("chunks", [[1] * 30, [30], [7, 1, 22], [4, 26]])
def test_cached_is_uncached(chunks: list[int], precision: str) -> None:
    module, (x, source) = make(precision=precision), tokens()
    want = module(x, source)
    keys, got = module.new_keys(), []
    with deepseek.no_grad():
        for n in chunks:
            a = sum(g.shape[1] for g in got)
            made = module.project(x[:, a : a + n], source[:, a : a + n], start=a)
            part = module.select(made, keys.append(made.key), query_start=a)
            got.append(deepseek.nn.functional.pad(part, (0, 5 - part.shape[2]), value=-1))
    both = deepseek.cat(got, dim=1)
    for b in range(2):
        assert as_sets(both[b]) == as_sets(want[b])


def test_selection_is_the_same_for_any_threads_batch_and_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    module, (x, source) = make(), tokens(3, 40)
    want = module(x, source)
    before = deepseek.get_num_threads()
    try:
        for threads in (1, 2, 3):
            deepseek.set_num_threads(threads)
            assert (module(x, source) == want).all()
    finally:
        deepseek.set_num_threads(before)
    for b in range(3):
        assert (module(x[b : b + 1], source[b : b + 1]) == want[b : b + 1]).all()
    for held in (1, 300, 1000):
        monkeypatch.setattr(indexer, "_HELD", held)
        assert (module(x, source) == want).all()


def test_8_bit_scores_are_near_and_their_keys_small() -> None:
    module, (x, source) = make(precision="int8"), tokens()
    made = module.project(x, source)
    low = module.scores(made)
    module.precision = "float"
    high = module.scores(made)
    seen = high > -np.inf
    assert ((low > -np.inf) == seen).all()
    error = deepseek.where(seen, low - high, 0.0).detach().numpy()
    assert 0 < np.abs(error).max() < 0.05 * np.abs(high.detach().numpy()[seen.numpy()]).max()
    keys = IndexKeys("int8")
    with deepseek.no_grad():
        rows = keys.append(made.key)
    assert sum(s.nbytes for s in keys.streams().values()) == 2 * 30 * (HEAD + 4)
    assert (module.scores(made, rows) == low).all()  # what the cache holds decides


# --- traps


def test_trap_ties_at_exact_zero_take_the_first_keys() -> None:
    """After relu many scores are exactly 0 (or -0 under a negative weight); all backends must pick the same."""
    module, (x, source) = make(topk=4), tokens(1, 20)
    made = module.project(x, source)
    for sign in (1.0, -1.0):
        nothing = made._replace(query=-deepseek.ones_like(made.query), key=deepseek.ones_like(made.key))
        nothing = nothing._replace(weights=deepseek.full_like(made.weights, sign))
        assert as_sets(module.select(nothing)[0]) == [list(range(min(t + 1, 4))) for t in range(20)]
    mixed = nothing._replace(weights=deepseek.tensor([1.0, -1.0, 1.0, -1.0]).expand(1, 20, HEADS))
    assert as_sets(module.select(mixed)[0]) == [list(range(min(t + 1, 4))) for t in range(20)]


def test_trap_the_indexer_is_causal() -> None:
    """A later token never changes an earlier selection, and no query selects a key behind itself."""
    module, (x, source) = make(), tokens(1, 30)
    want = module(x, source)
    assert (want <= deepseek.arange(30).reshape(1, 30, 1)).all()
    other, other_source = x.clone(), source.clone()
    other[:, 20:], other_source[:, 20:] = 100.0, -100.0
    assert (module(other, other_source)[:, :20] == want[:, :20]).all()


def test_trap_the_rotated_features_come_first_and_are_halves() -> None:
    """[rope | nope] and pairs (i, i + rope / 2): other than in the attention beside it."""
    module, (x, source) = make(), tokens(1, 6)
    moved = module.project(x, source, positions=deepseek.arange(100, 106))
    still = module.project(x, source, positions=deepseek.zeros(6, dtype=deepseek.int64))
    assert (moved.key[..., ROPE:] == still.key[..., ROPE:]).all()
    assert (moved.query[..., ROPE:] == still.query[..., ROPE:]).all()
    half = ROPE // 2
    for a, b in ((moved.key, still.key), (moved.query, still.query)):
        for i in range(half):
            turned = a[..., i] ** 2 + a[..., i + half] ** 2
            assert deepseek.allclose(turned, b[..., i] ** 2 + b[..., i + half] ** 2, rtol=1e-4, atol=1e-5)
            assert not deepseek.allclose(a[..., i], b[..., i])


def test_trap_the_key_norm_is_a_layer_norm_with_bias() -> None:
    module = make()
    assert sorted(module.state_dict()) == [
        "k_norm.bias",
        "k_norm.weight",
        "weights_proj.weight",
        "wk.weight",
        "wq_b.weight",
    ]
    x, source = tokens()
    before = module.project(x, source).key
    with deepseek.no_grad():
        module.wk.weight.add_(deepseek.randn(1, WIDTH))  # moves all features alike: centering takes it away
    assert deepseek.allclose(module.project(x, source).key, before, atol=1e-4)
    assert module.k_norm.eps == 1e-6


def test_trap_head_weights_are_float32_in_a_16_bit_module() -> None:
    module, (x, source) = make(), tokens()
    exact = module.weights_proj.weight.detach().clone()
    module.bfloat16()
    assert module.wk.weight.dtype is deepseek.bfloat16
    assert module.weights_proj.weight.dtype is deepseek.float32
    assert (module.weights_proj.weight == exact).all()
    short = x.bfloat16()
    made = module.project(short, source.bfloat16())
    assert made.query.dtype is deepseek.bfloat16
    want = short.double().numpy() @ exact.double().numpy().T / np.sqrt(HEADS * HEAD)
    np.testing.assert_allclose(made.weights.detach().numpy(), want, atol=1e-6)
    assert module.scores(made).dtype is deepseek.float32
    assert module.double().weights_proj.weight.dtype is deepseek.float64


def test_autocast_leaves_head_weights_and_scores_alone() -> None:
    module, (x, source) = make(), tokens()
    want = module.project(x, source)
    with deepseek.autocast("cpu"):
        made = module.project(x, source)
        scores = module.scores(want)
        fast = module.scores(made)
    assert made.query.dtype is deepseek.bfloat16
    assert (made.weights == want.weights).all()
    assert (scores == module.scores(want)).all()
    assert fast.dtype is deepseek.float32


# --- the loss

STAGES = ["dense", "sparse"]


def attention(
    heads: int = 4, key_heads: int = 2, time: int = 12, start: int = 0, indices: deepseek.Tensor | None = None
):
    deepseek.manual_seed(5)
    q = deepseek.randn(2, heads, time, 8, dtype=deepseek.float64)
    k = deepseek.randn(2, key_heads, start + time, 8, dtype=deepseek.float64)
    if indices is None:
        lse = attend(q, k, k, is_causal=True, query_start=start, scale=0.5).lse
    else:
        lse = sparse_attention(q, k, k, indices, query_start=start, scale=0.5).lse
    return Attention(q, k, lse, 0.5)


def indexed(time: int = 12, start: int = 0) -> list[deepseek.Tensor]:
    deepseek.manual_seed(6)
    shapes = (2, time, 3, 6), (2, start + time, 6), (2, time, 3)
    return [deepseek.randn(*shape, dtype=deepseek.float64, requires_grad=True) for shape in shapes]


def selection(time: int, start: int) -> deepseek.Tensor:
    """Some visible keys of each query, -1 among them."""
    rng = np.random.default_rng(0)
    rows = [[[*rng.permutation(start + t + 1)[:4], -1, -1, -1, -1][:5] for t in range(time)] for _ in range(2)]
    return deepseek.tensor(np.array(rows).astype(np.int64))


def divergence(made: list[deepseek.Tensor], target: Attention, indices: deepseek.Tensor | None, start: int) -> float:
    """The definition, a query at a time."""
    q, k, w = (t.detach().numpy() for t in made)
    query, key = target.query.numpy(), target.key.numpy()
    key = np.repeat(key, query.shape[1] // key.shape[1], axis=1)
    total = 0.0
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            s = list(range(start + t + 1)) if indices is None else [i for i in indices[b, t].tolist() if i >= 0]
            logits = np.einsum("he,hse->hs", query[b, :, t], key[b][:, s]) * target.scale
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            weights = (weights / weights.sum(-1, keepdims=True)).sum(0)
            weights = weights / weights.sum()
            scores = w[b, t] @ np.maximum(q[b, t] @ k[b, s].T, 0)
            logs = scores - scores.max()
            total += (weights * (np.log(weights) - logs + np.log(np.exp(logs).sum()))).sum()
    return total


@pytest.mark.parametrize("held", [1 << 22, 500, 1])
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_is_its_definition(stage: str, start: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer_loss, "_HELD", held)
    indices = selection(12, start) if stage == "sparse" else None
    made, target = indexed(start=start), attention(start=start, indices=indices)
    got = indexer_loss.indexer_loss(*made, target, indices, query_start=start)
    assert float(got) == pytest.approx(divergence(made, target, indices, start), rel=1e-9)
    if held == 500:  # several queries at a time, several times
        assert gradcheck(lambda *a: indexer_loss.indexer_loss(*a, target, indices, query_start=start) / 7, made)


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_reaches_neither_the_target_nor_the_input(stage: str) -> None:
    module, (x, source) = make().double(), tokens(time=12)
    x, source = (t.double().requires_grad_() for t in (x, source))
    indices = module(x, source) if stage == "sparse" else None
    target = attention(indices=indices)
    target = target._replace(query=target.query.requires_grad_(), key=target.key.requires_grad_())
    module.learn(module.project(x, source), target, indices)
    assert module.loss is not None
    module.loss.backward()
    assert x.grad is None
    assert source.grad is None
    assert target.query.grad is None
    assert target.key.grad is None
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_a_perfect_indexer_has_no_loss() -> None:
    """One head, positive products: the scores are the attention's own."""
    deepseek.manual_seed(0)
    q, k = deepseek.rand(1, 10, 1, 8, dtype=deepseek.float64), deepseek.rand(1, 10, 8, dtype=deepseek.float64)
    lse = attend(q.transpose(1, 2), k.unsqueeze(1), k.unsqueeze(1), is_causal=True, scale=1.0).lse
    target = Attention(q.transpose(1, 2), k.unsqueeze(1), lse, 1.0)
    weights = deepseek.ones(1, 10, 1, dtype=deepseek.float64)
    assert abs(float(indexer_loss.indexer_loss(q, k, weights, target))) < 1e-12


def peak(call: Callable[[], object]) -> int:
    """Bytes that were held at once beyond those before."""
    before = deepseek.memory_stats()["allocated_bytes"]
    deepseek.reset_peak_memory_stats()
    call()
    return deepseek.memory_stats()["peak_bytes"] - before


def test_no_matrix_of_all_scores_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selecting and learning for 2,048 tokens: a matrix of scores is 16 MB, of all heads 64 MB."""
    monkeypatch.setattr(indexer, "_HELD", 1 << 17)
    monkeypatch.setattr(indexer_loss, "_HELD", 1 << 17)
    module, (x, source) = make(16), tokens(1, 2048)
    made = module.project(x, source)
    assert peak(lambda: module.select(made)) < 4e6
    q = deepseek.randn(1, 4, 2048, 8)
    target = Attention(q, q[:, :2], attend(q, q, q, is_causal=True).lse, 0.3)

    def learn() -> None:
        module.learn(made, target)
        module.loss.backward()

    assert peak(learn) < 12e6


@pytest.mark.parametrize("stage", STAGES)
def test_learning_recalls_the_keys_that_matter(stage: str) -> None:
    module, (x, source) = make(4, seed=3), tokens(2, 24)
    deepseek.manual_seed(9)
    q = (source @ deepseek.randn(SOURCE, 8)).unsqueeze(1)
    k = (x @ deepseek.randn(WIDTH, 8)).unsqueeze(1)

    def mass() -> float:
        """The share of attention that the selection holds."""
        everything = attend(q, k, k, is_causal=True, scale=0.1)
        kept = sparse_attention(q, k, k, module(x, source), scale=0.1)
        return float(deepseek.exp(kept.lse - everything.lse).mean())

    first, losses = mass(), []
    optimizer = deepseek.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(60):
        indices = module(x, source) if stage == "sparse" else None
        got = (
            attend(q, k, k, is_causal=True, scale=0.1)
            if indices is None
            else sparse_attention(q, k, k, indices, scale=0.1)
        )
        module.forget_loss()
        module.learn(module.project(x, source), Attention(q, k, got.lse, 0.1), indices)
        losses.append(float(module.loss))
        optimizer.zero_grad()
        module.loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert stage == "sparse" or mass() > first + 0.05


def test_the_loss_is_a_mean_over_what_was_handed_over() -> None:
    module, target = make().double(), attention()
    made = module.project(*(t.double() for t in tokens(time=12)))
    module.learn(made, target)
    whole = float(module.loss)
    module.forget_loss()
    assert module.loss is None
    for a, b in ((0, 5), (5, 12)):
        part = target._replace(query=target.query[:, :, a:b], lse=target.lse[:, :, a:b])
        module.learn(made.rows(a, b), part, query_start=a)
    assert float(module.loss) == pytest.approx(whole, rel=1e-12)
    assert copy.deepcopy(module).loss is None  # a copy has the parameters, not the graph
    with deepseek.no_grad():
        assert float(indexer_loss.indexer_loss(*made, target)) == pytest.approx(whole * 24, rel=1e-12)


BAD = {
    "no keys to select": (lambda: make(0), ValueError, "index_topk must be positive, got 0"),
    "a negative budget": (lambda: make().select(make().project(*tokens()), topk=-1), ValueError, "positive, got -1"),
    "no heads": (lambda: SparseIndexer(8, 0), ValueError, "index_n_heads must be positive, got 0"),
    "too much to rotate": (lambda: SparseIndexer(8, 2, 16), ValueError, "qk_rope_head_dim=64"),
    "another precision": (lambda: make(precision="int4"), ValueError, "'float' or 'int8', got 'int4'"),
    "another stage": (lambda: setattr(make(), "stage", "warm"), ValueError, "'dense', 'sparse' or None, got 'warm'"),
    "another cache": (lambda: IndexKeys("fp8"), ValueError, "'int8', got 'fp8'"),
    "keys missing": (
        lambda: make().select(make().project(*tokens()), query_start=3),
        RuntimeError,
        "30 queries from position 3 on need 33 keys, there are 30",
    ),
    "another width": (lambda: make().project(tokens()[0][..., :5], tokens()[1]), RuntimeError, "5"),
    "learning from 8 bits": (
        lambda: make().learn(
            make().project(*tokens()),
            attention(),
            keys=IndexRows(deepseek.zeros(2, 30, HEAD, dtype=deepseek.int8), deepseek.ones(2, 30)),
        ),
        RuntimeError,
        "does not learn from a cache with 8-bit keys",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, kind, text = BAD[case]
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.parametrize("time", [0, 1])
def test_no_token_and_one(time: int) -> None:
    indices = make()(*tokens(2, time))
    assert list(indices.shape) == [2, time, time]
    assert (indices == 0).all()

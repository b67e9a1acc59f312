"""What ports of DeepSeek's attention got wrong, a test for each."""

from __future__ import annotations

import deepseek
import numpy as np
import pytest
from deepseek.attention import MultiHeadLatentAttention
from deepseek.attention.rotary import RotaryEmbedding, yarn_softmax_factor
from latent_cases import INDEX, YARN, make, reference, tokens


def test_trap_yarn_has_two_corrections_that_are_apart() -> None:
    """Turned tables say nothing about the softmax: at position 0 only its factor counts, later both do."""

    def m(factor: float, mscale: float) -> float:
        return 0.1 * mscale * float(np.log(factor)) + 1

    v3 = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0}
    lite = {**v3, "mscale": 0.707, "mscale_all_dim": 0.707}
    for scaling, softmax in ((v3, 1.8739), (lite, 1.5896)):
        assert RotaryEmbedding(64, 10000, scaling).factor == 1.0  # equal settings cancel
        assert yarn_softmax_factor(scaling) == pytest.approx(softmax, abs=1e-4)
        module = MultiHeadLatentAttention(16, 1, None, 8, 16, 8, 8, rope_scaling=scaling)
        assert module.scale == pytest.approx(softmax / np.sqrt(24), abs=1e-4)
    rotary = RotaryEmbedding(4, 10000, YARN)
    assert rotary.factor == pytest.approx(m(8, 0.7) / m(8, 1.2))
    assert yarn_softmax_factor(YARN) == pytest.approx(m(8, 1.2) ** 2)
    cos, sin = rotary.tables(deepseek.tensor([0]))
    assert deepseek.allclose(cos, deepseek.full((1, 2), rotary.factor))
    assert not sin.any()
    # Two tokens at position 0: the scores are those without YaRN but for the factor of the softmax and, in the rotated
    # part, twice the factor of the tables. Without rotated features only the first is left.
    module, x = make(rope_scaling=YARN), tokens(1, 2)
    with deepseek.no_grad():
        module.kv_a_proj_with_mqa.weight[12:] = 0.0
        plain = make()
        plain.load_state_dict(module.state_dict())
        at_zero = deepseek.zeros(2, dtype=deepseek.int64)
        assert not deepseek.allclose(module(x, positions=at_zero), plain(x, positions=at_zero), atol=1e-4)
        plain.scale *= m(8, 1.2) ** 2
        assert deepseek.allclose(module(x, positions=at_zero), plain(x, positions=at_zero), atol=1e-6)
        far = deepseek.tensor([0, 50])
        assert deepseek.allclose(module(x, positions=far), plain(x, positions=far), atol=1e-6)


def test_trap_the_shared_key_is_not_normed() -> None:
    module, x = make(), tokens(1, 5)
    with deepseek.no_grad():
        tables = module.rotary.tables_from(0, 5)
        before = module._latents(x, tables)
        module.kv_a_proj_with_mqa.weight.mul_(3.0)
        after = module._latents(x, tables)
        assert deepseek.allclose(after[..., :12], before[..., :12], atol=1e-4)
        assert deepseek.allclose(after[..., 12:], before[..., 12:] * 3, rtol=1e-5)


def test_trap_heads_are_nope_then_rope() -> None:
    """The rotated features are the last of a head; the indexer has them first."""
    module, x = make(**INDEX), tokens(1, 5)
    source = module.q_a_layernorm(module.q_a_proj(x))
    query, moved = (module._query(source, module.rotary.tables_from(s, 5)) for s in (0, 50))
    assert (query[..., :6] == moved[..., :6]).all()
    assert not deepseek.isclose(query[..., 6:], moved[..., 6:]).any()
    a, b = (module.indexer.project(x, source, start=s).key for s in (0, 50))
    assert (a[..., 4:] == b[..., 4:]).all()
    assert not deepseek.isclose(a[..., :4], b[..., :4]).any()


def test_trap_interleaved_and_half_split_are_permutations() -> None:
    """The same weights differ; with the rotated rows reordered they agree, although cached keys differ in order."""
    pairs, halves = make(), make(rope_interleave=False)
    x = tokens()
    halves.load_state_dict(pairs.state_dict())
    assert not deepseek.allclose(pairs(x), halves(x), atol=1e-3)
    order = [0, 2, 1, 3]
    with deepseek.no_grad():
        heads = halves.q_b_proj.weight.view(3, 10, 10)
        heads[:, 6:] = heads[:, 6:][:, order].clone()
        halves.kv_a_proj_with_mqa.weight[12:] = halves.kv_a_proj_with_mqa.weight[12:][order].clone()
        assert deepseek.allclose(pairs(x), halves(x), atol=1e-6)
        one, other = pairs.new_cache(), halves.new_cache()
        pairs(x, cache=one)
        halves(x, cache=other)
        a, b = one._latents.view(), other._latents.view()
        assert deepseek.allclose(a[..., 12:][..., order], b[..., 12:], atol=1e-6)
        assert not deepseek.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("given", [1e-6, 1e-2, 1e-20])
def test_trap_latent_norms_have_their_own_epsilon(given: float) -> None:
    module, x = make(rms_norm_eps=given), tokens() * 1e-3
    assert module.q_a_layernorm.eps == module.kv_a_layernorm.eps == 1e-6
    np.testing.assert_allclose(module(x)[0].detach().numpy(), reference(module, x[0], {}), atol=1e-6)


def test_trap_rows_of_the_up_projection_are_key_then_value_of_each_head() -> None:
    module, x = make(), tokens()
    with deepseek.no_grad():
        module.kv_b_proj.by_head()[1, 6:] = 0.0  # the value of head 1
        module.o_proj.weight[:, :5] = 0.0
        module.o_proj.weight[:, 10:] = 0.0
    assert not module(x).any()

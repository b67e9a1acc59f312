"""DeepSeek-V4's attention with random settings: equal to its equations, and the same bits however the input is cut,
rewound, padded and beside whatever else in the batch, on any number of threads."""

from __future__ import annotations

import deepseek
import numpy as np
from attention.compressed_reference import attention, weights_of
from cases import cases
from deepseek.attention import CompressedAttention

USUAL = 60
TYPES = ("sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention")


def random_settings(rng: np.random.Generator) -> dict[str, object]:
    turned = 2 * int(rng.integers(1, 5))
    groups = int(rng.integers(1, 4))
    yarn = {"type": "yarn", "factor": float(rng.choice([4, 16])), "original_max_position_embeddings": 64,
            "beta_fast": 32, "beta_slow": 1}  # fmt: skip
    return {
        "hidden_size": int(rng.integers(1, 33)),
        "num_attention_heads": groups * int(rng.integers(1, 5)),
        "layer_type": str(rng.choice(TYPES)),
        "head_dim": turned + 2 * int(rng.integers(0, 12)),
        "qk_rope_head_dim": turned,
        "q_lora_rank": int(rng.integers(1, 20)),
        "o_lora_rank": int(rng.integers(1, 9)),
        "o_groups": groups,
        "sliding_window": int(rng.choice([1, 2, 7, 30, 500])),
        "compress_ratio": int(rng.choice([1, 2, 3, 4, 4, 9])),
        "rope_theta": 100.0,
        "compress_rope_theta": 1600.0,
        "rope_scaling": yarn if rng.random() < 0.6 else None,
        "index_n_heads": int(rng.integers(1, 4)),
        "index_head_dim": turned + 2 * int(rng.integers(0, 3)),
        "index_topk": int(rng.choice([1, 2, 5, 40])),
        "rms_norm_eps": 1e-6,
    }


def check(number: int) -> None:
    rng = np.random.default_rng(number)
    settings = random_settings(rng)
    deepseek.manual_seed(number)
    module = CompressedAttention(**settings)
    with deepseek.no_grad():
        for name, p in module.named_parameters():
            if "norm" not in name:
                p.copy_(deepseek.randn(*p.shape) * p.shape[-1] ** -0.5)
    batch, time = int(rng.integers(1, 4)), int(rng.choice([1, 3, 30, 100, 100, 600]))
    x = deepseek.tensor(rng.normal(size=(batch, time, settings["hidden_size"])).astype(np.float32))
    with deepseek.no_grad():
        whole = module(x)
        if time <= 100:
            double = module.double()
            want = attention(weights_of(double), x[0].double().numpy(), settings)
            error = np.abs(double(x.double())[0].numpy() - want).max()
            assert error <= 1e-4 * max(1.0, np.abs(want).max()), error
            module.float()
        same_in_pieces(module, x, whole, rng)
        alone = int(rng.integers(batch))
        assert (module(x[alone : alone + 1]) == whole[alone : alone + 1]).all(), "beside others"
        real = deepseek.tensor(rng.random((batch, time)) < 0.7)
        padded = module(x, attention_mask=real)
        for b in range(batch):
            kept = real[b].nonzero().squeeze(-1)
            if len(kept):
                assert (padded[b][kept] == module(x[b][kept].unsqueeze(0))[0]).all(), "padded"
        threads = deepseek.get_num_threads()
        try:
            deepseek.set_num_threads(1 if threads > 1 else 3)
            assert (module(x) == whole).all(), "threads"
        finally:
            deepseek.set_num_threads(threads)


def same_in_pieces(
    module: CompressedAttention, x: deepseek.Tensor, whole: deepseek.Tensor, rng: np.random.Generator
) -> None:
    """Random chunks; now and then some are taken back and given again, after others."""
    rewind = int(rng.choice([0, 1, 5, 40]))
    cache, longest, most, rewinds = module.new_cache(rewind), 0, int(rng.choice([1, 4, 60, 300])), 8
    while cache.length < x.shape[1]:
        at = cache.length
        piece = x[:, at : at + int(rng.integers(1, most + 1))]
        assert (module(piece, cache=cache) == whole[:, at : cache.length]).all(), ("pieces", at, cache.length)
        longest = max(longest, cache.length)
        back = int(rng.integers(0, min(rewind - (longest - cache.length), cache.length) + 1))
        if back and rewinds and rng.random() < 0.3:
            rewinds -= 1
            cache.truncate(cache.length - back)
            if rng.random() < 0.5 and back > 1:
                module(-piece[:, : back - 1], cache=cache)
                cache.truncate(cache.length - min(back - 1, piece.shape[1]))
    for name, stream in cache._streams().items():
        if stream.reach is not None:
            assert stream._data.shape[-2] <= max(2 * (stream.reach + rewind + stream._spare) + stream._spare, 64), name


def test_random_compressed_attention() -> None:
    for number in cases(USUAL):
        try:
            check(number)
        except Exception as e:
            raise AssertionError(f"case {number}: {random_settings(np.random.default_rng(number))}") from e

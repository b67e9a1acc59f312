"""What ``deepseek bench attention`` measures, of deepseek and of PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

HEADS, KEY_HEADS, SIZE, DIM = 16, 4, 128, 512
BUDGET, BLOCK = 2048, 64
MIDDLE = 2048  # tokens that stand for a long text: those in its middle, which see the mean number of keys
LITE = {"hidden_size": 2048, "num_attention_heads": 16, "q_lora_rank": None, "kv_lora_rank": 512}
LITE |= {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}  # DeepSeek-V2-Lite's layer
DTYPES = {"f32": "float32", "bf16": "bfloat16"}

Setups = dict[str, Callable[[], Callable[[], Any]]]


def length(full: bool) -> int:
    """Of the texts where things are compared."""
    return 65536 if full else 16384


def lengths(full: bool) -> tuple[int, ...]:
    """Of the prompts that show how time grows."""
    return (4096, 8192, 16384, 32768, 65536) if full else (4096, 8192, 16384)


def decode_length(full: bool) -> int:
    """Tokens before the one that is decoded."""
    return 65536


def latent_length(full: bool) -> int:
    """The same for latent attention."""
    return 32768 if full else 8192


def cases(T: Any, full: bool) -> Setups:
    """Functions that make the inputs of a case and return what is timed."""
    return _torch(T, full) if T.__name__ == "torch" else _deepseek(T, full)


def _deepseek(T: Any, full: bool) -> Setups:
    attention = importlib.import_module("deepseek.attention")

    def module(keys: int, dtype: str = "f32") -> Any:
        T.manual_seed(0)
        made = attention.DynamicSparseAttention(
            DIM, HEADS, num_key_value_heads=KEY_HEADS, head_dim=SIZE, max_keys=keys, block_size=BLOCK, causal=True
        )
        return made.to(getattr(T, DTYPES[dtype]))

    table: Setups = {}
    before = length(full) // 2 - MIDDLE // 2
    for dtype in DTYPES:
        for name, keys in (("sparse", BUDGET), ("dense", length(full))):
            make = _bind(module, keys, dtype)
            table[f"prefill {dtype} {name}"] = _bind(_continued, T, make, before, dtype)
            table[f"train {dtype} {name}"] = _bind(_continued_training, T, make, before, dtype)
    for time in lengths(full):
        table[f"prefill {time}"] = _bind(_forward, T, _bind(module, BUDGET), time, "f32")
        table[f"selection {time}"] = _bind(_selection, T, module, time)
    table["whole training"] = _bind(_training, T, _bind(module, BUDGET), 16384, "f32")
    before = decode_length(full)
    for name, keys in (("sparse", BUDGET), ("dense", 2 * before)):
        table[f"decode {name}"] = _bind(_decode, T, _bind(module, keys), before)
    before = latent_length(full)
    table["latent decode"] = _bind(_latent_decode, T, attention, before)
    table["latent bytes"] = lambda: lambda: _latent_bytes(T, attention)
    table["expanded bytes"] = lambda: lambda: 4 * 16 * (192 + 128)
    return table


def _torch(T: Any, full: bool) -> Setups:
    nn, F = T.nn, T.nn.functional

    class Dense(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.query, self.out = nn.Linear(DIM, HEADS * SIZE, bias=False), nn.Linear(HEADS * SIZE, DIM, bias=False)
            self.key, self.value = (nn.Linear(DIM, KEY_HEADS * SIZE, bias=False) for _ in range(2))

        def forward(self, x: Any, earlier: Any = None, cache: Any = None) -> Any:
            q, k, v = (p(x).unflatten(-1, (-1, SIZE)).transpose(1, 2) for p in (self.query, self.key, self.value))
            if earlier is not None:
                k, v = (T.cat([e, n], dim=2) for e, n in zip(earlier, (k, v), strict=True))
            if cache is not None:  # which has room for the new token; query heads as rows of their key head
                for held, new in zip(cache, (k, v), strict=True):
                    held[:, :, -1:] = new
                y = F.scaled_dot_product_attention(q.reshape(1, KEY_HEADS, -1, SIZE), *cache)
                return self.out(y.reshape(1, 1, -1))
            wide = [t.repeat_interleave(HEADS // KEY_HEADS, 1) for t in (k, v)]
            y = F.scaled_dot_product_attention(q, *wide, is_causal=earlier is None)
            return self.out(y.transpose(1, 2).flatten(2))

    def module(dtype: str = "f32") -> Any:
        T.manual_seed(0)
        return Dense().to(getattr(T, DTYPES[dtype]))

    table: Setups = {}
    keys = length(full) // 2 - MIDDLE  # before the new ones, without a mask: as many as ours see in the mean
    for dtype in DTYPES:
        table[f"prefill {dtype} dense"] = _bind(_after, T, _bind(module, dtype), keys, dtype, False)
        table[f"train {dtype} dense"] = _bind(_after, T, _bind(module, dtype), keys, dtype, True)
    table["whole training"] = _bind(_training, T, module, 16384, "f32")
    before = decode_length(full)

    def decode() -> Callable[[], Any]:
        layer, x, cache = module(), T.randn(1, 1, DIM), _rows(T, before + 1, "f32")

        def run() -> Any:
            with T.no_grad():
                return layer(x, cache=cache)

        return run

    table["decode dense"] = decode
    table["latent decode"] = _bind(_transformers_decode, T, latent_length(full))
    return table


def _bind(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _rows(T: Any, count: int, dtype: str) -> list[Any]:
    """Keys and values."""
    return [T.randn(1, KEY_HEADS, count, SIZE).to(getattr(T, DTYPES[dtype])) for _ in range(2)]


def _continued(T: Any, make: Callable[[], Any], before: int, dtype: str) -> Callable[[], Any]:
    """The tokens after those in a cache."""
    layer = make()
    x, cache = T.randn(1, MIDDLE, DIM).to(getattr(T, DTYPES[dtype])), layer.new_cache()
    with T.no_grad():
        cache.append(*_rows(T, before, dtype))

    def run() -> Any:
        with T.no_grad():
            cache.truncate(before)
            return layer(x, cache=cache)

    return run


def _continued_training(T: Any, make: Callable[[], Any], before: int, dtype: str) -> Callable[[], Any]:
    """Gradients reach what the cache holds, so it begins anew."""
    layer = make()
    rows = [row.requires_grad_(True) for row in _rows(T, before, dtype)]

    def call(x: Any) -> Any:
        cache = layer.new_cache()
        cache.append(*rows)
        return layer(x, cache=cache)

    return _step(T, layer, call, rows, dtype)


def _after(T: Any, make: Callable[[], Any], before: int, dtype: str, train: bool) -> Callable[[], Any]:
    """The same in PyTorch."""
    layer, rows = make(), [row.requires_grad_(train) for row in _rows(T, before, dtype)]
    if train:
        return _step(T, layer, lambda x: layer(x, rows), rows, dtype)
    x = T.randn(1, MIDDLE, DIM).to(getattr(T, DTYPES[dtype]))

    def run() -> Any:
        with T.no_grad():
            return layer(x, rows)

    return run


def _step(T: Any, layer: Any, call: Callable[[Any], Any], rows: list[Any], dtype: str) -> Callable[[], Any]:
    x = T.randn(1, MIDDLE, DIM).to(getattr(T, DTYPES[dtype])).requires_grad_(True)
    gradient = T.ones_like(x.detach())

    def run() -> None:
        call(x).backward(gradient)
        for leaf in (x, *rows, *layer.parameters()):
            leaf.grad = None

    return run


def _forward(T: Any, make: Callable[[], Any], time: int, dtype: str) -> Callable[[], Any]:
    layer = make()
    x = T.randn(1, time, DIM).to(getattr(T, DTYPES[dtype]))

    def run() -> Any:
        with T.no_grad():
            return layer(x)

    return run


def _training(T: Any, make: Callable[[], Any], time: int, dtype: str) -> Callable[[], Any]:
    layer = make()
    x = T.randn(1, time, DIM).to(getattr(T, DTYPES[dtype])).requires_grad_(True)
    gradient = T.ones_like(x.detach())

    def run() -> None:
        layer(x).backward(gradient)
        for leaf in (x, *layer.parameters()):
            leaf.grad = None

    return run


def _selection(T: Any, module: Callable[..., Any], time: int) -> Callable[[], Any]:
    selection = importlib.import_module("deepseek.attention.selection")
    block_means = importlib.import_module("deepseek.attention.caches.blocks").block_means
    layer = module(BUDGET)
    query, key = T.randn(1, HEADS, time, SIZE), T.randn(1, KEY_HEADS, time, SIZE)

    def run() -> Any:
        with T.no_grad():
            means = block_means(key, BLOCK, (time - 1) // BLOCK)
            return selection.select_blocks(query, key, means, BLOCK, layer.budget, is_causal=True)

    return run


def _decode(T: Any, make: Callable[[], Any], before: int) -> Callable[[], Any]:
    layer, x = make(), T.randn(1, 1, DIM)
    cache = layer.new_cache()
    with T.no_grad():
        cache.append(*_rows(T, before, "f32"))

    def run() -> Any:
        with T.no_grad():
            cache.truncate(before)
            return layer(x, cache=cache)

    return run


def _latent_decode(T: Any, attention: Any, before: int) -> Callable[[], Any]:
    T.manual_seed(0)
    layer, x = attention.MultiHeadLatentAttention(**LITE), T.randn(1, 1, LITE["hidden_size"])
    cache = layer.new_cache()
    with T.no_grad():
        cache.append(T.randn(1, before, 576))

    def run() -> Any:
        with T.no_grad():
            cache.truncate(before)
            return layer(x, cache=cache)

    return run


def _latent_bytes(T: Any, attention: Any) -> float:
    """A token's, in the cache."""
    cache = attention.LatentCache()
    with T.no_grad():
        cache.append(T.zeros(1, 64, 576))
    return float(cache.nbytes / 64)


def _transformers_decode(T: Any, before: int) -> Callable[[], Any]:
    from transformers import DynamicCache  # type: ignore[import-not-found, unused-ignore]

    module = importlib.import_module("transformers.models.deepseek_v2.modeling_deepseek_v2")
    T.manual_seed(0)
    config = module.DeepseekV2Config(**LITE, num_key_value_heads=LITE["num_attention_heads"])
    config._attn_implementation = "sdpa"
    layer, x = module.DeepseekV2Attention(config, 0).eval(), T.randn(1, 1, LITE["hidden_size"])
    angles = module.DeepseekV2RotaryEmbedding(config)(x, T.tensor([[before]]))
    cache = DynamicCache(config=config)
    latents = T.randn(1, 1, before, 576)
    cache.update(latents[..., :512], latents[..., 512:], 0)

    def run() -> Any:
        with T.no_grad():
            out = layer(hidden_states=x, position_embeddings=angles, attention_mask=None, cache=cache)
            cache.crop(-1)
            return out

    return run

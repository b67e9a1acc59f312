"""Multi-head latent attention beside transformers' layer: one token with 32,768 before it, and the bytes of the cache.

transformers 5.24 keeps latents too, and expands all of them to keys and values in every step. Four shapes, float32 and
bfloat16, random weights:

- "V2-Lite": the layer of DeepSeek-V2-Lite;
- "V3": that of DeepSeek-V3 with 32 of its 128 heads: with all of them a step of the peer expands 5.4 GB;
- "V3.2": the same with its indexer of 64 heads, which picks 2,048 keys; the peer masks the others.

The cache is filled with random latents. `bytes` compares ours to keys and values of all heads.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

from _harness import main

CACHE = 32768
COMMON = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
LITE = COMMON | {"hidden_size": 2048, "num_attention_heads": 16, "q_lora_rank": None}
V3 = COMMON | {"hidden_size": 7168, "num_attention_heads": 32, "q_lora_rank": 1536}
INDEXED = V3 | {"index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128}
SHAPES = {"V2-Lite": ("V2", LITE), "V3": ("V3", V3), "V3.2": ("V32", INDEXED)}
GOAL = 8.0


def ours(T: Any, shape: str, dtype: str) -> Callable[[], Any]:
    attention = importlib.import_module("deepseek.attention")

    def setup() -> Any:
        T.manual_seed(0)
        layer = attention.MultiHeadLatentAttention(**SHAPES[shape][1]).to(getattr(T, dtype))
        x = T.randn(1, 1, layer.hidden_size).to(getattr(T, dtype))
        cache = layer.new_cache()
        with T.no_grad():
            cache.append(*filled(T, layer.indexer is not None, getattr(T, dtype)))

        def step() -> Any:
            with T.no_grad():
                cache.truncate(CACHE)
                return layer(x, cache=cache)

        return step

    return setup


def filled(T: Any, indexed: bool, dtype: Any) -> list[Any]:
    latents = T.randn(1, CACHE, 576).to(dtype)
    return [latents, T.randn(1, CACHE, 128).to(dtype)] if indexed else [latents]


def theirs(T: Any, shape: str, dtype: str) -> Callable[[], Any]:
    from transformers import DynamicCache

    version, sizes = SHAPES[shape]
    name = f"deepseek_{version.lower()}"
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")

    def setup() -> Any:
        T.manual_seed(0)
        config = getattr(module, f"Deepseek{version}Config")(**sizes, num_key_value_heads=sizes["num_attention_heads"])
        config._attn_implementation = "sdpa"
        layer = getattr(module, f"Deepseek{version}Attention")(config, 0).to(getattr(T, dtype)).eval()
        x = T.randn(1, 1, config.hidden_size).to(getattr(T, dtype))
        angles = getattr(module, f"Deepseek{version}RotaryEmbedding")(config)(x, T.tensor([[CACHE]]))
        cache = DynamicCache(config=config)
        latents, *keys = filled(T, "index_topk" in sizes, getattr(T, dtype))
        cache.update(latents[None, ..., :512], latents[None, ..., 512:], 0)
        if keys:
            cache.update_indexer(keys[0], 0)
        mask = T.zeros(1, 1, 1, CACHE + 1, dtype=x.dtype) if keys else None

        def step() -> Any:
            with T.no_grad():
                out = layer(hidden_states=x, position_embeddings=angles, attention_mask=mask, cache=cache)
                cache.crop(-1)
                return out

        return step

    return setup


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    make = theirs if T.__name__ == "torch" else ours
    return {f"{shape} {dtype}": make(T, shape, dtype) for shape in SHAPES for dtype in ("float32", "bfloat16")}


def print_bytes() -> None:
    """What a token takes in the cache, beside keys and values of all heads, and those of all 128 heads of V3."""
    import deepseek
    from deepseek.attention import MultiHeadLatentAttention

    for shape, (_, sizes) in SHAPES.items():
        layer = MultiHeadLatentAttention(**sizes | {"hidden_size": 64})
        cache = layer.new_cache()
        with deepseek.no_grad():
            layer(deepseek.zeros(1, 64, 64), cache=cache)
        heads = 16 if shape == "V2-Lite" else 128
        expanded = 4 * heads * (192 + 128)
        token = cache.nbytes // 64
        line = {"case": f"{shape} bytes a token, float32", "deepseek": token, "expanded": expanded}
        print(json.dumps({"benchmark": "mla", **line, "ratio": round(expanded / token, 1), "goal": 8}), flush=True)


if __name__ == "__main__":
    if "--worker" not in sys.argv:
        print_bytes()
    main("mla", cases, goals=lambda case: GOAL)

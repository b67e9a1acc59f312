"""DeepSeek-V4's blocks beside transformers': prefill and training of each kind of attention, hyper-connections.

The layer has DeepSeek-V4-Flash's heads of 512 features, 16 of its 64, and an indexer of 16 heads that picks 256 of the
entries. transformers 5.24 computes scores of all pairs of tokens, and of tokens and entries, under masks ("eager", its
only way for this model). "mHC" are the streams of a token read, doubled and written, 4 of 2,048 features, forward and
backward. float32, random weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from _harness import main

SIZES = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "head_dim": 512,
    "q_lora_rank": 256,
    "o_lora_rank": 256,
    "o_groups": 4,
    "sliding_window": 128,
    "index_n_heads": 16,
    "index_head_dim": 128,
    "index_topk": 256,
}
TYPES = {
    "window": "sliding_attention",
    "CSA": "compressed_sparse_attention",
    "HCA": "heavily_compressed_attention",
}
STREAMS = (1, 512, 4, 2048)


def step_of(T: Any, layer: Callable[[Any], Any], x: Any, train: bool) -> Callable[[], Any]:
    def step() -> Any:
        if not train:
            with T.no_grad():
                return layer(x)
        leaf = x.clone().requires_grad_()
        layer(leaf).sum().backward()
        return leaf.grad

    return step


def ours(T: Any, kind: str, time: int, train: bool) -> Callable[[], Any]:
    def setup() -> Any:
        attention = importlib.import_module("deepseek.attention")
        T.manual_seed(0)
        if kind == "mHC":
            hyper = attention.HyperConnection(STREAMS[3])

            def around(streams: Any) -> Any:
                collapsed, kept = hyper.read(streams)
                return hyper.write(collapsed * 2, streams, kept)

            return step_of(T, around, T.randn(*STREAMS), train)
        layer = attention.CompressedAttention(layer_type=TYPES[kind], **SIZES)
        return step_of(T, layer, T.randn(1, time, SIZES["hidden_size"]), train)

    return setup


def theirs(T: Any, kind: str, time: int, train: bool) -> Callable[[], Any]:
    def setup() -> Any:
        v4 = importlib.import_module("transformers.models.deepseek_v4.modeling_deepseek_v4")
        T.manual_seed(0)
        if kind == "mHC":
            hyper = v4.DeepseekV4HyperConnection(v4.DeepseekV4Config(hidden_size=STREAMS[3]))
            randomize(T, hyper)

            def around(streams: Any) -> Any:
                post, comb, collapsed = hyper(streams)
                return post.unsqueeze(-1) * (collapsed * 2).unsqueeze(-2) + comb.transpose(-1, -2) @ streams

            return step_of(T, around, T.randn(*STREAMS), train)
        config = v4.DeepseekV4Config(
            num_hidden_layers=1,
            layer_types=[TYPES[kind]],
            partial_rotary_factor=1 / 8,
            attn_implementation="eager",
            **SIZES,
        )
        layer = v4.DeepseekV4Attention(config, 0)
        randomize(T, layer)
        positions = T.arange(time).unsqueeze(0)
        x = T.randn(1, time, SIZES["hidden_size"])
        rotary = v4.DeepseekV4RotaryEmbedding(config)
        angles = {part: rotary(x, position_ids=positions, layer_type=part) for part in ("main", "compress")}
        distance = T.arange(time).unsqueeze(1) - T.arange(time)
        seen = (distance >= 0) & (distance < SIZES["sliding_window"])
        mask = T.where(seen, 0.0, T.finfo(T.float32).min)[None, None]

        def call(x: Any) -> Any:
            return layer(x, position_embeddings=angles, position_ids=positions, attention_mask=mask, cache=None)[0]

        return step_of(T, call, x, train)

    return setup


def randomize(T: Any, module: Any) -> None:
    """transformers leaves them as they were in memory."""
    with T.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.02)


def cases(T: Any) -> dict[str, Callable[[], Any]]:
    make = theirs if T.__name__ == "torch" else ours
    table = {f"{kind} prefill 2048": make(T, kind, 2048, False) for kind in TYPES}
    table |= {f"{kind} training step 1024": make(T, kind, 1024, True) for kind in TYPES}
    return table | {"mHC training step 512": make(T, "mHC", 512, True)}


if __name__ == "__main__":
    main("v4", cases)

"""Draws docs/images/attention_cost.svg and attention_cache.svg: what each block costs and remembers, by length.

python benchmarks/attention_pictures.py: some minutes. Time is that of the processor, of one thread, so that other
programs disturb it little. All blocks have 512 features and 8 heads of size 64.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import deepseek
from _harness import ROOT
from deepseek import attention as A

DIM, HEADS, KEY_HEADS = 512, 8, 2


def blocks() -> dict[str, Any]:
    shared = {"num_key_value_heads": KEY_HEADS}
    latent = {"kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "q_lora_rank": 256}
    compressed = {"head_dim": 64, "qk_rope_head_dim": 16, "q_lora_rank": 256, "o_lora_rank": 128, "o_groups": 2}
    indexer = {"index_n_heads": 4, "index_head_dim": 64, "index_topk": 512}
    return {
        "dense": A.MultiHeadAttention(DIM, HEADS, causal=True, gate=False, **shared),
        "MLA": A.MultiHeadLatentAttention(DIM, HEADS, **latent),
        "NSA": A.NativeSparseAttention(DIM, HEADS, **shared),
        "MoBA, 3 of 512": A.MixtureOfBlockAttention(DIM, HEADS, shared_selection=True, **shared),
        "dynamic, 2,048 keys": A.DynamicSparseAttention(DIM, HEADS, max_keys=2048, causal=True, **shared),
        "V4, CSA": A.CompressedAttention(DIM, HEADS, "compressed_sparse_attention", **compressed, **indexer),
        "V4, HCA": A.CompressedAttention(DIM, HEADS, "heavily_compressed_attention", **compressed),
        "hierarchical, global": A.HierarchicalAttention(DIM, HEADS, layer_type="global", **shared),
    }


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """The shortest of some runs."""
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


def measure(module: Any, length: int) -> dict[str, float]:
    """Seconds of a whole prompt and of the token after it, bytes of the cache a token."""
    x, one = deepseek.randn(1, length, DIM), deepseek.randn(1, 1, DIM)
    with deepseek.no_grad():
        cache = module.new_cache()
        prefill = seconds(lambda: module(x), 1 if length > 8192 else 2)
        module(x, cache=cache)
        decode = seconds(lambda: module(one, cache=cache), 9)
    return {"prefill": prefill, "decode": decode, "bytes": cache.nbytes / cache.length}


def draw(found: dict[str, dict[int, dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "deepseek"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, what, title in zip(axes, ("prefill", "decode"), ("a whole prompt", "the next token"), strict=True):
        for name, by_length in found.items():
            style = {"color": "black", "linewidth": 2} if name == "dense" else {}
            axis.plot(list(by_length), [1e3 * v[what] for v in by_length.values()], marker="o", label=name, **style)
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel="milliseconds, one thread", title=title)
        axis.set_xticks(lengths := list(found["dense"]), [f"{n // 1024}K" for n in lengths])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    save(figure, "attention_cost.svg")

    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    longest = max(found["dense"])
    names = sorted(found, key=lambda name: -found[name][longest]["bytes"])
    bars = axis.barh(names, [found[name][longest]["bytes"] for name in names])
    axis.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axis.set(xlabel=f"bytes a token that the cache holds after {longest:,} tokens, float32")
    axis.margins(x=0.12)
    save(figure, "attention_cache.svg")


def save(figure: Any, name: str) -> None:
    path = ROOT / "docs" / "images" / name
    figure.savefig(path, metadata={"Date": None})
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of the attention blocks by length, as pictures.")
    parser.add_argument("--longest", type=int, default=32768, help="tokens of the longest prompt")
    longest = parser.parse_args().longest
    deepseek.set_num_threads(1)
    deepseek.manual_seed(0)
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name, module in blocks().items():
        length, found[name] = 2048, {}
        while length <= longest:
            found[name][length] = result = measure(module, length)
            print(f"{name:>22} {length:>6}: {result['prefill']:8.3f} s {1e3 * result['decode']:8.3f} ms", flush=True)
            length *= 2
    draw(found)


if __name__ == "__main__":
    main()

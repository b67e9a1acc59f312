"""Mixtures of experts in plain PyTorch, those of `deepseek bench moe`: found by path, since PyTorch's interpreter need
not have deepseek."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_FILE = Path(__file__).resolve().parents[1] / "python/deepseek/cli/bench/torch_experts.py"
_SPEC = importlib.util.spec_from_file_location("torch_experts", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

sorted_pairs, by_loop, by_grouped_products, layer = (
    getattr(_MODULE, name) for name in ("sorted_pairs", "by_loop", "by_grouped_products", "layer")
)

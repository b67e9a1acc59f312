"""A working directory for tests of the command line."""

from __future__ import annotations

import pytest

CONFIG = """
[model]
dim = 16
n_layers = 1
n_heads = 2
context = 16
n_routed_experts = 3
top_k = 2
expert_dim = 8
ngram_orders = [2, 3]
ngram_rows = 32
ngram_dim = 4
[data]
path = "text"
eval_bytes = 300
[run]
steps = 12
batch = 2
checkpoint_every = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with some text and a configuration for it."""
    for number in range(120):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 4)
    (tmp_path / "small.toml").write_text(CONFIG)
    for name, text in (("empty.txt", ""), ("one.txt", "x"), ("short.txt", "twenty characters ab")):
        (tmp_path / name).write_text(text)
    for name in ("empty", "few"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "few" / "a.py").write_text("a")
    monkeypatch.chdir(tmp_path)
    return tmp_path

"""Writes record.safetensors with PyTorch 2.13: 10 AdamW steps of the model in spec.py, in float64.

    python pytests/golden/make_record.py

The record holds `loss` [STEPS], `grad.<step>.<parameter>` for every step and parameter, and `final.<parameter>`.
Written in plain torch functions, independent of deepseek.
"""

from __future__ import annotations

import sys

import numpy as np
import spec
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import Tensor

Params = dict[str, Tensor]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attention(x: Tensor, p: Params, block: str, table: tuple[Tensor, Tensor]) -> Tensor:
    batch, time, dim = x.shape
    qkv = F.linear(x, p[f"{block}.qkv"]).view(batch, time, 3, spec.HEADS, spec.HEAD_DIM).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)  # [batch, heads, time, head_dim]
    scores = rotate(q, *table) @ rotate(k, *table).transpose(-2, -1) / spec.HEAD_DIM**0.5
    future = torch.ones(time, time, dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
    return F.linear(mixed.transpose(1, 2).reshape(batch, time, dim), p[f"{block}.out"])


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def mixture(x: Tensor, p: Params, block: str) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    probabilities = F.linear(flat, p[f"{block}.router"]).softmax(-1)
    top, chosen = probabilities.topk(spec.TOP_K, dim=-1)
    ranked = probabilities.sort(-1, descending=True).values
    # A near tie would make the choice of experts depend on the last bit.
    margin = (ranked[:, spec.TOP_K - 1] - ranked[:, spec.TOP_K]).min().item()
    assert margin > 1e-3, f"two experts are {margin} apart: change spec.START"
    top = top / top.sum(-1, keepdim=True)
    out = torch.zeros_like(flat)
    for e in range(spec.EXPERTS):
        expert = swiglu(flat, p[f"{block}.gate"][e], p[f"{block}.up"][e], p[f"{block}.down"][e])
        share = (top * (chosen == e)).sum(-1, keepdim=True)  # zero where the expert was not chosen
        out = out + share * expert
    return out.view_as(x)


def loss_of(p: Params, tokens: Tensor, targets: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    x = F.embedding(tokens, p["embedding"])
    for n in range(2):
        block = f"blocks.{n}"
        x = x + attention(F.rms_norm(x, (spec.DIM,), p[f"{block}.attention_norm"], spec.EPS), p, block, table)
        h = F.rms_norm(x, (spec.DIM,), p[f"{block}.ffn_norm"], spec.EPS)
        if n == 0:
            x = x + swiglu(h, p[f"{block}.gate"], p[f"{block}.up"], p[f"{block}.down"])
        else:
            x = x + mixture(h, p, block)
    logits = F.linear(F.rms_norm(x, (spec.DIM,), p["final_norm"], spec.EPS), p["embedding"])
    return F.cross_entropy(logits.view(-1, spec.VOCAB), targets.view(-1))


def main() -> None:
    assert torch.__version__.split("+")[0] == "2.13.0", f"the record is made with torch 2.13.0, not {torch.__version__}"
    torch.set_num_threads(1)
    params = {name: torch.from_numpy(w).clone().requires_grad_() for name, w in spec.weights().items()}
    optimizer = torch.optim.AdamW(params.values(), **spec.ADAMW)
    table = tuple(torch.from_numpy(t) for t in spec.rope_table())
    record: dict[str, np.ndarray] = {}
    losses = []
    for step, (tokens, targets) in enumerate(spec.batches()):
        optimizer.zero_grad()
        loss = loss_of(params, torch.from_numpy(tokens), torch.from_numpy(targets), table)
        loss.backward()
        losses.append(loss.item())
        record.update({f"grad.{step}.{name}": p.grad.numpy().copy() for name, p in params.items()})
        optimizer.step()
    record["loss"] = np.array(losses)
    record.update({f"final.{name}": p.detach().numpy() for name, p in params.items()})
    save_file(record, spec.RECORD, {"made_with": f"torch {torch.__version__}"})
    print(f"{spec.RECORD.name}: {spec.RECORD.stat().st_size:,} bytes, losses {losses[0]:.4f} -> {losses[-1]:.4f}")


if __name__ == "__main__":
    sys.exit(main())

"""Golden test: 10 AdamW steps of a tiny language model give the losses and gradients that PyTorch 2.13 gave.

golden/make_record.py made the record, in float64; golden/spec.py holds the sizes, weights and tokens of both.
"""

from __future__ import annotations

import deepseek
import deepseek.nn.functional as F
import numpy as np
import pytest
from deepseek import Tensor, nn
from deepseek.io.safetensors import load_file
from golden import spec

# Largest difference over the largest gradient of the parameter. Float32 is compared with the float64 record, so what
# it shows is float32's own rounding, which ten steps of AdamW amplify.
TOLERANCE = {deepseek.float64: 1e-13, deepseek.float32: 5e-5}
LOSS_TOLERANCE = {deepseek.float64: 1e-13, deepseek.float32: 1e-6}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(spec.DIM, 3 * spec.DIM, bias=False)
        self.out = nn.Linear(spec.DIM, spec.DIM, bias=False)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        batch, time, dim = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, spec.HEADS, spec.HEAD_DIM).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(F.rope(q, *table), F.rope(k, *table), v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, time, dim))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(spec.DIM, spec.HIDDEN, bias=False)
        self.up = nn.Linear(spec.DIM, spec.HIDDEN, bias=False)
        self.down = nn.Linear(spec.HIDDEN, spec.DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.swiglu(self.gate(x), self.up(x)))


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(spec.DIM, spec.EXPERTS, bias=False)
        self.gate = nn.Parameter(deepseek.empty(spec.EXPERTS, spec.EXPERT_HIDDEN, spec.DIM))
        self.up = nn.Parameter(deepseek.empty(spec.EXPERTS, spec.EXPERT_HIDDEN, spec.DIM))
        self.down = nn.Parameter(deepseek.empty(spec.EXPERTS, spec.DIM, spec.EXPERT_HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, spec.DIM)
        top, chosen = self.router(flat).softmax(-1).topk(spec.TOP_K, dim=-1)
        return F.moe(flat, self.gate, self.up, self.down, chosen, top / top.sum(-1, keepdim=True)).view(*x.shape)


class Block(nn.Module):
    def __init__(self, ffn: nn.Module) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(spec.DIM, eps=spec.EPS)
        self.attention = Attention()
        self.ffn_norm = nn.RMSNorm(spec.DIM, eps=spec.EPS)
        self.ffn = ffn

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attention(self.attention_norm(x), table)
        return x + self.ffn(self.ffn_norm(x))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(spec.VOCAB, spec.DIM)
        self.blocks = nn.ModuleList([Block(FeedForward()), Block(Mixture())])
        self.final_norm = nn.RMSNorm(spec.DIM, eps=spec.EPS)
        self.head = nn.Linear(spec.DIM, spec.VOCAB, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, table)
        return self.head(self.final_norm(x))


def parameters_by_record_name(model: Model) -> dict[str, nn.Parameter]:
    def short(name: str) -> str:
        return name.removesuffix(".weight").replace(".attention.", ".").replace(".ffn.", ".")

    return {short(name): p for name, p in model.named_parameters()}


def model_with_record_weights(dtype: deepseek.dtype) -> Model:
    model = Model().to(dtype)
    parameters = parameters_by_record_name(model)
    assert sorted(parameters) == sorted(spec.SHAPES)
    with deepseek.no_grad():
        for name, w in spec.weights().items():
            parameters[name].copy_(deepseek.from_numpy(w))
    return model


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    a, b = ours.detach().double().numpy(), theirs.numpy()
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("dtype", [deepseek.float64, deepseek.float32], ids=["float64", "float32"])
def test_ten_steps_equal_the_record(dtype: deepseek.dtype) -> None:
    record = load_file(spec.RECORD)
    model = model_with_record_weights(dtype)
    parameters = parameters_by_record_name(model)
    optimizer = deepseek.optim.AdamW(model.parameters(), **spec.ADAMW)
    table = tuple(deepseek.from_numpy(t).to(dtype) for t in spec.rope_table())
    for step, (tokens, targets) in enumerate(spec.batches()):
        optimizer.zero_grad()
        logits = model(deepseek.from_numpy(tokens), table)
        loss = F.cross_entropy(logits.view(-1, spec.VOCAB), deepseek.from_numpy(targets).view(-1))
        loss.backward()
        assert loss.item() == pytest.approx(record["loss"][step].item(), rel=LOSS_TOLERANCE[dtype])
        for name, p in parameters.items():
            difference = apart(p.grad, record[f"grad.{step}.{name}"])
            assert difference <= TOLERANCE[dtype], f"gradient of {name} in step {step} is {difference:.2e} apart"
        optimizer.step()
    for name, p in parameters.items():
        difference = apart(p, record[f"final.{name}"])
        assert difference <= TOLERANCE[dtype], f"{name} after {spec.STEPS} steps is {difference:.2e} apart"


def test_the_record_is_whole() -> None:
    record = load_file(spec.RECORD)
    expected = {f"grad.{step}.{name}" for step in range(spec.STEPS) for name in spec.SHAPES}
    expected |= {f"final.{name}" for name in spec.SHAPES} | {"loss"}
    assert set(record) == expected
    losses = record["loss"].tolist()
    assert len(losses) == spec.STEPS and losses[-1] < losses[0]
    assert all(record[name].abs().max().item() > 0 for name in expected)

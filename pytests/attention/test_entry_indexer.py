"""What the indexer of DeepSeek-V4's attention learns: its divergence from the attention it selects for."""

from __future__ import annotations

import copy
import pickle

import deepseek
import numpy as np
import pytest
from attention.compressed_reference import attention, weights_of
from deepseek import nn
from deepseek.attention import CompressedAttention, set_indexer_stage, sum_of_indexer_losses
from deepseek.autograd import gradcheck
from test_compressed_attention import HEAVY, SETTINGS, SLIDING, made, tokens


def divergences(module: CompressedAttention, x: deepseek.Tensor, topk: int) -> list[float]:
    losses: list[float] = []
    for row in x:
        attention(weights_of(module), row.numpy(), {**SETTINGS, "index_topk": topk}, losses)
    return losses


@pytest.mark.parametrize("stage", ["dense", "sparse"])
def test_the_loss_against_its_equation(stage):
    module, x = made(index_topk=3), tokens(40, batch=2)
    plain = module(x)
    assert module.indexer_loss is None
    module.compressor.indexer.stage = stage
    out = module(x)
    want = divergences(module, x, 1000 if stage == "dense" else 3)
    assert len(want) == 2 * 37  # the first three tokens see no entry
    assert float(module.indexer_loss) == pytest.approx(np.mean(want), rel=1e-4)  # angles are float32
    assert ((out == plain).all()) == (stage == "sparse")


@pytest.mark.parametrize("stage", ["dense", "sparse"])
def test_only_the_indexer_learns_from_it_and_nothing_else_reaches_it(stage):
    module, x = made(), tokens(40).requires_grad_()
    module.compressor.indexer.stage = stage
    module(x)
    module.indexer_loss.backward()
    assert all((p.grad is not None) == (".indexer." in name) for name, p in module.named_parameters())
    assert x.grad is None
    of_loss = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    (module(x).sum() + module.indexer_loss).backward()
    grads = {name: p.grad for name, p in module.named_parameters()}
    assert all((grads[name] == g).all() for name, g in of_loss.items())
    assert all(g is not None for g in grads.values())


@pytest.mark.parametrize("stage", ["dense", "sparse"])
def test_gradients(stage):
    module, x = made(index_head_dim=6, index_n_heads=2), tokens(19)
    module.compressor.indexer.stage = stage

    def loss(*_):
        with deepseek.enable_grad():  # it learns in training only
            module(x)
        return module.indexer_loss

    assert gradcheck(loss, tuple(module.compressor.indexer.parameters()))


def test_it_learns_what_attention_looks_at():
    """Warm-up, then selected entries alone: the share of the attention that three of ten entries get grows."""
    module, x = made(index_topk=3).float(), tokens(44, batch=4).float()
    indexer = module.compressor.indexer
    optimizer = deepseek.optim.Adam(indexer.parameters(), lr=0.02)
    values = []
    for step in range(60):
        indexer.stage = "dense" if step < 40 else "sparse"
        module(x)
        optimizer.zero_grad()
        module.indexer_loss.backward()
        optimizer.step()
        values.append(float(module.indexer_loss))
    assert values[39] < 0.5 * values[0]
    assert values[59] < values[40]


def test_the_loss_is_of_the_last_forward_in_training_with_padding_too():
    module, x = made(), tokens(40, batch=2)
    module.compressor.indexer.stage = "sparse"
    real = deepseek.ones(2, 40, dtype=deepseek.bool)
    real[0, :11] = False
    module(x, attention_mask=real)
    padded, alone = float(module.indexer_loss), []
    for b, n in ((0, 29), (1, 40)):
        module(x[b : b + 1, 40 - n :])
        alone.append((float(module.indexer_loss), n - 3))
    assert padded == pytest.approx(sum(v * n for v, n in alone) / sum(n for _, n in alone))
    module.eval()(x)
    assert module.indexer_loss is None
    with deepseek.no_grad():
        module.train()(x)
    assert module.indexer_loss is None
    module(x[:, :3])  # no token sees an entry
    assert module.indexer_loss is None


def test_a_module_that_learns_is_copied_and_pickled_without_its_loss():
    module, x = made(), tokens(40)
    module.compressor.indexer.stage = "sparse"
    module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.indexer_loss is None
        assert twin.compressor.indexer.stage == "sparse"
        assert (twin(x) == module(x)).all()


def test_all_indexers_of_a_model():
    model, x = nn.ModuleList([made(), made(HEAVY), made(seed=5)]), tokens(40)
    assert set_indexer_stage(model, "sparse") == 2
    assert sum_of_indexer_losses(model) is None
    for module in model:
        module(x)
    want = model[0].indexer_loss + model[2].indexer_loss
    assert float(sum_of_indexer_losses(model)) == pytest.approx(float(want))


def test_layers_without_an_indexer():
    for layer_type in (SLIDING, HEAVY):
        module = made(layer_type)
        module(tokens(40))
        assert module.indexer_loss is None
    with pytest.raises(ValueError, match="stage of an indexer is 'dense', 'sparse' or None, got 'warm'"):
        made().compressor.indexer.stage = "warm"

"""Targets of losses: what is accepted, and what a refusal says to do."""

from __future__ import annotations

from typing import Any

import deepseek
import pytest
from deepseek.nn import functional as F

LOGITS = deepseek.linspace(-2, 2, 12).reshape(4, 3)
IDS = deepseek.tensor([0, 1, 2, 1])
IMAGE, LABELS = deepseek.linspace(-2, 2, 48).reshape(2, 3, 4, 2), deepseek.zeros(2, 4, 2, dtype=deepseek.int64)
INDEX_LOSSES = {"cross_entropy": F.cross_entropy, "nll_loss": F.nll_loss}


@pytest.mark.parametrize("name", INDEX_LOSSES)
@pytest.mark.parametrize("dtype", [deepseek.uint8, deepseek.int32, deepseek.int64])
def test_class_indices_of_several_integer_types(name: str, dtype: deepseek.dtype) -> None:
    loss = INDEX_LOSSES[name]
    assert loss(LOGITS, IDS.to(dtype)).item() == loss(LOGITS, IDS).item()
    assert loss(IMAGE, LABELS.to(dtype)).item() == loss(IMAGE, LABELS).item()
    ignored = deepseek.tensor([0, 255, 2, 1]).to(dtype if dtype is deepseek.uint8 else deepseek.int64)
    kept = loss(LOGITS[[0, 2, 3]], IDS[[0, 2, 3]]).item()
    assert loss(LOGITS, ignored, ignore_index=255).item() == pytest.approx(kept, rel=1e-6)


@pytest.mark.parametrize("name", INDEX_LOSSES)
@pytest.mark.parametrize(
    ("input", "target", "error", "match"),
    [
        (LOGITS, IDS[:, None], RuntimeError, r"multi-target not supported.*target\.squeeze\(1\)"),
        (LOGITS, IDS.float()[:, None], RuntimeError, r"target\.squeeze\(1\)"),
        (LOGITS, IDS[None], ValueError, r"batch_size \(4\) to match target batch_size \(1\)"),
        (LOGITS, IDS[:3], ValueError, r"batch_size \(4\) to match target batch_size \(3\)"),
        (LOGITS, IDS.reshape(2, 2), ValueError, r"batch_size \(4\) to match target batch_size \(2\)"),
        (LOGITS, deepseek.tensor(1), ValueError, r"batch_size \(4\) to match target batch_size \(0\)"),
        (LOGITS, F.one_hot(IDS, 3), RuntimeError, r"one-hot.*target\.argmax\(1\)"),
        (LOGITS, IDS.float(), RuntimeError, r"Long or Byte, but got .*float32.*target\.long\(\)"),
        (LOGITS, IDS.bool(), RuntimeError, r"Long or Byte, but got .*bool"),
        (LOGITS[0], IDS[:2], ValueError, "must have size 1, but got target size: 2"),
        (LOGITS, deepseek.zeros(4, 2), RuntimeError, "size mismatch"),
        (IMAGE, LABELS[:, :3], RuntimeError, r"size mismatch \(got input: \[2, 3, 4, 2\], target: \[2, 3, 2\]"),
        (IMAGE, LABELS[:1], ValueError, "batch_size"),
        (IMAGE, LABELS[:, None], RuntimeError, r"target\.squeeze\(1\)"),
        (IMAGE[..., 0], LABELS, RuntimeError, r"Expected target size \[2, 4\]"),
        (deepseek.tensor(1.0), deepseek.tensor(0), (ValueError, RuntimeError), "1 or more dimensions|at least 1-D"),
        (LOGITS, IDS + 5, IndexError, "out of|bounds"),
    ],
)
def test_targets_that_do_not_fit(
    name: str, input: deepseek.Tensor, target: deepseek.Tensor, error: Any, match: str
) -> None:
    for reduction in ("mean", "none"):
        with pytest.raises(error, match=match):
            INDEX_LOSSES[name](input, target, reduction=reduction)


@pytest.mark.parametrize("name", INDEX_LOSSES)
def test_one_sample_without_a_batch(name: str) -> None:
    loss = INDEX_LOSSES[name]
    for target in (IDS[1], IDS[1:2]):
        for reduction in ("none", "mean", "sum"):
            assert loss(LOGITS[0], target, reduction=reduction).shape == ()


@pytest.mark.parametrize("name", INDEX_LOSSES)
def test_class_weights_have_one_number_a_class(name: str) -> None:
    for weight in (deepseek.ones(2), deepseek.ones(3, 1)):
        with pytest.raises(RuntimeError, match="either for all 3 classes"):
            INDEX_LOSSES[name](LOGITS, IDS, weight=weight)
    with pytest.raises(RuntimeError, match="either for all 3 classes"):
        F.cross_entropy(LOGITS, LOGITS.softmax(1), weight=deepseek.ones(2))


def test_arguments_of_losses() -> None:
    with pytest.raises(RuntimeError, match="ignore_index is not supported"):
        F.cross_entropy(LOGITS, LOGITS.softmax(1), ignore_index=1)
    for value in (-0.5, 1.5, float("nan")):
        with pytest.raises(RuntimeError, match="label_smoothing must be between"):
            F.cross_entropy(LOGITS, IDS, label_smoothing=value)
    for delta in (0.0, -1.0, float("nan")):
        with pytest.raises(RuntimeError, match="delta"):
            F.huber_loss(LOGITS, LOGITS, delta=delta)
    for beta in (-1.0, float("nan")):
        with pytest.raises(RuntimeError, match="beta"):
            F.smooth_l1_loss(LOGITS, LOGITS, beta=beta)


def test_ranges_and_shapes_of_binary_cross_entropy() -> None:
    p = LOGITS.sigmoid()
    for target in (deepseek.full((4, 3), 2.0), deepseek.full((4, 3), -1.0), deepseek.full((4, 3), float("nan"))):
        with pytest.raises(RuntimeError, match="elements of target should be between 0 and 1"):
            F.binary_cross_entropy(p, target)
    with pytest.raises(RuntimeError, match="elements of input should be between 0 and 1"):
        F.binary_cross_entropy(p + 1, p)
    for loss in (F.binary_cross_entropy, F.binary_cross_entropy_with_logits):
        with pytest.raises(ValueError, match="size"):
            loss(p, p[:, :1])
        with pytest.raises(RuntimeError, match="expand|size"):
            loss(p, p, weight=deepseek.ones(2, 4, 3))


def test_kl_div_takes_no_integers() -> None:
    with pytest.raises(RuntimeError, match="integer"):
        F.kl_div(LOGITS, IDS[:, None], reduction="sum")
    with pytest.raises(RuntimeError, match="integer"):
        F.kl_div(IDS, IDS.float(), reduction="sum")

"""Held-out bits per byte of a model, and of the compressors people know."""

from __future__ import annotations

import gzip
import lzma
import math
from typing import TYPE_CHECKING, Any

import deepseek
from deepseek.models import CausalLM
from deepseek.nn import functional as F
from deepseek.train.data import SEPARATOR

if TYPE_CHECKING:
    import numpy as np


def bits_per_byte(model: CausalLM, data: np.ndarray[Any, Any], batch_size: int = 32) -> float:
    """Returns the mean of -log2 p(byte | earlier bytes) over every byte of ``data`` (uint8 [n]).

    Windows of the model's context overlap by half and only the second half of a window is scored (all of the first
    window), so every byte but the first few is predicted from at least context / 2 earlier ones.
    """
    import numpy as np

    context = model.config.context
    stride = max(context // 2, 1)
    stream = np.concatenate([np.array([SEPARATOR], dtype=np.int64), data.astype(np.int64)])
    total = len(data)  # stream[i + 1] is the target at position i
    # (start, first scored offset): each window scores the offsets first … context - 1 that lie inside the data
    windows = [(0, 0)]
    while windows[-1][0] + context < total:
        windows.append((windows[-1][0] + stride, context - stride))
    padded = np.concatenate([stream, np.zeros(context, dtype=np.int64)])
    nats = 0.0
    training = model.training
    model.eval()
    with deepseek.no_grad():
        for begin in range(0, len(windows), batch_size):
            group = windows[begin : begin + batch_size]
            rows = np.stack([padded[start : start + context + 1] for start, _ in group])
            logits = model(deepseek.from_numpy(rows[:, :-1].copy()))  # [windows, context, vocab]
            losses = F.cross_entropy(
                logits.reshape(-1, logits.shape[-1]),
                deepseek.from_numpy(rows[:, 1:].reshape(-1).copy()),
                reduction="none",
            )
            table = losses.numpy().reshape(len(group), context)
            for (start, first), row in zip(group, table, strict=True):
                nats += float(row[first : min(context, total - start)].sum(dtype=np.float64))
    model.train(training)
    return nats / total / math.log(2.0)


def gzip_bits_per_byte(data: bytes) -> float:
    """Returns the bits per byte of ``gzip -9``."""
    return 8.0 * len(gzip.compress(data, compresslevel=9)) / len(data)


def xz_bits_per_byte(data: bytes) -> float:
    """Returns the bits per byte of ``xz -9``."""
    return 8.0 * len(lzma.compress(data, preset=9)) / len(data)

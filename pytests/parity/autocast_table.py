"""Calls of the ops that autocast casts, and of their neighbours that it leaves alone: by name, for any two dtypes.

Each is given the library, its ``nn.functional``, a maker ``r(dtype, *shape)`` of the same numbers in both packages, and
the dtypes of the first and of the other operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Call = Callable[[Any, Any, Any, Any, Any], Any]

PRODUCTS: dict[str, Call] = {
    "mm": lambda T, F, r, a, b: T.mm(r(a, 3, 4), r(b, 4, 3)),
    "matmul 2-d": lambda T, F, r, a, b: r(a, 3, 4) @ r(b, 4, 3),
    "matmul matrix, vector": lambda T, F, r, a, b: r(a, 3, 4) @ r(b, 4),
    "matmul vector, matrix": lambda T, F, r, a, b: r(a, 4) @ r(b, 4, 3),
    "matmul vectors": lambda T, F, r, a, b: r(a, 4) @ r(b, 4),
    "matmul 3-d, 2-d": lambda T, F, r, a, b: r(a, 2, 3, 4) @ r(b, 4, 3),
    "matmul 3-d": lambda T, F, r, a, b: r(a, 2, 3, 4) @ r(b, 2, 4, 3),
    "matmul 4-d, 3-d": lambda T, F, r, a, b: T.matmul(r(a, 2, 2, 3, 4), r(b, 2, 4, 3)),
    "bmm": lambda T, F, r, a, b: T.bmm(r(a, 2, 3, 4), r(b, 2, 4, 3)),
    "mv": lambda T, F, r, a, b: T.mv(r(a, 3, 4), r(b, 4)),
    "dot": lambda T, F, r, a, b: T.dot(r(a, 4), r(b, 4)),
    "inner": lambda T, F, r, a, b: T.inner(r(a, 4), r(b, 4)),
    "outer": lambda T, F, r, a, b: T.outer(r(a, 4), r(b, 3)),
    "tensordot": lambda T, F, r, a, b: T.tensordot(r(a, 3, 4), r(b, 4, 3), 1),
    "tensordot, one number": lambda T, F, r, a, b: T.tensordot(r(a, 3, 4), r(b, 3, 4)),
    "tensordot, 1 x 1": lambda T, F, r, a, b: T.tensordot(r(a, 1, 4), r(b, 4, 1), 1),
    "einsum product": lambda T, F, r, a, b: T.einsum("ij,jk->ik", r(a, 3, 4), r(b, 4, 3)),
    "einsum batched": lambda T, F, r, a, b: T.einsum("bij,bkj->bik", r(a, 2, 3, 4), r(b, 2, 3, 4)),
    "einsum outer": lambda T, F, r, a, b: T.einsum("i,j->ij", r(a, 3), r(b, 4)),
    "einsum dot": lambda T, F, r, a, b: T.einsum("i,i->", r(a, 4), r(b, 4)),
    "linear": lambda T, F, r, a, b: F.linear(r(a, 3, 4), r(b, 5, 4)),
    "linear with bias": lambda T, F, r, a, b: F.linear(r(a, 3, 4), r(a, 5, 4), r(b, 5)),
    "linear of a vector": lambda T, F, r, a, b: F.linear(r(a, 4), r(b, 5, 4), r(b, 5)),
    "bilinear": lambda T, F, r, a, b: F.bilinear(r(a, 3, 4), r(a, 3, 5), r(b, 2, 4, 5)),
    "bilinear with bias": lambda T, F, r, a, b: F.bilinear(r(a, 3, 4), r(b, 3, 5), r(a, 2, 4, 5), r(b, 2)),
    "addmm": lambda T, F, r, a, b: T.addmm(r(a, 3, 3), r(b, 3, 4), r(b, 4, 3)),
    "addmm, factors": lambda T, F, r, a, b: T.addmm(r(a, 3), r(a, 3, 4), r(b, 4, 3), beta=0.5, alpha=2),
    "addmm, beta 0": lambda T, F, r, a, b: T.addmm(r(a, 3, 3), r(b, 3, 4), r(b, 4, 3), beta=0),
    "addmm_": lambda T, F, r, a, b: r(a, 3, 3).addmm_(r(b, 3, 4), r(b, 4, 3)),
    "addmv": lambda T, F, r, a, b: T.addmv(r(a, 3), r(b, 3, 4), r(b, 4)),
    "addmv, factors": lambda T, F, r, a, b: T.addmv(r(a, 3), r(a, 3, 4), r(b, 4)),
    "baddbmm": lambda T, F, r, a, b: T.baddbmm(r(a, 2, 3, 3), r(b, 2, 3, 4), r(b, 2, 4, 3)),
    "baddbmm, factors": lambda T, F, r, a, b: T.baddbmm(r(a, 2, 3, 3), r(a, 2, 3, 4), r(b, 2, 4, 3), beta=0),
    "baddbmm_": lambda T, F, r, a, b: r(a, 2, 3, 3).baddbmm_(r(b, 2, 3, 4), r(b, 2, 4, 3)),
    "mm, out=": lambda T, F, r, a, b: T.mm(r(a, 3, 4), r(a, 4, 3), out=r(b, 3, 3)),
    "attention, keys": lambda T, F, r, a, b: F.scaled_dot_product_attention(
        r(a, 1, 2, 3, 4), r(b, 1, 2, 3, 4), r(b, 1, 2, 3, 4)
    ),
    "attention, values": lambda T, F, r, a, b: F.scaled_dot_product_attention(
        r(a, 1, 2, 3, 4), r(a, 1, 2, 3, 4), r(b, 1, 2, 3, 4), is_causal=True
    ),
    "attention, mask": lambda T, F, r, a, b: F.scaled_dot_product_attention(
        r(a, 1, 2, 3, 4), r(a, 1, 2, 3, 4), r(a, 1, 2, 3, 4), r(b, 3, 3)
    ),
    "attention, 5 dims and mask": lambda T, F, r, a, b: F.scaled_dot_product_attention(
        r(a, 1, 1, 2, 3, 4), r(a, 1, 1, 2, 3, 4), r(a, 1, 1, 2, 3, 4), r(b, 3, 3)
    ),
    "attention, 2 dims": lambda T, F, r, a, b: F.scaled_dot_product_attention(r(a, 3, 4), r(b, 3, 4), r(b, 3, 4)),
}

LOSSES: dict[str, Call] = {
    "cross_entropy": lambda T, F, r, a, b: F.cross_entropy(r(a, 3, 4), T.tensor([0, 3, 1])),
    "cross_entropy, smoothed": lambda T, F, r, a, b: F.cross_entropy(
        r(a, 3, 4), T.tensor([0, 3, 1]), label_smoothing=0.1, reduction="sum"
    ),
    "cross_entropy, 3-d": lambda T, F, r, a, b: F.cross_entropy(
        r(a, 2, 4, 3), T.tensor([[0, 3, 1], [2, 2, 0]]), reduction="none"
    ),
    "cross_entropy, probabilities": lambda T, F, r, a, b: F.cross_entropy(r(a, 3, 4), r(b, 3, 4)),
    "nll_loss": lambda T, F, r, a, b: F.nll_loss(r(a, 3, 4), T.tensor([0, 3, 1])),
    "nll_loss, 3-d": lambda T, F, r, a, b: F.nll_loss(r(a, 2, 4, 3), T.tensor([[0, 3, 1], [2, 2, 0]])),
    "mse_loss": lambda T, F, r, a, b: F.mse_loss(r(a, 3, 4), 1 - r(b, 3, 4)),
    "l1_loss": lambda T, F, r, a, b: F.l1_loss(r(a, 3, 4), 1 - r(b, 3, 4)),
    "smooth_l1_loss": lambda T, F, r, a, b: F.smooth_l1_loss(r(a, 3, 4), 1 - r(b, 3, 4), beta=0.3),
    "huber_loss": lambda T, F, r, a, b: F.huber_loss(r(a, 3, 4), 1 - r(b, 3, 4), delta=0.3),
    "kl_div": lambda T, F, r, a, b: F.kl_div(-r(a, 3, 4), r(b, 3, 4), reduction="batchmean"),
    "kl_div, log": lambda T, F, r, a, b: F.kl_div(-r(a, 3, 4), -r(b, 3, 4), reduction="sum", log_target=True),
    "binary_cross_entropy": lambda T, F, r, a, b: F.binary_cross_entropy(r(a, 3, 4), r(b, 3, 4)),
    "binary_cross_entropy_with_logits": lambda T, F, r, a, b: F.binary_cross_entropy_with_logits(
        r(a, 3, 4), r(b, 3, 4)
    ),
    "linear_cross_entropy": lambda T, F, r, a, b: F.linear_cross_entropy(r(a, 3, 4), r(b, 5, 4), T.tensor([0, 3, 1])),
    "linear_cross_entropy, none": lambda T, F, r, a, b: F.linear_cross_entropy(
        r(a, 3, 4), r(b, 5, 4), T.tensor([0, 3, 1]), reduction="none"
    ),
}
# Of what autocast widens or promotes, and of what it leaves alone.
OTHERS: dict[str, Call] = {
    "cat": lambda T, F, r, a, b: T.cat([r(a, 3), r(b, 3)]),
    "stack": lambda T, F, r, a, b: T.stack([r(a, 3), r(b, 3)]),
    "index_copy": lambda T, F, r, a, b: r(a, 3).index_copy(0, T.tensor([2, 0, 1]), r(b, 3)),
    "index_copy_": lambda T, F, r, a, b: r(a, 3).index_copy_(0, T.tensor([2, 0, 1]), r(b, 3)),
    "index_add": lambda T, F, r, a, b: r(a, 3).index_add(0, T.tensor([2, 0, 1]), r(b, 3)),
    "scatter_add": lambda T, F, r, a, b: r(a, 3).scatter_add(0, T.tensor([2, 0, 1]), r(b, 3)),
    "add": lambda T, F, r, a, b: r(a, 3) + r(b, 3),
    "where": lambda T, F, r, a, b: T.where(r(a, 3) > 0.4, r(a, 3), r(b, 3)),
    "prod": lambda T, F, r, a, b: r(a, 2, 3).prod(),
    "prod, dim": lambda T, F, r, a, b: r(a, 2, 3).prod(1),
    "prod, dtype": lambda T, F, r, a, b: r(a, 2, 3).prod(1, dtype=b),
    "cumprod": lambda T, F, r, a, b: r(a, 2, 3).cumprod(1),
    "trace": lambda T, F, r, a, b: r(a, 3, 3).trace(),
    "sum": lambda T, F, r, a, b: r(a, 2, 3).sum(),
    "mean": lambda T, F, r, a, b: r(a, 2, 3).mean(0),
    "softmax": lambda T, F, r, a, b: T.softmax(r(a, 2, 3), -1),
    "log_softmax": lambda T, F, r, a, b: F.log_softmax(r(a, 2, 3), -1),
    "softmax, dtype": lambda T, F, r, a, b: F.softmax(r(a, 2, 3), -1, dtype=b),
    "logsumexp": lambda T, F, r, a, b: r(a, 2, 3).logsumexp(1),
    "exp": lambda T, F, r, a, b: r(a, 3).exp(),
    "pow": lambda T, F, r, a, b: r(a, 3) ** 2,
    "norm": lambda T, F, r, a, b: r(a, 2, 3).norm(),
    "dist": lambda T, F, r, a, b: T.dist(r(a, 3), 1 - r(b, 3)),
    "cosine_similarity": lambda T, F, r, a, b: F.cosine_similarity(r(a, 3, 4), 1 - r(b, 3, 4)),
    "pairwise_distance": lambda T, F, r, a, b: F.pairwise_distance(r(a, 3, 4), 1 - r(b, 3, 4)),
    "layer_norm": lambda T, F, r, a, b: F.layer_norm(r(a, 3, 4), (4,)),
    "gelu": lambda T, F, r, a, b: F.gelu(r(a, 3)),
    "softplus": lambda T, F, r, a, b: F.softplus(r(a, 3)),
    "pad, reflect": lambda T, F, r, a, b: F.pad(r(a, 1, 3), (1, 1), mode="reflect"),
    "pad, replicate": lambda T, F, r, a, b: F.pad(r(a, 1, 3), (1, 1), mode="replicate"),
    "pad, circular": lambda T, F, r, a, b: F.pad(r(a, 1, 3), (1, 1), mode="circular"),
    "pad, constant": lambda T, F, r, a, b: F.pad(r(a, 1, 3), (1, 1)),
}
TABLE = PRODUCTS | LOSSES | OTHERS

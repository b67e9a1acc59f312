"""Modules, losses, optimizers and schedules beside PyTorch's, on the same weights and inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import deepseek
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def array(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


def both(values: Any, grad: bool = False) -> tuple[Any, Any]:
    """The same values as our tensor and as torch's."""
    values = np.asarray(values)
    dtype = {"f": "float64", "i": "int64", "b": "bool"}[values.dtype.kind]
    ours = deepseek.tensor(values.tolist(), dtype=getattr(deepseek, dtype)).reshape(values.shape)
    theirs = torch.tensor(values, dtype=getattr(torch, dtype))
    return (ours.requires_grad_(), theirs.requires_grad_()) if grad else (ours, theirs)


def same(ours: Any, theirs: Any, rtol: float = 1e-7, atol: float = 1e-11) -> None:
    if theirs is None:
        assert ours is None
        return
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=atol)


def pair(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The same module of both libraries in float64, ours with torch's weights."""
    theirs = make(torch.nn).double()
    ours = make(deepseek.nn).double()
    state = {key: both(value.detach().numpy())[0] for key, value in theirs.state_dict().items()}
    assert list(state) == list(ours.state_dict())
    ours.load_state_dict(state)
    return ours, theirs


MODULES: dict[str, tuple[Callable[[Any], Any], list[np.ndarray]]] = {
    "linear": (lambda nn: nn.Linear(4, 3), [array(2, 5, 4)]),
    "bilinear": (lambda nn: nn.Bilinear(4, 3, 2), [array(5, 4), array(5, 3, seed=1)]),
    "layer_norm": (lambda nn: nn.LayerNorm((3, 4)), [array(2, 3, 4)]),
    "layer_norm_no_bias": (lambda nn: nn.LayerNorm(4, bias=False), [array(2, 4)]),
    "rms_norm": (lambda nn: nn.RMSNorm(4), [array(2, 4)]),
    "rms_norm_eps": (lambda nn: nn.RMSNorm(4, eps=0.1, elementwise_affine=False), [array(2, 4)]),
    "glu": (lambda nn: nn.GLU(1), [array(2, 6, 3)]),
    "softmax": (lambda nn: nn.Softmax(1), [array(2, 6, 3)]),
    "log_softmax": (lambda nn: nn.LogSoftmax(0), [array(2, 6, 3)]),
    "softmin": (lambda nn: nn.Softmin(-1), [array(2, 3)]),
    "cosine": (lambda nn: nn.CosineSimilarity(-1), [array(2, 6, 3), array(2, 6, 3, seed=1)]),
    "transformer": (lambda nn: nn.TransformerEncoderLayer(4, 2, 8, 0.0), [array(3, 2, 4)]),
    "transformer_first": (
        lambda nn: nn.TransformerEncoderLayer(4, 2, 8, 0.0, "gelu", batch_first=True, norm_first=True),
        [array(3, 2, 4)],
    ),
    "sequential": (
        lambda nn: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Flatten(), nn.Linear(16, 2)),
        [array(3, 2, 4)],
    ),
}
# Values at kinks and far out belong to it: the derivative there is a convention that must be torch's.
POINTS = np.array([-100.0, -6.5, -2.5, -1.0, -0.5, 0.0, 0.3, 1.5, 2.0, 4.0, 7.0, 25.0, 100.0])
for name in (
    "ReLU",
    "SiLU",
    "Mish",
    "Hardswish",
    "ReLU6",
    "GELU",
    "Sigmoid",
    "LogSigmoid",
    "Tanh",
    "Softsign",
    "LeakyReLU",
    "ELU",
    "Softplus",
    "Hardsigmoid",
    "Hardtanh",
):
    MODULES[name] = (lambda nn, name=name: getattr(nn, name)(), [POINTS])
MODULES["gelu_tanh"] = (lambda nn: nn.GELU("tanh"), [POINTS])
MODULES["softplus_options"] = (lambda nn: nn.Softplus(2.0, 5.0), [POINTS])
MODULES["elu_alpha"] = (lambda nn: nn.ELU(0.5), [POINTS])


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    make, inputs = MODULES[name]
    ours, theirs = pair(make)
    assert repr(ours) == repr(theirs) or "transformer" in name
    mine, other = zip(*(both(x, grad=True) for x in inputs), strict=True)
    a, b = ours(*mine), theirs(*other)
    same(a, b)
    seed = both(array(*a.shape, seed=7))
    a.backward(seed[0])
    b.backward(seed[1])
    for x, y in zip((*mine, *ours.parameters()), (*other, *theirs.parameters()), strict=True):
        same(x.grad, y.grad)


LABELS = np.array([0, 3, 1])
LOSSES: dict[str, tuple[Callable[[Any, Any], Any], np.ndarray, np.ndarray]] = {
    "mse": (lambda nn, r: nn.MSELoss(reduction=r), array(3, 4), array(3, 4, seed=1)),
    "l1": (lambda nn, r: nn.L1Loss(reduction=r), array(3, 4), array(3, 4, seed=1)),
    "smooth_l1": (lambda nn, r: nn.SmoothL1Loss(reduction=r, beta=0.6), array(3, 4), array(3, 4, seed=1)),
    "huber": (lambda nn, r: nn.HuberLoss(reduction=r, delta=0.6), array(3, 4), array(3, 4, seed=1)),
    "bce": (lambda nn, r: nn.BCELoss(reduction=r), array(3, 4, low=0, high=1), array(3, 4, seed=1, low=0, high=1)),
    "bce_ends": (lambda nn, r: nn.BCELoss(reduction=r), np.array([0.0, 1.0, 0, 1]), np.array([0.0, 1.0, 1, 0])),
    "bce_logits": (lambda nn, r: nn.BCEWithLogitsLoss(reduction=r), POINTS, POINTS > 0.2),
    "kl": (lambda nn, r: nn.KLDivLoss(reduction=r), array(3, 4), array(3, 4, seed=1, low=0, high=1)),
    "kl_zero": (lambda nn, r: nn.KLDivLoss(reduction=r), array(2), np.array([0.0, 1.0])),
    "kl_log": (lambda nn, r: nn.KLDivLoss(reduction=r, log_target=True), array(3, 4), array(3, 4, seed=1)),
    "nll": (lambda nn, r: nn.NLLLoss(reduction=r, ignore_index=1), array(3, 4), LABELS),
    "cross_entropy": (lambda nn, r: nn.CrossEntropyLoss(reduction=r), array(3, 4), LABELS),
    "smoothed": (lambda nn, r: nn.CrossEntropyLoss(reduction=r, label_smoothing=0.2), array(3, 4), LABELS),
    "ignored": (lambda nn, r: nn.CrossEntropyLoss(reduction=r, ignore_index=3), array(3, 4), LABELS),
    "probabilities": (lambda nn, r: nn.CrossEntropyLoss(reduction=r), array(3, 4), array(3, 4, low=0, high=1)),
    "in_2d": (lambda nn, r: nn.CrossEntropyLoss(reduction=r), array(2, 4, 3), np.array([[0, 1, 2], [3, 2, 1]])),
}


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str, reduction: str) -> None:
    make, values, target = LOSSES[name]
    if target.dtype == bool:
        target = target.astype(float)
    (x, y), (t, u) = both(values, grad=True), both(target)
    a, b = make(deepseek.nn, reduction)(x, t), make(torch.nn, reduction)(y, u)
    same(a, b)
    a.sum().backward()
    b.sum().backward()
    same(x.grad, y.grad)


@pytest.mark.parametrize("weighted", ["weight", "pos_weight"])
def test_weighted_losses(weighted: str) -> None:
    (w, v), (x, y), (t, u) = both(array(4, low=0.1)), both(array(3, 4)), both(array(3, 4, seed=1, low=0, high=1))
    same(deepseek.nn.BCEWithLogitsLoss(**{weighted: w})(x, t), torch.nn.BCEWithLogitsLoss(**{weighted: v})(y, u))
    if weighted == "weight":
        (labels, names) = both(LABELS)
        same(deepseek.nn.CrossEntropyLoss(w)(x, labels), torch.nn.CrossEntropyLoss(v)(y, names))
        same(deepseek.nn.NLLLoss(w)(x, labels), torch.nn.NLLLoss(v)(y, names))


MASK = np.triu(np.ones((3, 5), bool), 3)
PADDING = np.array([[False] * 4 + [True], [False] * 5])
ATTENTION = [
    dict(zip(("options", "call"), case, strict=True))
    for case in itertools.product(
        [{}, {"batch_first": True}, {"kdim": 3, "vdim": 2, "bias": False}],
        [
            {},
            {"need_weights": False},
            {"attn_mask": MASK},
            {"attn_mask": np.where(MASK, -1.5, 0.5), "average_attn_weights": False},
            {"key_padding_mask": PADDING, "attn_mask": MASK},
            {"key_padding_mask": PADDING, "need_weights": False},
            {"attn_mask": np.stack([MASK] * 4), "need_weights": False},
        ],
    )
]


@pytest.mark.parametrize("case", ATTENTION, ids=str)
def test_attention(case: dict[str, Any]) -> None:
    options, call = case["options"], case["call"]
    ours, theirs = pair(lambda nn: nn.MultiheadAttention(4, 2, **options))
    shapes = [(3, 2, 4), (5, 2, options.get("kdim", 4)), (5, 2, options.get("vdim", 4))]
    arrays = [array(*shape, seed=i) for i, shape in enumerate(shapes)]
    if options.get("batch_first"):
        arrays = [x.swapaxes(0, 1) for x in arrays]
    mine, other = zip(*(both(x, grad=True) for x in arrays), strict=True)
    extra = {k: both(v) if isinstance(v, np.ndarray) else (v, v) for k, v in call.items()}
    a, weights = ours(*mine, **{k: v[0] for k, v in extra.items()})
    b, expected = theirs(*other, **{k: v[1] for k, v in extra.items()})
    same(a, b)
    same(weights, expected)
    (a * a).sum().backward()
    (b * b).sum().backward()
    for x, y in zip((*mine, *ours.parameters()), (*other, *theirs.parameters()), strict=True):
        same(x.grad, y.grad)


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "normalize": lambda F, x: F.normalize(x, p=3.0, dim=0),
    "pairwise": lambda F, x: F.pairwise_distance(x, x * 0.5),
    "pad": lambda F, x: F.pad(x, (1, -1, 2, 0), value=0.5),
    "pad_replicate": lambda F, x: F.pad(x.unsqueeze(0), (2, 3), mode="replicate"),
    "pad_reflect": lambda F, x: F.pad(x.unsqueeze(0), (2, 3), mode="reflect"),
    "pad_circular": lambda F, x: F.pad(x.unsqueeze(0), (4, 1), mode="circular"),
    "sdpa": lambda F, x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    x, y = both(array(3, 4), grad=True)
    a, b = FUNCTIONS[name](deepseek.nn.functional, x), FUNCTIONS[name](torch.nn.functional, y)
    same(a, b)
    (a * a).sum().backward()
    (b * b).sum().backward()
    same(x.grad, y.grad)


# --- optimizers
OPTIMIZERS = (
    [
        ("SGD", {"lr": 0.1, "momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x})
        for m, d, w, n, x in itertools.product((0, 0.9), (0, 0.3), (0, 0.1), (False, True), (False, True))
        if not (n and (m == 0 or d))
    ]
    + [
        (name, {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": w, "amsgrad": a, "maximize": x})
        for name, w, a, x in itertools.product(("Adam", "AdamW"), (0, 0.1), (False, True), (False, True))
    ]
    + [("Adam", {}), ("AdamW", {}), ("SGD", {})]
)


def steps(optim: Any, params: list[Any], name: str, options: dict[str, Any], wrap: int) -> Any:
    """20 steps; the last parameter has a gradient in every third step only."""
    optimizer = getattr(optim, name)(params, **options)
    for step in range(20):
        for place, p in enumerate(params):
            absent = place == len(params) - 1 and step % 3
            p.grad = None if absent else both(array(*p.shape, seed=50 * step + place))[wrap].to(p.dtype)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_twenty_steps(name: str, options: dict[str, Any], dtype: str, fused: bool | None) -> None:
    shapes = [(4, 3), (7,), (2, 2)]
    start = [both(array(*shape, seed=i)) for i, shape in enumerate(shapes)]
    mine = [deepseek.nn.Parameter(x.to(getattr(deepseek, dtype))) for x, _ in start]
    other = [torch.nn.Parameter(y.to(getattr(torch, dtype))) for _, y in start]
    one = steps(deepseek.optim, mine, name, {**options, "fused": fused}, 0)
    two = steps(torch.optim, other, name, options, 1)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 2e-6}
    for p, q in zip(mine, other, strict=True):
        same(p, q, **tolerance)
        assert set(one.state[p]) == set(two.state[q])
        for key, value in two.state[q].items():
            if key == "step":
                assert one.state[p][key] == value
            else:
                same(one.state[p][key], value, **tolerance)
    assert set(one.defaults) >= set(two.defaults)
    given = one.state_dict()["param_groups"][0]
    for key, value in two.state_dict()["param_groups"][0].items():
        assert key == "fused" or given[key] == value


def test_torch_optimizer_state_loads() -> None:
    values = array(3)
    p, q = deepseek.nn.Parameter(both(values)[0]), torch.nn.Parameter(both(values)[1])
    two = torch.optim.AdamW([q], lr=0.05)
    for step in range(5):
        q.grad = both(array(3, seed=step))[1]
        two.step()
    saved = two.state_dict()
    state = {k: {n: both(t.numpy())[0] for n, t in v.items()} for k, v in saved["state"].items()}
    one = deepseek.optim.AdamW([p])
    one.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    with deepseek.no_grad():
        p.copy_(both(q.detach().numpy())[0])
    for step in range(5, 8):
        p.grad, q.grad = both(array(3, seed=step))
        one.step()
        two.step()
    same(p, q)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1000.0])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    ours, theirs = pair(lambda nn: nn.Linear(4, 3))
    x, y = both(array(5, 4))
    ours(x).pow(2).sum().backward()
    theirs(y).pow(2).sum().backward()
    a = deepseek.nn.utils.clip_grad_norm_(ours.parameters(), max_norm, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm, norm_type)
    same(a, b, rtol=1e-6)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(p.grad, q.grad, rtol=1e-6)


SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda t: 0.9**t),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda t: 1 - t / 100),
    "step": lambda s, o: s.StepLR(o, 3, 0.3),
    "multistep": lambda s, o: s.MultiStepLR(o, [2, 2, 7], 0.3),
    "constant": lambda s, o: s.ConstantLR(o),
    "linear": lambda s, o: s.LinearLR(o, 0.2, 0.7, 6),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.7),
    "polynomial": lambda s, o: s.PolynomialLR(o, 8, 1.5),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 6, 0.01),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "restarts_even": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4),
    "one_cycle": lambda s, o: s.OneCycleLR(o, 0.9, 30),
    "one_cycle_linear": lambda s, o: s.OneCycleLR(o, 0.9, 30, anneal_strategy="linear", three_phase=True),
    "sequential": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 4), s.CosineAnnealingLR(o, 9), s.ExponentialLR(o, 0.5)], [5, 14]
    ),
    "chained": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.4, 3), s.CosineAnnealingLR(o, 6)]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name: str) -> None:
    rates = []
    for library in (deepseek, torch):
        params = [library.nn.Parameter(library.ones(1)) for _ in range(2)]
        optimizer = library.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.2}], lr=0.5, momentum=0.9)
        schedule = SCHEDULES[name](library.optim.lr_scheduler, optimizer)
        found = []
        for _ in range(25):
            found.append(
                [
                    *schedule.get_last_lr(),
                    *(g["lr"] for g in optimizer.param_groups),
                    optimizer.param_groups[0]["momentum"],
                ]
            )
            optimizer.step()
            schedule.step()
        rates.append(found)
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "options", [{}, {"mode": "max", "threshold_mode": "abs"}, {"cooldown": 2, "min_lr": 0.1}], ids=str
)
def test_plateau(options: dict[str, Any]) -> None:
    rates = []
    for library in (deepseek, torch):
        optimizer = library.optim.SGD([library.nn.Parameter(library.ones(1))], lr=0.5)
        schedule = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5, **options)
        found = []
        for metric in np.random.default_rng(0).uniform(0.5, 1.0, 30):
            schedule.step(float(metric))
            found.append((optimizer.param_groups[0]["lr"], schedule.num_bad_epochs, schedule.best))
        rates.append(found)
    assert rates[0] == rates[1]


def test_load_error_text_is_torchs() -> None:
    texts = []
    for library in (deepseek, torch):
        model = library.nn.Sequential(library.nn.Linear(2, 2), library.nn.Linear(2, 2))
        state = model.state_dict()
        del state["0.weight"], state["1.bias"]
        state["extra"] = state["0.more"] = library.ones(1)
        with pytest.raises(RuntimeError) as info:
            model.load_state_dict(state)
        texts.append(str(info.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["Linear", "Embedding", "MultiheadAttention", "Bilinear"])
def test_default_initialisation_has_torchs_distribution(name: str) -> None:
    arguments = {
        "Linear": (300, 200),
        "Embedding": (300, 200),
        "MultiheadAttention": (240, 4),
        "Bilinear": (40, 30, 50),
    }
    deepseek.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = (getattr(library.nn, name)(*arguments[name]) for library in (deepseek, torch))
    for (key, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        a, b = p.detach().numpy(), q.detach().numpy()
        assert key == other and a.shape == b.shape
        if a.size >= 1000:
            np.testing.assert_allclose(
                np.quantile(a, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]),
                np.quantile(b, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]),
                atol=0.03 * b.std() if name != "Embedding" else 0.5,
            )
        else:
            assert abs(a.std() - b.std()) <= 0.15 * b.std()


def test_assert_close_text_is_torchs() -> None:
    cases = [([1.0, 2.0, 3.0], [1.0, 2.5, 3.0]), ([[1.0]], [[math.inf]]), ([1, 2], [1, 5])]
    for actual, expected in cases:
        texts = []
        for library in (deepseek, torch):
            with pytest.raises(AssertionError) as info:
                library.testing.assert_close(library.tensor(actual), library.tensor(expected))
            texts.append(str(info.value).split("\n"))
        assert texts[0][:3] == texts[1][:3]

"""Whole steps in mixed precision: train_step, mixed_precision_forward."""

from __future__ import annotations

import math
from typing import Any

import deepseek
import pytest
from deepseek import amp, bfloat16, float16, float32, nn, optim

# --- train_step


def regression(width: int = 16) -> tuple[Any, Any, Any]:
    """A small network, and inputs with targets that another one of its kind made."""
    deepseek.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 2))  # noqa: E731
    teacher, student = make(), make()
    x = deepseek.randn(256, 8)
    return student, x, teacher(x).detach()


@pytest.mark.parametrize("dtype", [None, bfloat16, float16, float32])
def test_every_dtype_trains(dtype: Any) -> None:
    model, x, y = regression()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        result = amp.train_step(model, (x, y), optimizer, loss_fn=nn.functional.mse_loss, dtype=dtype, max_norm=1.0)
        assert result.loss.dtype is float32 and result.loss.dim() == 0 and not result.loss.requires_grad
        assert result.grad_norm is not None and (result.skipped or math.isfinite(result.grad_norm.item()))
        losses.append(result.loss.item())
        assert dtype is float16 or (result.scale == 1.0 and not result.skipped)
    assert losses[-1] < losses[0] / 20
    assert all(p.dtype is float32 and p.grad.dtype is float32 for p in model.parameters())


def test_float32_is_the_plain_step() -> None:
    (one, x, y), (two, _, _) = regression(), regression()
    first, second = (optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (one, two))
    for _ in range(3):
        result = amp.train_step(one, (x, y), first, loss_fn=nn.functional.mse_loss, dtype=float32)
        second.zero_grad()
        loss = nn.functional.mse_loss(two(x), y)
        loss.backward()
        second.step()
        assert result == (loss, False, 1.0, None)
    assert all(p.equal(q) for p, q in zip(one.parameters(), two.parameters(), strict=True))


class Scaled(nn.Module):
    """Loss = mean(w * x): its gradient is x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(deepseek.ones(1, 4))

    def forward(self, x: Any, factor: float = 1.0) -> Any:
        return nn.functional.linear(x, self.weight).float().sum() * factor


def test_an_overflow_is_skipped_and_halves_the_scale() -> None:
    model = Scaled()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    small, large = deepseek.full((1, 4), 0.25), {"x": deepseek.ones(1, 4), "factor": 100.0}
    kwargs = {"dtype": float16, "init_scale": 1024.0}
    assert amp.train_step(model, large, optimizer, **kwargs)[1:] == (True, 1024.0, None)  # 102400 is no float16
    assert model.weight.tolist() == [[1.0] * 4]
    result = amp.train_step(model, small, optimizer, **kwargs)
    assert result[1:] == (False, 512.0, None) and model.weight.tolist() == [[0.875] * 4]
    other = optim.SGD(model.parameters(), lr=0.5)  # has a scaler of its own
    assert amp.train_step(model, small, other, **kwargs).scale == 1024.0
    mine = amp.GradScaler(init_scale=8.0)
    assert amp.train_step(model, small, optimizer, scaler=mine, dtype=float16).scale == 8.0 and mine.steps == 1


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("given", [None, amp.GradScaler(enabled=False)])
@pytest.mark.parametrize("dtype", [None, bfloat16, float16, float32])
def test_a_bad_gradient_changes_nothing(dtype: Any, given: Any, bad: float, max_norm: float | None) -> None:
    if dtype is float16:
        given = None
    model = Scaled()
    optimizer = optim.AdamW(model.parameters(), lr=0.5)
    good = {"x": deepseek.full((1, 4), 0.25), "factor": 1.0}
    kwargs = {"dtype": dtype, "scaler": given, "max_norm": max_norm, "init_scale": 4.0}
    assert not amp.train_step(model, good, optimizer, **kwargs).skipped
    before = model.weight.detach().clone()
    state = {k: v.clone() if isinstance(v, deepseek.Tensor) else v for k, v in optimizer.state[model.weight].items()}
    result = amp.train_step(model, {**good, "factor": bad}, optimizer, **kwargs)
    assert result.skipped and result.scale == (4.0 if dtype is float16 else 1.0)
    assert model.weight.equal(before) and (max_norm is None or not math.isfinite(result.grad_norm.item()))
    for name, value in optimizer.state[model.weight].items():
        assert value.equal(state[name]) if isinstance(value, deepseek.Tensor) else value == state[name]
    result = amp.train_step(model, good, optimizer, **kwargs)
    assert not result.skipped and result.scale == (2.0 if dtype is float16 else 1.0)
    assert not model.weight.equal(before) and model.weight.isfinite().all()


def test_an_optimizer_without_gradients_is_no_error_where_nothing_is_scaled() -> None:
    other = nn.Parameter(deepseek.ones(2))
    result = amp.train_step(Scaled(), deepseek.ones(1, 4), optim.SGD([other], lr=1.0), max_norm=1.0)
    assert not result.skipped and result.grad_norm is not None and result.grad_norm.item() == 0.0


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("cls", [optim.SGD, optim.AdamW])
@pytest.mark.parametrize(("parameters", "dtype"), [(float16, float16), (bfloat16, float16), (float16, float32)])
@pytest.mark.parametrize("max_norm", [0.25, 100.0, 0.0])
def test_parameters_with_masters_are_clipped(
    max_norm: float, parameters: Any, dtype: Any, cls: Any, fused: bool | None
) -> None:
    """As a float32 model with the same gradients (powers of two, so that 16 bits hold them)."""
    narrow, wide, x = Scaled().to(parameters), Scaled(), deepseek.tensor([[0.5, 0.25, -0.5, 1.0]])
    options = {"lr": 0.5, "fused": fused}
    mine = cls(narrow.parameters(), master_weights=True, **options)
    reference = cls(wide.parameters(), **options)
    for _ in range(3):
        found = amp.train_step(narrow, x.to(parameters), mine, dtype=dtype, max_norm=max_norm, init_scale=256.0)
        want = amp.train_step(wide, x, reference, dtype=float32, max_norm=max_norm)
        assert not found.skipped and found.scale == (256.0 if dtype is float16 else 1.0)
        assert found.grad_norm.item() == pytest.approx(want.grad_norm.item(), rel=1e-3) == pytest.approx(1.25)
        assert not hasattr(mine, "grad_scale")
        deepseek.testing.assert_close(
            mine.state[narrow.weight]["master"],
            wide.weight.detach(),
            rtol=2e-3 if dtype is float32 else 1e-5,
            atol=1e-5,
        )


def test_a_small_clipped_gradient_does_not_become_zero() -> None:
    """Divided and clipped it is 2^-27, which float16 has no number for."""
    model = Scaled().half()
    optimizer = optim.SGD(model.parameters(), lr=2.0**20, master_weights=True)
    x = deepseek.tensor([[1.0, 0.0, 0.0, 2.0**-14]]).half()
    result = amp.train_step(model, x, optimizer, dtype=float16, max_norm=2.0**-13, init_scale=4.0)
    assert result.grad_norm.item() == pytest.approx(1.0)
    moved = 1.0 - optimizer.state[model.weight]["master"][0]
    assert moved.tolist() == pytest.approx([128.0, 0.0, 0.0, 2.0**-7], rel=1e-4)


def test_a_step_that_raises_leaves_no_scale_behind() -> None:
    model = Scaled().half()
    optimizer = optim.SGD(model.parameters(), lr=0.5, master_weights=True)
    x, step = deepseek.full((1, 4), 0.5).half(), optimizer.step

    def broken() -> None:
        raise ZeroDivisionError

    optimizer.step = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError):
        amp.train_step(model, x, optimizer, dtype=float16, max_norm=0.5)
    assert not hasattr(optimizer, "grad_scale") and not hasattr(optimizer, "found_inf")
    optimizer.step = step  # type: ignore[method-assign]


def test_float16_parameters_without_masters_are_refused() -> None:
    model = Scaled().half()
    with pytest.raises(ValueError, match=r"keep the parameters in float32, or give the optimizer master_weights=True"):
        amp.train_step(
            model, deepseek.ones(1, 4).half(), optim.SGD(model.parameters(), lr=1.0), dtype=float16, max_norm=1.0
        )


def test_ways_to_give_data_and_loss() -> None:
    model, x = Scaled(), deepseek.full((1, 4), 0.5)
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    for data, want in ((x, 2.0), ((x, 2.0), 4.0), ([x], 2.0), ({"x": x, "factor": 3.0}, 6.0)):
        assert amp.train_step(model, data, optimizer).loss.item() == want
    for wrap in (lambda loss: {"loss": loss}, lambda loss: type("Output", (), {"loss": loss})()):
        assert amp.train_step(lambda x, wrap=wrap: wrap(model(x)), x, optimizer).loss.item() == 2.0
    with pytest.raises(
        ValueError, match=r"must return its loss .* got a tensor of shape \(1, 4\); otherwise give loss_fn"
    ):
        amp.train_step(lambda x: x * model.weight, x, optimizer)
    with pytest.raises(ValueError, match="got a str"):
        amp.train_step(lambda x: "loss", x, optimizer)
    with pytest.raises(ValueError, match=r"with loss_fn, data must be a pair"):
        amp.train_step(model, x, optimizer, loss_fn=nn.functional.mse_loss)
    with pytest.raises(ValueError, match="dtype must be bfloat16, float16 or float32, got deepseek.float64"):
        amp.train_step(model, x, optimizer, dtype=deepseek.float64)


def test_a_scaler_lives_as_long_as_its_optimizer() -> None:
    from deepseek.amp import training

    before, model = len(training._scalers), Scaled()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    amp.train_step(model, deepseek.ones(1, 4), optimizer, dtype=float16)
    assert len(training._scalers) == before + 1
    del optimizer
    assert len(training._scalers) == before


# --- mixed_precision_forward


def test_the_source_loop_with_float16() -> None:
    model, x, y = regression()
    optimizer, scaler, losses = optim.AdamW(model.parameters(), lr=1e-2), 128, []
    for _ in range(100):
        loss, scaler = amp.mixed_precision_forward(model, (x, y), scaler, loss_fn=nn.functional.mse_loss, dtype=float16)
        losses.append(loss.item() / scaler.get_scale())
        optimizer.zero_grad()
        loss.backward()
        scaler.step(optimizer)
        scaler.update()
    assert losses[-1] < losses[0] / 20 and scaler.get_scale() == 128.0 and scaler.steps == 100


def test_gradients_decide_and_not_the_loss() -> None:
    """The loss is finite, its gradient is not: sqrt at 0."""
    model = Scaled()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    root = lambda x: model(x).sqrt()  # noqa: E731
    zero, one = deepseek.zeros(1, 4), deepseek.ones(1, 4)
    loss, scaler = amp.mixed_precision_forward(root, zero, dtype=float16)
    assert loss.item() == 0.0 and scaler.get_scale() == 128.0
    loss.backward()
    scaler.step(optimizer)
    scaler.update()
    assert model.weight.tolist() == [[1.0] * 4] and scaler.get_scale() == 64.0 and scaler.nan_elements == 4
    loss, scaler = amp.mixed_precision_forward(root, one, scaler, dtype=float16)
    assert loss.item() == 2.0 * 64.0


def test_bfloat16_needs_no_scale() -> None:
    loss, scaler = amp.mixed_precision_forward(Scaled(), deepseek.full((1, 4), 0.5))
    assert loss.item() == 2.0 and not scaler.is_enabled() and scaler.get_scale() == 1.0
    optimizer = optim.SGD([nn.Parameter(deepseek.ones(1))], lr=1.0)
    scaler.step(optimizer)
    scaler.update()
    _, scaler = amp.mixed_precision_forward(Scaled(), deepseek.ones(1, 4), 1024, dtype=float16, max_scale=4096)
    assert scaler.get_scale() == 1024.0 and scaler._max_scale == 4096


def test_a_disabled_scaler_is_refused_with_float16() -> None:
    x = deepseek.ones(1, 4)
    _, scaler = amp.mixed_precision_forward(Scaled(), x)
    with pytest.raises(ValueError, match=r"mixed_precision_forward: scale is a disabled GradScaler .* float16 needs"):
        amp.mixed_precision_forward(Scaled(), x, scaler, dtype=float16)
    loss, scaler = amp.mixed_precision_forward(Scaled(), x, 16, dtype=float16)
    loss, same = amp.mixed_precision_forward(Scaled(), x, scaler)  # an enabled one scales in every dtype
    assert same is scaler and loss.item() == 64.0


@pytest.mark.parametrize("dtype", [bfloat16, float16, float32])
@pytest.mark.parametrize("scale", [0, 0.0, -1.0, math.nan, math.inf, 1e6])
def test_bad_scales_are_named(scale: float, dtype: Any) -> None:
    with pytest.raises(ValueError, match=rf"mixed_precision_forward: scale must be .* got {scale}"):
        amp.mixed_precision_forward(Scaled(), deepseek.ones(1, 4), scale, dtype=dtype)
    if scale != 1e6 and dtype is float16:
        model = Scaled()
        with pytest.raises(ValueError, match=rf"train_step: init_scale must be .* got {scale}"):
            amp.train_step(
                model, deepseek.ones(1, 4), optim.SGD(model.parameters(), lr=1.0), dtype=dtype, init_scale=scale
            )


def test_a_large_scale_needs_a_large_limit() -> None:
    _, scaler = amp.mixed_precision_forward(Scaled(), deepseek.ones(1, 4), 1e6, dtype=float16, max_scale=None)
    assert scaler.get_scale() == 1e6


# --- skipped steps of a real training


def test_few_steps_of_a_float16_training_are_skipped() -> None:
    """The claim: less than 0.3 % of the steps. Scale 2^16 at the start, so that the first overflows are among them."""
    deepseek.manual_seed(0)
    config = deepseek.models.ModelConfig(
        dim=16, n_layers=1, n_heads=2, context=16, expert_dim=16, n_routed_experts=4, ngram_orders=(2,), ngram_rows=64,
        ngram_dim=8,
    )  # fmt: skip
    text = ("the quick brown fox jumps over the lazy dog. " * 40).encode()
    tokens = deepseek.tensor(list(text), dtype=deepseek.int64)
    losses = {}
    for dtype in (float16, float32):
        deepseek.manual_seed(1)
        model = deepseek.models.LanguageModel(config)
        optimizer = optim.AdamW(model.parameters(), lr=3e-3)
        scaler = amp.GradScaler(enabled=dtype is float16, growth_interval=200)
        starts, found = deepseek.randint(0, len(text) - 17, (1000, 4)), []
        for places in starts.tolist():
            batch = deepseek.stack([tokens[p : p + 17] for p in places])
            loss = amp.train_step(
                lambda b, model=model: model.loss(b[:, :-1], b[:, 1:]),
                batch,
                optimizer,
                dtype=dtype,
                scaler=scaler,
                max_norm=1.0,
            ).loss
            found.append(loss.item())
        losses[dtype] = sum(found[-50:]) / 50
        if dtype is float16:
            assert scaler.steps == 1000 and scaler.skipped_rate < 0.003, scaler
            assert scaler.nan_elements == 0 or scaler.inf_elements > 0
    assert losses[float16] < 0.5 and abs(losses[float16] - losses[float32]) < 0.05, losses

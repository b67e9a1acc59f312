"""ExpertUtilisation: its figures against numpy, windows and history, and balance by utilisation (T9)."""

from __future__ import annotations

import copy
import math
import pickle
import sys

import deepseek
import numpy as np
import pytest
from deepseek import nn
from deepseek.moe import DynamicRouter, ExpertUtilisation, LoadStatistics, RoutingTrace
from moe_layers import stack, tokens


@pytest.mark.parametrize("load", [[4, 4, 4, 4], [16, 0, 0, 0], [1, 2, 3, 10], [5, 0, 0, 7]])
def test_statistics_are_their_definitions(load: list[int]) -> None:
    share = np.array(load) / sum(load)
    found = LoadStatistics(tuple(map(float, load)), dropped=2.0)
    entropy = -sum(p * math.log(p) for p in share if p)
    assert found.entropy == pytest.approx(entropy, abs=1e-12)
    assert found.relative_entropy == pytest.approx(entropy / math.log(4), abs=1e-12)
    assert found.max_over_mean == pytest.approx(max(load) / np.mean(load))
    assert found.coefficient_of_variation == pytest.approx(np.std(load) / np.mean(load))
    assert found.unused == load.count(0) and found.drop_rate == pytest.approx(2 / sum(load))


def test_disabled_experts_do_not_count_as_unused() -> None:
    found = LoadStatistics((3.0, 3.0, 0.0, 0.0), enabled=(True, True, False, False))
    assert found.max_over_mean == 1 and found.unused == 0 and found.relative_entropy == pytest.approx(1)
    alone = LoadStatistics((3.0, 0.0), enabled=(True, False))
    assert alone.relative_entropy == 1 and alone.entropy == 0


def test_no_load_is_nan_and_never_an_error() -> None:
    empty = LoadStatistics((0.0, 0.0))
    assert math.isnan(empty.entropy) and math.isnan(empty.max_over_mean) and math.isnan(empty.drop_rate)
    utilisation = ExpertUtilisation(stack())
    assert math.isnan(utilisation.update()["moe/max_over_mean"]) and "nan" in repr(utilisation)


def test_windows_hold_what_was_routed_since_the_last_update() -> None:
    model = stack()
    utilisation = ExpertUtilisation(model)
    windows = []
    for step in range(3):
        x = tokens(40, seed=step)
        with RoutingTrace(model) as trace:
            model(x)
        windows.append({name: np.bincount(layer.indices.numpy().ravel(), minlength=8) for name, layer in trace.items()})
        if step == 1:
            model.layers[0].gate.reset_load()  # somebody else's business
        assert utilisation.layers["layers.1.gate"].slots == 80  # live
        utilisation.update(10 * step)
    assert [record.step for record in utilisation.history] == [0, 10, 20]
    for record, window in zip(utilisation.history, windows, strict=True):
        for name, load in window.items():
            assert record.layers[name].load == tuple(load)
    assert utilisation.layers == utilisation.history[-1].layers  # nothing routed since


def test_forwards_in_evaluation_and_after_close_are_not_counted() -> None:
    model = stack()
    with ExpertUtilisation(model) as utilisation:
        model.eval()(tokens(10))
        assert utilisation.metrics()["moe/slots"] == 0
        model.train()(tokens(10))
    model(tokens(10))
    assert utilisation.metrics()["moe/slots"] == 40


def test_metrics_are_flat_floats_of_layers_and_model() -> None:
    model = stack(capacity_factor=0.5)
    utilisation = ExpertUtilisation(model, history=2)
    for _ in range(3):
        model(tokens(64))
        metrics = utilisation.update()
    assert all(isinstance(value, float) for value in metrics.values()) and len(utilisation.history) == 2
    layers = utilisation.history[-1].layers
    assert metrics["moe/layers.0.gate/cv"] == layers["layers.0.gate"].coefficient_of_variation
    assert metrics["moe/max_over_mean"] == max(layer.max_over_mean for layer in layers.values())
    assert metrics["moe/drop_rate"] == pytest.approx(np.mean([layer.drop_rate for layer in layers.values()]))
    assert metrics["moe/drop_rate"] > 0.3
    assert utilisation.metrics("x").keys() == {key.replace("moe/", "x/", 1) for key in metrics}


def test_its_repr_is_a_table() -> None:
    model = stack()
    utilisation = ExpertUtilisation(model)
    model(tokens(64))
    head, first, second, whole = repr(utilisation).splitlines()
    assert head.split()[:4] == ["layer", "experts", "slots", "entropy"]
    assert first.split()[:3] == ["layers.0.gate", "8", "128"] and len(first.split()[-1]) == 8
    assert second.startswith("layers.1.gate") and whole.split()[:3] == ["all", "16", "256"]


class Axes:
    def __init__(self) -> None:
        self.lines: dict[str, tuple[list[int], list[float]]] = {}

    def plot(self, x: list[int], y: list[float], label: str) -> None:
        self.lines[label] = x, y

    def __getattr__(self, name: str) -> object:
        return lambda *a, **k: None


def test_plot_draws_a_line_for_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = stack()
    utilisation = ExpertUtilisation(model)
    with pytest.raises(ValueError, match="history is empty"):
        utilisation.plot(Axes())
    for _ in range(4):
        model(tokens(16))
        utilisation.update()
    axes = utilisation.plot(Axes(), "cv")
    assert list(axes.lines) == ["layers.0.gate", "layers.1.gate"] and axes.lines["layers.0.gate"][0] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="figure must be one of entropy"):
        utilisation.plot(Axes(), "loss")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="deepseek\\[notebooks\\]"):
        utilisation.plot()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="Linear has no router"):
        ExpertUtilisation(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="must be an nn.Module"):
        ExpertUtilisation([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="history must be at least 1"):
        ExpertUtilisation(stack(), history=0)
    with pytest.raises(ValueError, match="finite and >= 0"):
        LoadStatistics((1.0, -1.0))
    with pytest.raises(ValueError, match="2 loads but 1"):
        LoadStatistics((1.0, 1.0), enabled=(True,))


def skewed(batch: int) -> deepseek.Tensor:
    """Tokens around a few directions of very different frequency, another draw for each batch."""
    rng = np.random.default_rng(batch)
    centres = np.random.default_rng(1000).standard_normal((12, 16))
    frequency = 1 / np.arange(1, 13) ** 1.5
    kind = rng.choice(12, size=512, p=frequency / frequency.sum())
    return deepseek.from_numpy((centres[kind] + 0.3 * rng.standard_normal((512, 16))).astype(np.float32))


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax", "sqrtsoftplus"])
def test_a_skewed_stream_is_balanced_by_utilisation_without_a_loss(scoring: str) -> None:
    """T9: loss-free balancing by the counted load brings max/mean to 1.2 or less."""
    deepseek.manual_seed(0)
    router = DynamicRouter(16, 2, 16, scoring=scoring, selection_bias=True)
    utilisation = ExpertUtilisation(router)
    with deepseek.no_grad():
        for step in range(600):
            router(skewed(step))
            metrics = utilisation.update()
            if step == 0:
                assert metrics["moe/max_over_mean"] > 2.5
            router.update_bias(0.01 if step < 300 else 0.001)
        for step in range(600, 620):
            router(skewed(step))
    assert utilisation.update()["moe/max_over_mean"] <= 1.2


def test_no_enabled_expert_gives_nan() -> None:
    nothing = LoadStatistics((0.0, 0.0), 0.0, (False, False))
    for value in (nothing.mean, nothing.max_over_mean, nothing.coefficient_of_variation, nothing.relative_entropy):
        assert math.isnan(value)
    assert nothing.unused == 0
    model = stack()
    utilisation = ExpertUtilisation(model)
    for layer in model.layers:
        layer.gate.enabled.fill_(False)
    assert math.isnan(utilisation.update()["moe/cv"]) and "layers.0.gate" in repr(utilisation)


def test_a_watched_model_can_be_copied_and_pickled() -> None:
    model, x = stack(), tokens(10)
    utilisation = ExpertUtilisation(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin(x).equal(model(x))
        assert twin.layers[0].gate.load.sum().item() == 20
        model.layers[0].gate.reset_load()
    assert utilisation.update()["moe/slots"] == 2 * 2 * 20
    stopped = copy.deepcopy(utilisation)
    model(x)
    assert stopped.update()["moe/slots"] == 0 and utilisation.update()["moe/slots"] == 40

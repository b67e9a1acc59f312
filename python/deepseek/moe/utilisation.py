"""How evenly the experts of a model are used, as an object that trainers log and notebooks plot."""

# mypy: no-implicit-reexport

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepseek import Tensor, nn, no_grad, zeros_like
from deepseek._binding.missing import guard
from deepseek._binding.public import public
from deepseek.moe._routers import enabled_mask, named_routers

if TYPE_CHECKING:
    from deepseek.nn.modules._hooks import RemovableHandle


@public
@dataclass(frozen=True)
class LoadStatistics:
    """What a load says about balance. Experts that are not enabled do not count.

    Attributes:
        load: token-slots that chose each expert; a token that is sent to k experts has k slots.
        dropped: how many of them found their expert full (capacity).
        enabled: which experts may be chosen.
    """

    load: tuple[float, ...]
    dropped: float = 0.0
    enabled: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if self.enabled is not None and len(self.enabled) != len(self.load):
            raise ValueError(f"LoadStatistics: {len(self.load)} loads but {len(self.enabled)} values in enabled")
        if any(not math.isfinite(value) or value < 0 for value in self.load):
            raise ValueError(f"LoadStatistics: loads must be finite and >= 0, got {list(self.load)}")

    @property
    def counted(self) -> tuple[float, ...]:
        """The loads of the enabled experts."""
        if self.enabled is None:
            return self.load
        return tuple(value for value, on in zip(self.load, self.enabled, strict=True) if on)

    @property
    def slots(self) -> float:
        """Token-slots in all, those that were dropped included."""
        return sum(self.load)

    @property
    def mean(self) -> float:
        """Mean load of an enabled expert; NaN where none is enabled."""
        return sum(self.counted) / len(self.counted) if self.counted else math.nan

    @property
    def max_over_mean(self) -> float:
        """Largest load divided by the mean: 1 if balanced, the number of experts if one gets all; NaN without load."""
        return max(self.counted) / self.mean if self.mean > 0 else math.nan

    @property
    def coefficient_of_variation(self) -> float:
        """Standard deviation of the loads (over all experts, not an estimate) divided by the mean; NaN without load."""
        if not self.mean > 0:
            return math.nan
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.counted) / len(self.counted)) / self.mean

    @property
    def entropy(self) -> float:
        """Entropy in nats of the shares of the load, between 0 and ln(enabled experts); NaN without load."""
        total = sum(self.counted)
        if not total:
            return math.nan
        return -sum(value / total * math.log(value / total) for value in self.counted if value > 0) + 0.0

    @property
    def relative_entropy(self) -> float:
        """Entropy divided by its largest possible value: 1 if balanced, 0 if one expert gets all."""
        return self.entropy / math.log(len(self.counted)) if len(self.counted) > 1 else self.entropy + 1.0

    @property
    def unused(self) -> int:
        """Enabled experts that got nothing."""
        return sum(value == 0 for value in self.counted)

    @property
    def drop_rate(self) -> float:
        """Share of all token-slots that were dropped; NaN without load."""
        return self.dropped / self.slots if self.slots else math.nan


_FIGURES = ("entropy", "max_over_mean", "cv", "drop_rate", "unused")


def _figures(statistics: LoadStatistics) -> tuple[float, ...]:
    """In the order of _FIGURES; the entropy relative to its largest value, so that layers can be compared."""
    return (
        statistics.relative_entropy,
        statistics.max_over_mean,
        statistics.coefficient_of_variation,
        statistics.drop_rate,
        float(statistics.unused),
    )


@public
@dataclass(frozen=True)
class UtilisationRecord:
    """One closed window: the step it was closed at and each layer's statistics."""

    step: int
    layers: dict[str, LoadStatistics]


class _Counter:
    """Counts what one router counts, whoever clears the router's own counters and when."""

    def __init__(self, router: Any) -> None:
        self.router = router
        self.load = zeros_like(router.load)
        self.dropped: Tensor | None = None if router._buffers.get("dropped") is None else zeros_like(router.dropped)
        self._before: tuple[Tensor, Tensor | None] | None = None
        self.handles: list[RemovableHandle] = [
            router.register_forward_pre_hook(self._enter),
            router.register_forward_hook(self._leave),
        ]

    def __getstate__(self) -> dict[str, Any]:
        """A copy or pickle, which one of a watched model has in its hooks, is closed: nobody could ask or end it."""
        return self.__dict__ | {"handles": [], "_before": None}

    def _enter(self, router: Any, args: Any) -> None:
        if not self.handles:
            return
        with no_grad():
            self._before = router.load.clone(), None if self.dropped is None else router.dropped.clone()

    def _leave(self, router: Any, args: Any, output: Any) -> None:
        if self._before is None:
            return
        load, dropped = self._before
        self._before = None
        with no_grad():
            self.load += router.load - load
            if self.dropped is not None and dropped is not None:
                self.dropped += router.dropped - dropped

    def take(self) -> LoadStatistics:
        dropped = 0.0 if self.dropped is None else float(self.dropped.sum().item())
        return LoadStatistics(tuple(map(float, self.load.tolist())), dropped, tuple(enabled_mask(self.router)))

    def clear(self) -> None:
        with no_grad():
            self.load.zero_()
            if self.dropped is not None:
                self.dropped.zero_()


@public
class ExpertUtilisation:
    """Which experts a model's routers use: live, by layer, with a history over steps.

    It counts along from the moment it is made, in windows: the open window holds what was routed since the last
    :meth:`update`, which closes it and appends it to :attr:`history`. Counted is what the routers count: forwards in
    training mode, without padding. Whether and when somebody clears the routers' own counters makes no difference.

        utilisation = ExpertUtilisation(model)
        for step, batch in enumerate(batches):
            loss(model, batch).backward(); optimizer.step()
            log(utilisation.update(step))       # {"moe/max_over_mean": 1.07, ...}
        utilisation.plot()

    What the object shows (its repr, :attr:`layers`, :meth:`metrics`) is the open window, or the last closed one as
    long as nothing has been counted since.

    A watched model can be copied and pickled; copies are not watched, and a copy of this object has stopped counting.

    Args:
        model: any module that contains routers; they are found once, here.
        history: how many closed windows to keep; ``None``: all.

    Raises:
        TypeError: not a module.
        ValueError: a model without routers, or a history below 1.
    """

    def __init__(self, model: nn.Module, *, history: int | None = None) -> None:
        if history is not None and history < 1:
            raise ValueError(f"ExpertUtilisation: history must be at least 1 or None, got {history}")
        self._counters = {name: _Counter(router) for name, router in named_routers(model, "ExpertUtilisation").items()}
        self.history: deque[UtilisationRecord] = deque(maxlen=history)
        self._step = -1

    def update(self, step: int | None = None) -> dict[str, float]:
        """Close the window, append it to the history, and return its :meth:`metrics`.

        Args:
            step: what the window is called in the history and the plot; by default the number after the last one's.
        """
        self._step = self._step + 1 if step is None else step
        self.history.append(UtilisationRecord(self._step, self._open()))
        for counter in self._counters.values():
            counter.clear()
        return self.metrics()

    def close(self) -> None:
        """Stop counting; what was counted stays."""
        for counter in self._counters.values():
            for handle in counter.handles:
                handle.remove()
            counter.handles = []

    def __enter__(self) -> ExpertUtilisation:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> dict[str, LoadStatistics]:
        return {name: counter.take() for name, counter in self._counters.items()}

    @property
    def layers(self) -> dict[str, LoadStatistics]:
        """Statistics of each router, by its name in the model."""
        now = self._open()
        counted = any(statistics.slots for statistics in now.values())
        return self.history[-1].layers if self.history and not counted else now

    def metrics(self, prefix: str = "moe") -> dict[str, float]:
        """A flat dict for logs.

        ``<prefix>/<layer>/<figure>`` for each router and ``<prefix>/<figure>`` for the model, figures being
        ``entropy`` (relative: 1 is balanced), ``max_over_mean``, ``cv`` (coefficient of variation), ``drop_rate`` and
        ``unused`` (experts that got nothing). The model's ``max_over_mean`` is its worst layer's, ``unused`` the sum,
        the others are means over the layers; ``<prefix>/slots`` counts the token-slots of all layers. NaN: no load.
        """
        layers = self.layers
        found = {name: _figures(statistics) for name, statistics in layers.items()}
        result = {f"{prefix}/{figure}": value for figure, value in zip(_FIGURES, _in_all(found), strict=True)}
        result[f"{prefix}/slots"] = sum(statistics.slots for statistics in layers.values())
        for name, values in found.items():
            result |= {f"{prefix}/{name}/{figure}": value for figure, value in zip(_FIGURES, values, strict=True)}
        return result

    def plot(self, ax: Any = None, figure: str = "max_over_mean") -> Any:
        """Plot one figure of each layer over the steps of the history; returns the axes.

        Args:
            ax: matplotlib axes to draw on; new ones by default.
            figure: one of ``entropy``, ``max_over_mean``, ``cv``, ``drop_rate``, ``unused``.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: another figure, or an empty history.
        """
        if figure not in _FIGURES:
            raise ValueError(f"ExpertUtilisation.plot: figure must be one of {', '.join(_FIGURES)}, got {figure!r}")
        if not self.history:
            raise ValueError("ExpertUtilisation.plot: the history is empty; call update() after each step")
        if ax is None:
            ax = _new_axes()
        place = _FIGURES.index(figure)
        steps = [record.step for record in self.history]
        for name in self._counters:
            ax.plot(steps, [_figures(record.layers[name])[place] for record in self.history], label=name)
        ax.set_xlabel("step")
        ax.set_ylabel(figure.replace("_", " "))
        ax.legend(fontsize="small")
        return ax

    def __repr__(self) -> str:
        """A table: a row for each layer and one for the model; loads as a row of bars, a full one is 2 x the mean."""
        layers = self.layers
        found = {name: _figures(statistics) for name, statistics in layers.items()}
        width = max(len(name) for name in (*layers, "all"))
        lines = [f"{'layer':<{width}}  experts     slots  entropy  max/mean     cv  dropped  unused  load"]
        for name, statistics in layers.items():
            head = f"{name:<{width}}  {len(statistics.load):7d}  {statistics.slots:8.0f}"
            lines.append(f"{head}  {_row(found[name])}  {_bars(statistics)}")
        slots = sum(statistics.slots for statistics in layers.values())
        experts = sum(len(statistics.load) for statistics in layers.values())
        lines.append(f"{'all':<{width}}  {experts:7d}  {slots:8.0f}  {_row(_in_all(found))}")
        return "\n".join(lines)


def _in_all(found: dict[str, tuple[float, ...]]) -> tuple[float, ...]:
    """The model's figures from those of its layers; layers without load do not take part in means."""
    entropy, worst, cv, dropped, unused = zip(*found.values(), strict=True)
    largest = max((value for value in worst if not math.isnan(value)), default=math.nan)
    return _mean(entropy), largest, _mean(cv), _mean(dropped), sum(unused)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _row(figures: tuple[float, ...]) -> str:
    entropy, worst, cv, dropped, unused = figures
    return f"{entropy:7.3f}  {worst:8.2f}  {cv:5.2f}  {dropped:7.1%}  {unused:6.0f}"


def _bars(statistics: LoadStatistics, most: int = 64) -> str:
    """One character an expert: its load relative to the mean, `·` for a disabled one."""
    blocks = "▁▂▃▄▅▆▇█"
    enabled = statistics.enabled or (True,) * len(statistics.load)
    if not statistics.mean > 0:
        return ""
    shown = [
        blocks[min(int(value / statistics.mean * 4), 7)] if on else "·"
        for value, on in zip(statistics.load[:most], enabled[:most], strict=True)
    ]
    return "".join(shown) + ("…" if len(statistics.load) > most else "")


def _new_axes() -> Any:
    try:
        import matplotlib.pyplot as plt  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError(
            "ExpertUtilisation.plot needs matplotlib: pip install 'deepseek[notebooks]', or pass ax="
        ) from error
    return plt.subplots()[1]


guard(__name__)

"""Text of a tensor: ``repr(tensor)`` as PyTorch prints it, and ``set_printoptions``.

Values are read with ``tolist()`` on the entries that will be shown, so printing needs neither NumPy nor a copy of the
whole tensor.
"""

from __future__ import annotations

import math

from deepseek import _C

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deepseek import Tensor

__all__ = ["set_printoptions"]


class _Options:
    """How tensors are printed; the class attributes are the defaults."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_options = _Options()
_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors are printed. Options that are None stay as they are, except ``sci_mode``: None means automatic.

    Args:
        precision: digits after the point (4).
        threshold: number of elements above which a tensor is summarised (1000).
        edgeitems: entries shown at each end of a summarised dim (3).
        linewidth: characters in a line (80).
        profile: ``"default"``, ``"short"`` or ``"full"``, applied before the other options.
        sci_mode: True for scientific notation always, False for never, None to decide by the values.

    Raises:
        ValueError: an unknown profile.
    """
    chosen: dict[str, Any] = {}
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions(): profile must be one of {', '.join(_PROFILES)}, got {profile!r}")
        chosen.update(_PROFILES[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    chosen.update({name: value for name, value in given.items() if value is not None})
    for name, value in chosen.items():
        setattr(_options, name, value)
    _options.sci_mode = sci_mode


def _shown(t: Tensor, summarize: bool) -> Any:
    """The values to print as nested lists; ``...`` stands for entries that are left out."""
    if not summarize or t.dim() == 0:
        return t.tolist()
    edge, n = _options.edgeitems, t.size(0)
    cut = n > 2 * edge
    if t.dim() == 1:
        return [*t[:edge].tolist(), ..., *t[n - edge :].tolist()] if cut else t.tolist()
    if not cut:
        return [_shown(t[i], True) for i in range(n)]
    return [*(_shown(t[i], True) for i in range(edge)), ..., *(_shown(t[i], True) for i in range(n - edge, n))]


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [] if values is ... else [values]
    if values and not isinstance(values[0], list) and not isinstance(values[-1], list):
        return [v for v in values if v is not ...]
    return [v for part in values for v in _flat(part)]


class _NumberFormat:
    """One width and notation for all numbers of a tensor."""

    def __init__(self, values: list[Any], floating: bool) -> None:
        self.floating = floating
        self.whole = True  # all values are integers: printed as "1."
        self.scientific = False
        self.width = 1
        if not floating:
            self.width = max([1, *(len(str(v)) for v in values)])
            return
        # Zeros, infinities and NaN do not decide the notation or the width.
        finite = [v for v in values if v != 0 and math.isfinite(v)]
        if not finite:
            return
        low, high = min(abs(v) for v in finite), max(abs(v) for v in finite)
        self.whole = all(v == math.floor(v) for v in finite)
        self.scientific = high / low > 1000.0 or high > 1e8 or (not self.whole and low < 1e-4)
        if _options.sci_mode is not None:
            self.scientific = _options.sci_mode
        self.width = max(len(self._number(v)) for v in finite)

    def _number(self, value: float) -> str:
        if self.scientific:
            return f"{value:.{_options.precision}e}"
        if self.whole:
            text = f"{value:.0f}"
            return text + "." if math.isfinite(value) else text
        return f"{value:.{_options.precision}f}"

    def __call__(self, value: Any) -> str:
        return (self._number(value) if self.floating else str(value)).rjust(self.width)


def _row(values: list[Any], form: _NumberFormat, indent: int) -> str:
    """One innermost dim, broken into lines of at most ``linewidth`` characters."""
    per_line = max(1, (_options.linewidth - indent) // (form.width + 2))
    entries = [" ..." if v is ... else form(v) for v in values]
    lines = [", ".join(entries[i : i + per_line]) for i in range(0, len(entries), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _block(values: Any, form: _NumberFormat, indent: int, dims: int) -> str:
    if dims == 0:
        return form(values)
    if dims == 1:
        return _row(values, form, indent)
    parts = ["..." if v is ... else _block(v, form, indent + 1, dims - 1) for v in values]
    return "[" + ("," + "\n" * (dims - 1) + " " * (indent + 1)).join(parts) + "]"


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Appends ``dtype=…`` and the like, on a new line where the last one is full."""
    used = len(text) - (text.rfind("\n") + 1) + 2
    for suffix in suffixes:
        needed = len(suffix) + 2
        if used + needed > _options.linewidth:
            text += ",\n" + " " * indent + suffix
            used = indent + len(suffix)
        else:
            text += ", " + suffix
            used += needed
    return text + ")"


def _graph_suffix(t: Tensor) -> list[str]:
    fn = t.grad_fn
    if fn is not None:
        return [f"grad_fn=<{fn.name()}>"]
    return ["requires_grad=True"] if t.requires_grad else []


def tensor_text(t: Tensor) -> str:
    """``repr(t)``: values, then size (when empty), dtype (when not the default) and place in the graph."""
    kind = type(t)
    own = kind is _C.Tensor or kind.__module__.partition(".")[0] == "deepseek"
    prefix = "tensor(" if own else f"{kind.__name__}("
    suffixes: list[str] = []
    dtype, default = t.dtype, _C.get_default_dtype()
    if t.numel() == 0:
        if t.dim() != 1:
            suffixes.append(f"size={tuple(t.shape)}")
        if dtype is not default:
            suffixes.append(f"dtype={dtype}")
        text = "[]"
    else:
        if dtype not in (default, _C.int64, _C.bool):
            suffixes.append(f"dtype={dtype}")
        values = _shown(t.detach(), t.numel() > _options.threshold)
        form = _NumberFormat(_flat(values), dtype.is_floating_point)
        text = _block(values, form, len(prefix), t.dim())
    return _with_suffixes(prefix + text, suffixes + _graph_suffix(t), len(prefix))

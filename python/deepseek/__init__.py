"""deepseek: a deep-learning engine for CPUs with a PyTorch-like API.

``import deepseek`` loads the C++ core and nothing heavy: sub-packages (``deepseek.nn``, ``deepseek.optim``, …) and NumPy
load on first use.
"""

from __future__ import annotations

from deepseek import _C, _install
from deepseek._C import (
    LoadError,
    Size,
    Tensor,
    as_tensor,
    can_cast,
    dtype,
    empty_cache,
    from_numpy,
    get_default_dtype,
    get_num_threads,
    memory_stats,
    promote_types,
    reset_peak_memory_stats,
    result_type,
    set_num_threads,
    tensor,
)
from deepseek._device import device
from deepseek._info import finfo, iinfo
from deepseek._tensor_str import set_printoptions
from deepseek._top import (
    contiguous_format,
    from_dlpack,
    is_autocast_enabled,
    is_grad_enabled,
    is_inference_mode_enabled,
    layout,
    memory_format,
    preserve_format,
    set_default_dtype,
    strided,
)
from deepseek.autograd.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled
from deepseek.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deepseek._C import *  # noqa: F403  (the ops)

    __version__: str  # lazy: see _lazy.py

# dtypes, under PyTorch's names. `float`, `int` and `bool` hide Python's in this module from here on.
float64 = double = _C.float64
float32 = float = _C.float32
float16 = half = _C.float16
bfloat16 = _C.bfloat16
int64 = long = _C.int64
int32 = int = _C.int32
int16 = short = _C.int16
int8 = _C.int8
uint8 = _C.uint8
bool = _C.bool
float8_e4m3fn = _C.float8_e4m3fn
float8_e5m2 = _C.float8_e5m2
e, inf, nan, pi, newaxis = 2.718281828459045, 1e400, -(1e400 - 1e400), 3.141592653589793, None

_shown = _install.functions()
_install.install_methods(_shown)
globals().update(_shown)


def __getattr__(name: str) -> object:
    import importlib

    _lazy = importlib.import_module("deepseek._lazy")  # `from deepseek import` would ask this function again

    value = _lazy.load(name, globals())
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    import importlib

    _lazy = importlib.import_module("deepseek._lazy")  # `from deepseek import` would ask this function again

    return _lazy.names(globals())

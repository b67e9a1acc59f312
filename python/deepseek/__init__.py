"""deepseek: a deep-learning engine for CPUs with a PyTorch-like API.

``import deepseek`` loads the C++ core and nothing heavy: sub-packages (``deepseek.nn``, ``deepseek.optim``, …) and
NumPy load on first use.
"""

# ruff: noqa: F403  (the modules list what they give in __all__)

from __future__ import annotations

from math import e as e
from math import inf as inf
from math import nan as nan
from math import pi as pi

from deepseek import _C, _functions
from deepseek._binding.install import install as _install
from deepseek._tensor.torch_function import usual as _torch_function

_install(vars(_functions)["__all__"], _torch_function)  # before the star import of _C: it says what _C shows

from deepseek._C import *  # noqa: E402  (the ops of _C.__all__)
from deepseek._C import LoadError as LoadError  # noqa: E402
from deepseek._C import Size as Size  # noqa: E402
from deepseek._C import Tensor as Tensor  # noqa: E402
from deepseek._C import dtype as dtype  # noqa: E402
from deepseek._functions import *  # noqa: E402
from deepseek._tensor.device import *  # noqa: E402
from deepseek._tensor.layout import *  # noqa: E402
from deepseek._tensor.printing import *  # noqa: E402
from deepseek._tensor.storage import *  # noqa: E402
from deepseek.autograd.grad_mode import *  # noqa: E402
from deepseek.random import Generator as Generator  # noqa: E402
from deepseek.random import default_generator as default_generator  # noqa: E402
from deepseek.random import get_rng_state as get_rng_state  # noqa: E402
from deepseek.random import initial_seed as initial_seed  # noqa: E402
from deepseek.random import manual_seed as manual_seed  # noqa: E402
from deepseek.random import seed as seed  # noqa: E402
from deepseek.random import set_rng_state as set_rng_state  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:  # names that load on first use: see _binding/lazy.py
    from deepseek import accelerator as accelerator
    from deepseek import amp as amp
    from deepseek import attention as attention
    from deepseek import autograd as autograd
    from deepseek import backends as backends
    from deepseek import cli as cli
    from deepseek import cpu as cpu
    from deepseek import cuda as cuda
    from deepseek import io as io
    from deepseek import linalg as linalg
    from deepseek import models as models
    from deepseek import moe as moe
    from deepseek import nn as nn
    from deepseek import optim as optim
    from deepseek import quantization as quantization
    from deepseek import random as random
    from deepseek import return_types as return_types
    from deepseek import testing as testing
    from deepseek import train as train
    from deepseek import utils as utils
    from deepseek import version as version
    from deepseek import xpu as xpu
    from deepseek.amp import GradScaler as GradScaler
    from deepseek.amp import autocast as autocast
    from deepseek.amp.autocast_state import clear_autocast_cache as clear_autocast_cache
    from deepseek.amp.autocast_state import get_autocast_dtype as get_autocast_dtype
    from deepseek.amp.autocast_state import is_autocast_cache_enabled as is_autocast_cache_enabled
    from deepseek.amp.autocast_state import set_autocast_cache_enabled as set_autocast_cache_enabled
    from deepseek.amp.autocast_state import set_autocast_dtype as set_autocast_dtype
    from deepseek.amp.autocast_state import set_autocast_enabled as set_autocast_enabled
    from deepseek.io._saving import load as load
    from deepseek.io._saving import save as save
    from deepseek.jit import CallableModule as _CallableModule
    from deepseek.jit.capture import compile as compile

    __all__: list[str]
    __version__: str
    jit: _CallableModule

    class BFloat16Tensor(_C.Tensor): ...

    class BoolTensor(_C.Tensor): ...

    class ByteTensor(_C.Tensor): ...

    class CharTensor(_C.Tensor): ...

    class DoubleTensor(_C.Tensor): ...

    class FloatTensor(_C.Tensor): ...

    class HalfTensor(_C.Tensor): ...

    class IntTensor(_C.Tensor): ...

    class LongTensor(_C.Tensor): ...

    class ShortTensor(_C.Tensor): ...


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
newaxis = None


if not TYPE_CHECKING:  # for checkers a name that is not above is an error

    def __getattr__(name: str) -> object:
        from deepseek._binding.lazy import load

        value = globals()[name] = load(name, globals())
        return value


def __dir__() -> list[str]:
    from deepseek._binding.lazy import names

    return names(globals())

"""Names that do not exist: what modules, objects and imports say; and what ``dir()`` shows."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import deepseek
import pytest
from deepseek import nn, optim
from deepseek._binding import nearest
from public_api import modules, public_names

F = nn.functional
NOT_YET = r": not implemented yet \(PyTorch has it\); see README 'What works'$"


def error_of(code: str) -> Exception:
    """What running the code raises."""
    with pytest.raises((AttributeError, ImportError)) as caught:
        exec(code, {"deepseek": deepseek, "nn": nn, "F": F, "optim": optim})
    assert isinstance(caught.value, Exception)
    return caught.value


# --- PyTorch's names --------------------------------------------------------------------------------------------------
TORCHS = [
    ("deepseek.stft", "deepseek.stft"),
    ("deepseek._dynamo", "deepseek._dynamo"),
    ("deepseek.xpu.Stream", "deepseek.xpu.Stream"),
    ("deepseek.utils.data.dataset.StackDataset", "deepseek.utils.data.dataset.StackDataset"),
    ("deepseek.vmap", "deepseek.vmap"),
    ("deepseek.distributed", "deepseek.distributed"),
    ("nn.Conv2d", "deepseek.nn.Conv2d"),
    ("nn.Dropout2d", "deepseek.nn.Dropout2d"),  # although Dropout is near
    ("F.conv2d", "deepseek.nn.functional.conv2d"),
    ("nn.init.dirac_", "deepseek.nn.init.dirac_"),
    ("nn.utils.weight_norm", "deepseek.nn.utils.weight_norm"),
    ("optim.RMSprop", "deepseek.optim.RMSprop"),
    ("optim.swa_utils", "deepseek.optim.swa_utils"),
    ("deepseek.linalg.svd", "deepseek.linalg.svd"),
    ("deepseek.utils.tensorboard", "deepseek.utils.tensorboard"),
    ("deepseek.utils.data.WeightedRandomSampler", "deepseek.utils.data.WeightedRandomSampler"),
    ("deepseek.autograd.profiler", "deepseek.autograd.profiler"),
    ("deepseek.jit.script", "deepseek.jit.script"),
    ("deepseek.cuda.Stream", "deepseek.cuda.Stream"),
    ("deepseek.ones(1).stft(4)", "deepseek.Tensor.stft"),
    ("deepseek.ones(1).svd", "deepseek.Tensor.svd"),
    ("deepseek.Tensor.svd", "deepseek.Tensor.svd"),
    ("nn.Linear(1, 1).weight.sinc_", "deepseek.Tensor.sinc_"),
    ("nn.Linear(1, 1).share_memory()", "deepseek.nn.Module.share_memory"),
    ("optim.SGD([deepseek.ones(1)], 0.1).register_state_dict_pre_hook", "deepseek.optim.Optimizer.register_state_dict"),
]


@pytest.mark.parametrize(("code", "name"), TORCHS)
def test_a_name_of_pytorch_is_not_implemented_yet(code: str, name: str) -> None:
    error = error_of(code)
    assert type(error) is AttributeError and re.search(NOT_YET, str(error)) and str(error).startswith(name)
    assert error.name and error.name in code and "nearest" not in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        ("from deepseek import distributed", ImportError, "deepseek.distributed"),
        ("from deepseek.nn import Linear, Conv2d", ImportError, "deepseek.nn.Conv2d"),
        ("from deepseek.nn.functional import conv2d", ImportError, "deepseek.nn.functional.conv2d"),
        ("from deepseek.linalg import svd", ImportError, "deepseek.linalg.svd"),
        ("from deepseek.utils.data import DistributedSampler", ImportError, "deepseek.utils.data.DistributedSampler"),
        ("import deepseek.distributed as dist", ModuleNotFoundError, "deepseek.distributed"),
        ("from deepseek.fft import fft", ModuleNotFoundError, "deepseek.fft"),
        ("from deepseek.nn.parallel import DistributedDataParallel", ModuleNotFoundError, "deepseek.nn.parallel"),
        ("import importlib; importlib.import_module('deepseek.sparse')", ModuleNotFoundError, "deepseek.sparse"),
    ],
)
def test_so_do_imports(code: str, kind: type, name: str) -> None:
    error = error_of(code)
    assert type(error) is kind and str(error).startswith(name) and re.search(NOT_YET, str(error))


def test_looking_for_a_module_is_not_importing_it() -> None:
    assert importlib.util.find_spec("deepseek.distributed") is None
    assert importlib.util.find_spec("deepseek.nothing") is None
    assert str(error_of("import deepseek.nothing")) == "No module named 'deepseek.nothing'"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("nn.Lstm", "nn.LSTM"),
        ("nn.conv2D", "nn.Conv2d"),
        ("optim.RMSProp", "optim.RMSprop"),
        ("F.Conv2d", "nn.functional.conv2d"),
    ],
)
def test_in_any_case_of_letters(code: str, name: str) -> None:
    assert re.search(f"^deepseek.{name}{NOT_YET}", str(error_of(code)))


# --- slips ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "near"),
    [
        ("deepseek.Tensr", "Tensor"),
        ("deepseek.rehape", "reshape"),
        ("deepseek.floa32", "float32"),
        ("deepseek.jti", "jit"),
        ("nn.Linaer", "Linear"),
        ("nn.linear", "Linear"),
        ("nn.CrossEntropyloss", "CrossEntropyLoss"),
        ("nn.MultiHeadAttention", "MultiheadAttention"),
        ("F.crossentropy", "cross_entropy"),
        ("F.cross_entropy_loss", "cross_entropy"),
        ("optim.lr_scheduler.CosineLR", "WarmupCosineLR"),
        ("nn.init.xavier_uniform", "xavier_uniform_"),  # its old name in PyTorch
        ("optim.SDG", "SGD"),
        ("optim.adamw", "AdamW"),
        ("nn.Linear(1, 1).wieght", "weight"),
        ("optim.SGD([deepseek.ones(1)], 0.1).zerograd()", "zero_grad"),
        ("from deepseek.nn import Linaer", "Linear"),
        ("import deepseek.optm", "optim"),
    ],
)
def test_a_near_name_is_suggested(code: str, near: str) -> None:
    assert str(error_of(code)).endswith(f"; the nearest name is '{near}'")


@pytest.mark.parametrize(
    "code",
    ["deepseek.foo", "deepseek.xyz", "nn.Mamba", "nn.Convolution", "F.abc", "optim.Lion", "nn.ReLU().items"],
)
def test_a_far_name_is_not(code: str) -> None:
    assert re.search(r"has no attribute '\w+'$", str(error_of(code)))


def reference_distance(a: str, b: str) -> int:
    """Optimal string alignment by its recursive definition."""
    if not a or not b:
        return len(a) + len(b)
    best = min(
        reference_distance(a[1:], b) + 1,
        reference_distance(a, b[1:]) + 1,
        reference_distance(a[1:], b[1:]) + (a[0] != b[0]),
    )
    if len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0]:
        best = min(best, reference_distance(a[2:], b[2:]) + 1)
    return best


@pytest.mark.parametrize("a", ["", "a", "ab", "ba", "abc", "acb", "cabd", "abdc"])
@pytest.mark.parametrize("b", ["", "b", "ab", "bca", "abcd", "badc"])
def test_distance(a: str, b: str) -> None:
    exact = reference_distance(a, b)
    assert [nearest.distance(a, b, most) for most in range(5)] == [min(exact, most + 1) for most in range(5)]


def test_python_suggests_methods_of_tensors() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import deepseek; deepseek.ones(1).reshap"], capture_output=True, text=True
    )
    assert "'deepseek.Tensor' object has no attribute 'reshap'. Did you mean: 'reshape'?" in done.stderr


def test_a_name_that_says_it_is_missing_can_be_taken() -> None:
    class Mine(deepseek.Tensor):
        def svd(self) -> str:
            return "mine"

    mine = deepseek.ones(2).as_subclass(Mine)
    assert mine.svd() == "mine" and "svd" in dir(Mine) and "svd" in dir(mine)  # type: ignore[attr-defined]
    assert "svd" not in dir(deepseek.Tensor) and "qr" not in dir(Mine)
    x: Any = deepseek.ones(1)
    x.stft = 3
    assert x.stft == 3 and "stft" in dir(x)


# --- probing ----------------------------------------------------------------------------------------------------------
PROBES = ("_repr_html_", "_ipython_display_", "__wrapped__", "__path__x", "_ipython_canary_method_should_not_exist_")


@pytest.mark.parametrize("probe", PROBES)
def test_tools_may_probe(probe: str) -> None:
    for value in (deepseek, nn, F, nn.Linear(1, 1), deepseek.ones(1), optim.SGD([deepseek.ones(1)], 0.1)):
        assert not hasattr(value, probe) and getattr(value, probe, None) is None
        inspect.unwrap(value)  # type: ignore[arg-type]


def test_errors_are_plain_objects() -> None:
    error = error_of("nn.Conv2d")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is AttributeError and str(again) == str(error) and repr(again) == repr(error)


def test_asking_is_cheap_and_loads_no_table() -> None:
    code = (
        "import sys, deepseek\n"
        "hasattr(deepseek, 'vmap'), hasattr(deepseek.nn, 'Conv2d'), hasattr(deepseek.nn.Linear(1, 1), 'x')\n"
        "assert 'deepseek._binding.torch_names' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    begin = time.perf_counter()
    for _ in range(1000):
        hasattr(nn, "Conv2d")
    assert time.perf_counter() - begin < 0.5  # some 3 ms


# --- dir() ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__)
def test_dir_shows_what_is_public(module: ModuleType) -> None:
    shown = dir(module)
    assert shown == sorted(shown)
    assert not [name for name in shown if name.startswith("_") and not name.startswith("__")]
    for name in public_names(module):
        value = getattr(module, name)
        home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None) or "deepseek"
        assert home.partition(".")[0] in ("deepseek", "builtins"), f"{name} is another package's"
    if module is not deepseek:
        assert public_names(module) == sorted(n for n in module.__all__ if not n.startswith("_"))


def test_dir_of_the_package() -> None:
    assert {"nn", "optim", "save", "FloatTensor", "compile", "softmax", "float32", "pi"} <= set(dir(deepseek))
    everything: dict[str, Any] = {}
    exec("from deepseek import *", everything)
    assert {"softmax", "float32", "save", "Tensor"} <= everything.keys()
    assert not {"float", "int", "nn", "annotations", "TYPE_CHECKING"} & everything.keys()


@pytest.mark.parametrize(
    "value", [deepseek.ones(2, 2), nn.Linear(1, 1), optim.SGD([deepseek.ones(1)], 0.1), deepseek.Tensor, nn.Module]
)
def test_every_name_in_dir_of_an_object_exists(value: Any) -> None:
    assert not [name for name in dir(value) if not hasattr(value, name) and not name.startswith("__")]


def test_the_readme_has_what_errors_point_to() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    assert re.search("^#+ What works", readme.read_text(encoding="utf-8"), re.MULTILINE)


def test_names_that_load_on_first_use_are_the_public_ones_of_their_files() -> None:
    """What `moe` shows of files that it does not import: the one list that is kept by hand."""
    from deepseek import moe

    files = set(vars(moe)["_ELSEWHERE"].values())
    found = {name: file for file in files for name in importlib.import_module(f"deepseek.moe.{file}").__all__}
    assert found == vars(moe)["_ELSEWHERE"]
    lazily = re.findall(r"^    from deepseek\.moe\.(\w+) import \*$", Path(moe.__file__).read_text(), re.MULTILINE)
    assert set(lazily) == files  # for type checkers

"""The package itself: what importing it loads, its names, and what it says about names that do not exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import deepseek
import pytest
from deepseek._binding import lazy
from deepseek._binding.public import METHODS
from deepseek._tools import cppgen, stubgen


def loaded_by(code: str) -> set[str]:
    """Modules in a fresh interpreter after running the code."""
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


# --- importing --------------------------------------------------------------------------------------------------------
def test_import_loads_nothing_heavy() -> None:
    before, after = loaded_by("pass"), loaded_by("import deepseek")
    heavy = {"numpy", "typing", "inspect", "re", "ctypes", "typer", "rich", "dataclasses"}
    assert not {m for m in after - before if m.partition(".")[0] in heavy}
    sub = {m for m in after if m.startswith("deepseek.") and m.count(".") == 1 and not m.startswith("deepseek._")}
    assert sub <= {"deepseek.autograd", "deepseek.random"}


def test_common_work_needs_no_numpy() -> None:
    code = (
        "import deepseek\n"
        "x = deepseek.randn(3, 4, requires_grad=True)\n"
        "(x @ x.t()).sum().backward()\n"
        "repr(x), x.grad.tolist(), deepseek.unique(x), f'{x.sum():.2f}', deepseek.tensor([[1, 2]])\n"
        "import copy, pickle; copy.deepcopy(x), pickle.loads(pickle.dumps(x))"
    )
    assert "numpy" not in loaded_by(code)


@pytest.mark.parametrize("name", lazy.SUBMODULES)
def test_submodules_load_on_first_use(name: str) -> None:
    module = getattr(deepseek, name)
    assert module.__name__ == f"deepseek.{name}" and getattr(deepseek, name) is module and name in dir(deepseek)


def test_from_import_of_lazy_names() -> None:
    code = "from deepseek import nn, optim, save, load, autocast, FloatTensor\nimport deepseek.linalg as L\nL.norm"
    assert {"deepseek.nn", "deepseek.optim", "deepseek.amp", "deepseek.linalg"} <= loaded_by(code)


def test_version() -> None:
    line = next(
        text
        for text in (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8").splitlines()
        if text.startswith("version = ")
    )
    assert deepseek.__version__ == deepseek.version.__version__ == line.split('"')[1]


# --- names that do ----------------------------------------------------------------------------------------------------
ALIASES = {
    "absolute": "abs",
    "arccos": "acos",
    "arctan2": "atan2",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "fix": "trunc",
    "ger": "outer",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "moveaxis": "movedim",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "row_stack": "vstack",
    "subtract": "sub",
    "true_divide": "div",
}


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias: str) -> None:
    name = ALIASES[alias]
    assert getattr(deepseek, alias) is getattr(deepseek, name)
    if hasattr(deepseek.Tensor, name):
        assert getattr(deepseek.Tensor, alias) is getattr(deepseek.Tensor, name)
    if hasattr(deepseek.Tensor, name + "_"):
        assert hasattr(deepseek.Tensor, alias + "_") == hasattr(deepseek, alias + "_")


def test_in_place_aliases_write() -> None:
    x = deepseek.tensor([1.0, -2.0])
    assert x.multiply_(2).negative_().absolute_().clip_(max=3) is x and x.tolist() == [2.0, 3.0]


def test_dtype_aliases() -> None:
    names = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}
    for alias, name in {**names, "short": "int16"}.items():
        assert getattr(deepseek, alias) is getattr(deepseek, name)
    assert deepseek.zeros(1, dtype=float).dtype is deepseek.float64  # Python's own float


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("FloatTensor", "float32"), ("DoubleTensor", "float64"), ("LongTensor", "int64"), ("BoolTensor", "bool")],
)
def test_old_tensor_types(name: str, dtype: str) -> None:
    kind, wanted = getattr(deepseek, name), getattr(deepseek, dtype)
    assert kind([1, 0]).dtype is wanted and kind(2, 3).shape == (2, 3)
    assert isinstance(kind([1]), kind) and not isinstance(deepseek.zeros(1, dtype=deepseek.int8), kind)
    assert kind([1]).type() == f"deepseek.{name}" and deepseek.ones(1).type(f"deepseek.{name}").dtype is wanted


def test_long_lists_of_split_sizes() -> None:
    """int[] attributes hold 8 entries; longer lists take another way with the same result and gradient."""
    x = deepseek.arange(45.0, requires_grad=True)
    parts = x.split(list(range(10)))
    assert [p.tolist() for p in parts] == [
        list(map(float, range(n * (n - 1) // 2, n * (n + 1) // 2))) for n in range(10)
    ]
    (parts[3].sum() * 2 + parts[9][0]).backward()
    assert x.grad.nonzero().reshape(-1).tolist() == [3, 4, 5, 36] and x.grad[4].item() == 2.0
    with pytest.raises(RuntimeError, match="sum exactly to 45"):
        x.split([1] * 10)


def test_constants() -> None:
    assert deepseek.pi == 3.141592653589793 and deepseek.inf > 1e308 and deepseek.nan != deepseek.nan
    assert deepseek.newaxis is None and repr(deepseek.strided) == "deepseek.strided"


def test_set_default_dtype() -> None:
    try:
        deepseek.set_default_dtype(deepseek.float64)
        assert deepseek.tensor(1.5).dtype is deepseek.zeros(1).dtype is deepseek.float64
        assert repr(deepseek.tensor([1.5])) == "tensor([1.5000])" and deepseek.finfo().bits == 64
    finally:
        deepseek.set_default_dtype(deepseek.float32)
    for wrong in (deepseek.int64, "float32"):
        with pytest.raises(TypeError, match="floating-point"):
            deepseek.set_default_dtype(wrong)


def test_fork_rng() -> None:
    deepseek.manual_seed(1)
    with deepseek.random.fork_rng():
        inside = deepseek.rand(3)
        deepseek.manual_seed(99)
    assert deepseek.equal(deepseek.rand(3), inside)


def test_autocast() -> None:
    a, b = deepseek.ones(4, 4), deepseek.ones(4, 4)
    assert not deepseek.is_autocast_enabled()
    with deepseek.autocast("cpu"):
        assert deepseek.is_autocast_enabled() and (a @ b).dtype is deepseek.bfloat16
        with deepseek.autocast("cpu", enabled=False):
            assert (a @ b).dtype is deepseek.float32
        assert (a @ b).dtype is deepseek.bfloat16
    assert (a @ b).dtype is deepseek.float32

    @deepseek.autocast("cpu", dtype=deepseek.float16)
    def product() -> Any:
        return a @ b

    assert product().dtype is deepseek.float16
    with pytest.raises(RuntimeError, match="CPU only"):
        deepseek.autocast("cuda")
    with pytest.warns(UserWarning, match="not supported"):
        assert not deepseek.autocast("cpu", dtype=deepseek.float64)._enabled


# --- where names come from --------------------------------------------------------------------------------------------
FILES = [
    importlib.import_module(f"{package}.{entry.name}")
    for package in ("deepseek._functions", "deepseek.nn.modules", "deepseek.nn.functional", "deepseek.nn.utils")
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__)
]


@pytest.mark.parametrize("module", [m for m in FILES if hasattr(m, "__all__")], ids=lambda m: m.__name__)
def test_what_looks_public_is_public(module: ModuleType) -> None:
    """What a file defines without a ``_`` has its ``@public``; type checkers go by the ``_``."""
    tree = ast.parse(inspect.getsource(module))
    defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    defined |= {ast.unparse(target) for n in tree.body if isinstance(n, ast.Assign) for target in n.targets}
    listed = {"__all__"} & defined  # a list that checkers see too
    assert listed or {name for name in defined - {"TYPE_CHECKING"} if name[0] != "_"} == set(module.__all__)
    shown = importlib.import_module(module.__name__.rpartition(".")[0])
    assert set(module.__all__) <= set(shown.__all__)


def test_in_place_twins_stand_beside_their_functions() -> None:
    for name, method in METHODS.items():
        twin = METHODS.get(name + "_")
        if twin is not None and hasattr(method, "__code__"):
            assert inspect.getsourcefile(inspect.unwrap(twin)) == inspect.getsourcefile(method), name


@pytest.mark.parametrize(
    ("pickled", "check"),
    [
        (
            b"cdeepseek._tensor_copy\n_rebuild\n(cdeepseek\nTensor\nc_codecs\nencode\n(V\\u0000\\u0000\x80?\n"
            b"Vlatin1\ntRcdeepseek\nfloat32\n(I1\ntI00\ntR.",
            lambda x: x.tolist() == [1.0],
        ),
        (b"cdeepseek._device\ndevice\n(Vcpu\nNtR.", lambda x: x == deepseek.device("cpu")),
        (b"cdeepseek._composites\nvstack\n.", lambda x: x is deepseek.vstack),
        (b"cdeepseek._functions\nnorm\n.", lambda x: x is deepseek.norm),
        (b"cdeepseek._unique\nunique\n.", lambda x: x is deepseek.unique),
        (b"cdeepseek._info\nfinfo\n.", lambda x: x is deepseek.finfo),
        (b"cdeepseek._serialization\nload\n.", lambda x: x is deepseek.load),
    ],
)
def test_pickles_of_former_modules_load(pickled: bytes, check: Callable[[Any], bool]) -> None:
    assert check(pickle.loads(pickled))


def test_pickles_name_the_package() -> None:
    assert deepseek.vstack.__module__ == deepseek.norm.__module__ == "deepseek"
    assert b"_functions" not in pickle.dumps(deepseek.clamp_min)


# --- types and signatures ---------------------------------------------------------------------------------------------
def test_the_stub_is_up_to_date() -> None:
    assert stubgen.STUB.read_text(encoding="utf-8") == stubgen.generate(), "run `python -m deepseek._tools.stubgen`"


def test_stub_check_reports_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(stubgen, "STUB", tmp_path / "_C.pyi")
    assert stubgen.main(["--check"]) == 1 and "out of date" in capsys.readouterr().err
    assert stubgen.main([]) == 0 and stubgen.main(["--check"]) == 0 and stubgen.main(["--nonsense"]) == 2


def test_the_functions_for_cpp_are_up_to_date() -> None:
    for path, text in cppgen.generate().items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m deepseek._tools.cppgen`"


def test_cpp_has_every_op() -> None:
    declared = set(re.findall(r"^[\w:<>, ]+? (\w+)\(", cppgen.HEADER.read_text("utf-8"), re.MULTILINE))
    public = {name.split(".")[0] for name, op in deepseek._C.op_table().items() if not op.hidden and name[0] != "_"}
    assert len(public) > 200 and public - declared - set(cppgen.written_by_hand()) == set()


def test_check_of_the_functions_reports_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in ("HEADER", "SOURCE"):
        monkeypatch.setattr(cppgen, name, tmp_path / name)
    assert cppgen.main(["--check"]) == 1 and "out of date" in capsys.readouterr().err
    assert cppgen.main([]) == 0 and cppgen.main(["--check"]) == 0 and cppgen.main(["--nonsense"]) == 2


def test_py_typed_is_there() -> None:
    assert (Path(deepseek.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("softmax", "(input, dim, dtype=None)"),
        ("stack", "(tensors, dim=0)"),
        ("max", "(input, other=..., dim=..., keepdim=False)"),
        ("zeros", "(*size, dtype=None, device=None, requires_grad=False)"),
    ],
)
def test_signatures_come_from_the_table(function: str, text: str) -> None:
    op = getattr(deepseek, function)
    assert str(inspect.signature(op)) == text and inspect.isroutine(op) and op.__module__ == "deepseek"


def test_every_op_and_method_has_a_signature_and_a_docstring() -> None:
    for owner in (deepseek, deepseek.Tensor):
        for name in dir(owner):
            value = inspect.getattr_static(owner, name, None)
            if name.startswith("_") or not inspect.isroutine(value):
                continue
            assert value.__doc__ and value.__doc__.strip(), name
            if type(value).__name__ in ("op", "op_method", "function"):
                assert re.match(r"\(.*\)", str(inspect.signature(value))), name


def test_an_op_as_a_class_attribute_does_not_bind() -> None:
    class Config:
        activation = deepseek.tanh

    assert Config().activation(deepseek.zeros(2)).tolist() == [0.0, 0.0]
    assert Config.activation is deepseek.tanh

"""What csrc/python may be written with: guarded slots only, and no private symbol of CPython."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deepseek import _C

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "csrc" / "python").rglob("*.[ch]*"))

# Where C meets C++: these may name CPython's tables and cast functions, everybody else goes through them.
SEAM = {"slots.h", "bound.cc"}

UNGUARDED = {
    "a table of CPython's": r"\bPy(MethodDef|GetSetDef|Type_Slot|Type_Spec|ModuleDef)\b",
    "a C function made by hand": r"\bPy(CFunction_New\w*|Capsule_New|Type_From\w+|Descr_New\w+)\b",
    "a cast to a C function": r"reinterpret_cast<(PyCFunction|void\s*\*|void\s*\(\s*\*\s*\)\s*\()",
    "a slot written directly": r"(->|\.)(tp|nb|mp|sq|bf|am)_\w+\s*=[^=]",
    "a callback of CPython's": r"\bPy_(AddPendingCall|AtExit)\b|\bPyEval_Set\w+\b",
}

# What public macros and inline functions of Python.h expand to, and what pybind11's headers use.
PRIVATE = {
    "_Py_NoneStruct": "Py_None",
    "_Py_TrueStruct": "Py_True",
    "_Py_FalseStruct": "Py_False",
    "_Py_EllipsisObject": "Py_Ellipsis",
    "_Py_NotImplementedStruct": "Py_NotImplemented",
    "_Py_Dealloc": "Py_DECREF",
    "_PyWeakref_RefType": "PyWeakref_Check",
    "_PyWeakref_ProxyType": "PyWeakref_Check",
    "_PyWeakref_CallableProxyType": "PyWeakref_Check",
    "_PyObject_New": "PyObject_New",
    "_PyObject_GC_New": "PyObject_GC_New",
    "_PyObject_GetDictPtr": "pybind11",
    "_PyThreadState_UncheckedGet": "pybind11",
    "_PyType_Lookup": "pybind11",
    "_PyInterpreterState_Get": "pybind11",
}


def code(path: Path) -> str:
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


@pytest.mark.parametrize("what", UNGUARDED)
def test_c_functions_are_made_by_the_guarding_templates_only(what):
    found = [
        f"{path.name}: {line.strip()}"
        for path in SOURCES
        if path.name not in SEAM
        for line in code(path).splitlines()
        if re.search(UNGUARDED[what], line) and "&Guarded<" not in line
    ]
    assert not found, f"{what}, which csrc/python/slots.h makes:\n" + "\n".join(found)


def test_private_names_of_cpython_are_not_used():
    used = [f"{p.name}: {name}" for p in SOURCES for name in set(re.findall(r"\b_Py\w+", code(p)))]
    assert not used


def test_private_symbols_of_cpython_are_not_linked():
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    listed = subprocess.run([nm, "-D", "--undefined-only", _C.__file__], capture_output=True, text=True, check=True)
    symbols = {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines()}
    private = {s for s in symbols if s.startswith("_Py")}
    assert private <= PRIVATE.keys(), f"private symbols: {sorted(private - PRIVATE.keys())}"


def test_every_bound_function_is_guarded():
    # pybind11's own dispatcher builds the text of its refusal where an exception ends the process.
    functions = [f for n, f in vars(_C).items() if type(f).__name__ == "builtin_function_or_method"]
    assert len(functions) > 50
    for f in functions:
        with pytest.raises((TypeError, UnicodeEncodeError, RuntimeError, KeyError)):
            f(object(), object(), object(), object(), object(), **{"\ud800": object()})

"""Facts about an op stand in its struct: nothing compares names of ops, looks ops up by them, or lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from deepseek import _C

CSRC = Path(__file__).resolve().parents[1] / "csrc"
TABLE = _C.op_table()
NAMES = {*TABLE, *(name.split(".")[0] for name in TABLE)}
# Attributes that are words, such as `reduction`: their values are no names of ops, even where the letters are the same.
MODES = {name for op in TABLE.values() for name, kind, *_ in op.arguments if kind.startswith("str")}
FINDERS = ("find_op", "one_of")

# File -> literals that have nothing to do with the op of that name.
WORDS = {
    "ops/reduce/scan.cc": {"maximum", "minimum"},  # words of a docstring
    "python/call.cc": {"random", "view"},  # properties of OpDef
    "python/convert.cc": {"detach", "view"},  # methods of other libraries' arrays
    "python/bind/runtime.cc": {"matmul"},  # a key of build information
    "python/tensor_type.cc": {"detach_"},
}
WRITTEN = {"api/functions.cc", "api/functions.h"}  # by a program, from the table

COMMENT = re.compile(r"//[^\n]*")
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
# What may stand before a name: a call or a struct whose first argument it is, as in wrap_dim("cat", dim) and
# MseLoss{"mean"}, or one of two names there; or the comparison of a mode.
FIRST_ARGUMENT = re.compile(r"(\w+)(?:<[^;(){}]*>)?\s*[({]\s*(?:\w+\s*\?\s*(?:\"\w+\"\s*:\s*)?)?$")
COMPARED = re.compile(r"(\w+)\s*[!=]=\s*$")


def names_in(text: str) -> list[str]:
    """Names of ops that `text` compares, looks up or lists; not those with which it begins the text of an error."""
    text = COMMENT.sub("", text)
    found = []
    for literal in LITERAL.finditer(text):
        if literal[1] not in NAMES:
            continue
        before = text[max(0, literal.start() - 200) : literal.start()]
        call, compared = FIRST_ARGUMENT.search(before), COMPARED.search(before)
        named = call and call[1] not in (*FINDERS, "return") and not text[literal.end() :].lstrip().startswith("==")
        if not named and not (compared and compared[1] in MODES):
            found.append(literal[1])
    return found


def violations(root: Path) -> list[str]:
    files = [path for path in sorted(root.rglob("*")) if path.suffix in {".h", ".cc", ".def"}]
    found = []
    for path in files:
        name = path.relative_to(root).as_posix()
        if name not in WRITTEN:
            found += [f"{name}: {op}" for op in names_in(path.read_text("utf-8")) if op not in WORDS.get(name, ())]
    return found


def test_no_names_of_ops() -> None:
    assert len(NAMES) > 300 and "reduction" in MODES, "the check would pass on nothing"
    assert violations(CSRC) == []


@pytest.mark.parametrize(
    "text",
    [
        'find_op("clone")',
        'static const OpDef& def = *find_op(\n  "mul");',
        'if (def.schema.name == "linear") return;',
        'if (op != "fill" && done) return;',
        'if ("fill" == op) return;',
        'constexpr const char* kNames[] = {"relu", kRelu};',
        'constexpr Row kRows[] = {{"relu", kRelu}};',
        'return one_of(op, {"where"});',
        'const char* const op = "exp";',
        'case_of(x, "exp");',
    ],
)
def test_names_are_found(text: str) -> None:
    assert len(names_in(text)) == 1, text


@pytest.mark.parametrize(
    "text",
    [
        'wrap_dim("cat", dim, n);',
        'scan<AddStep>("cumsum", out, in, dim);',
        'dispatch_sum(is_max ? "max" : "min", in.dtype);',
        'DS_CHECK(reduction == "mean", reduction.view());',
        'if (*rounding_mode == "floor") return a;',
        'return reduction ==\n    "sum";',
        'return apply(MseLoss{"mean"}, x, target);',
        '// not find_op("clone")',
        'fail("cat() takes tensors");',
    ],
)
def test_what_is_no_fact_about_an_op_passes(text: str) -> None:
    assert names_in(text) == []

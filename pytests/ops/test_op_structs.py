"""Op structs of one name in two files would be one to the linker, and one of the ops would run the other's code."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"
# DS_BODY(Name, "schema", …) and other macros that define an op, rows of pointwise.def, structs with an `info`.
DEFINITIONS = re.compile(r"^DS_(?!OP\b)\w+\(\s*(?:k\w+, )?([A-Z]\w+),|^struct (\w+) \{(?=[^}]*? info\b)", re.MULTILINE)


def test_no_two_ops_have_a_struct_of_one_name() -> None:
    files = [*CSRC.glob("ops/**/*.cc"), *CSRC.glob("optim/*.cc"), *CSRC.glob("kernels/pointwise/families/*.def")]
    names = [name for file in files for found in DEFINITIONS.findall(file.read_text()) for name in found if name]
    assert len(names) > 250  # the expression still finds them
    assert [name for name, count in Counter(names).items() if count > 1] == []

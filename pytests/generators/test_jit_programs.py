"""``deepseek.jit`` against eager execution on programs nobody wrote."""

from __future__ import annotations

from generators.cases import cases
from generators.jit_programs import difference, make


def test_captured_programs_do_what_eager_ones_do() -> None:
    replayable = replayed = 0
    for case in cases(300):
        program = make(case)
        what, f = difference(program)
        calls = zip(program.changes, program.arguments, program.contexts, program.after, strict=True)
        explanation = f"case {case}\n{program.source}\n" + "\n".join(map(str, calls)) + "\n"
        assert not what, explanation + what + "\n" + f.explain()
        replayable += program.pure
        replayed += program.pure and not f._eager
    assert replayed >= 0.9 * replayable, f"only {replayed} of {replayable} programs that can be replayed were"

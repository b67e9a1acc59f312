"""Random einsum equations, written with letters and with numbers, against NumPy's."""

from __future__ import annotations

import random
import string
from typing import Any

import deepseek
import numpy as np
from cases import cases

SUBSCRIPTS = string.ascii_uppercase + string.ascii_lowercase  # number i stands for SUBSCRIPTS[i]


def equation_and_shapes(rng: random.Random) -> tuple[str, list[list[int]]]:
    """An equation that fits operands of these shapes: repeated letters, ellipsis, sizes 1, implied output."""
    letters = rng.sample(SUBSCRIPTS, rng.randint(1, 5))
    sizes = {letter: rng.randint(1, 4) for letter in letters}
    dots = [rng.randint(1, 3) for _ in range(rng.randint(0, 2))]
    dotted = rng.random() < 0.4
    parts, shapes = [], []
    for _ in range(rng.randint(1, 3)):
        part = "".join(rng.choice(letters) for _ in range(rng.randint(0, 4)))
        shape = [sizes[letter] for letter in part]
        if dotted and rng.random() < 0.8:
            place = rng.randint(0, len(part))
            own = dots[rng.randint(0, len(dots)) :]
            part = part[:place] + "..." + part[place:]
            shape[place:place] = [rng.choice([n, 1]) for n in own]
        parts.append(part)
        shapes.append(shape)
    equation = ",".join(parts)
    if rng.random() < 0.7:
        used = sorted(set(equation) & set(letters))
        output = "".join(rng.sample(used, rng.randint(0, len(used))))
        place = rng.randint(0, len(output))
        # NumPy wants the ellipsis in the output when an operand has one.
        equation += "->" + (output[:place] + "..." + output[place:] if "..." in equation else output)
    return equation, shapes


def sublist(part: str) -> list[Any]:
    """The subscripts of one operand as numbers."""
    before, dots, after = part.partition("...")
    return [*map(SUBSCRIPTS.index, before), *([...] if dots else []), *map(SUBSCRIPTS.index, after)]


def test_einsum() -> None:
    for case in cases(400):
        rng = random.Random(case)
        equation, shapes = equation_and_shapes(rng)
        arrays = [
            np.random.default_rng(case + i).integers(-3, 4, shape).astype(float) for i, shape in enumerate(shapes)
        ]
        expected = np.einsum(equation, *arrays)
        tensors = [deepseek.from_numpy(array) for array in arrays]
        left, arrow, right = equation.partition("->")
        lists = [entry for t, part in zip(tensors, left.split(","), strict=True) for entry in (t, sublist(part))]
        for arguments in ((equation, *tensors), (equation, tensors), (*lists, *([sublist(right)] if arrow else []))):
            found = deepseek.einsum(*arguments).numpy()
            assert found.shape == np.shape(expected) and np.array_equal(found, expected), f"case {case}: {equation}"

"""What is said about a name that does not exist: that PyTorch has it, or which existing name is near."""

from __future__ import annotations

from collections.abc import Iterable

from deepseek._binding.torch_names import NAMES
from deepseek._binding.torch_tensor import TENSOR_NAMES

LONGEST_SLIP = 3
SHORTEST_PART = 5


def torch_names(owner: str) -> list[str]:
    """PyTorch's names in a module or class such as ``"nn"`` or ``"Tensor"``."""
    return (TENSOR_NAMES if owner == "Tensor" else NAMES.get(owner, "")).split()


def is_torchs(owner: str, name: str) -> bool:
    """Whether PyTorch has ``name`` there."""
    return name in torch_names(owner)


def describe(owner: str, name: str, known: Iterable[str], subject: str) -> str:
    """The text of an error.

    Args:
        owner: module or class without the package's name.
        name: what it has not.
        known: what it has.
        subject: the plain statement, such as ``"module 'deepseek.nn' has no attribute 'Linaer'"``.
    """
    exact = is_torchs(owner, name)
    if name.startswith("_") and not exact:
        return subject
    known = sorted(known)
    same = {name.lower(), name.lower() + "_"}  # PyTorch's old init.normal is normal_ now
    torchs = name if exact else next((n for n in torch_names(owner) if n.lower() == name.lower()), None)
    if torchs is not None and same.isdisjoint(map(str.lower, known)):
        path = ".".join(part for part in ("deepseek", owner, torchs) if part)
        return f"{path}: not implemented yet (PyTorch has it); see README 'What works'"
    near = nearest(name, known)
    return subject if near is None else f"{subject}; the nearest name is '{near}'"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` is most likely a slip of, or None.

    Slips are letters left out, added, changed or swapped, one for about four letters; letter case does not count,
    because ``nn.linear`` for ``nn.Linear`` is the usual one. Else a name that begins or ends as this one does.
    """
    folded = name.lower()
    most = min(LONGEST_SLIP, (len(name) + 1) // 4)
    slips: list[tuple[int, int, str]] = []
    parts: list[tuple[int, str]] = []
    for candidate in known:
        other = candidate.lower()
        if candidate.startswith("_"):
            continue
        if abs(len(other) - len(folded)) <= most and (cost := distance(folded, other, most)) <= most:
            slips.append((cost, distance(name, candidate, len(name)), candidate))
        short, long = sorted((folded, other), key=len)
        if _is_part(short, long):
            parts.append((len(long) - len(short), candidate))
    if slips:
        return min(slips)[2]
    return min(parts)[1] if parts else None


def _is_part(short: str, long: str) -> bool:
    """``cross_entropy`` of ``cross_entropy_loss``, ``CosineLR`` of ``WarmupCosineLR``."""
    long_enough = len(short) >= max(SHORTEST_PART, 0.55 * len(long))
    return long_enough and (long.startswith(short) or long.endswith(short))


def distance(a: str, b: str, most: int) -> int:
    """Letters to insert, delete, change or swap with their neighbour to get from a to b; at most ``most`` + 1."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a):
        earlier, before = before, row
        row = [i + 1]
        for j, other in enumerate(b):
            cost = min(before[j] + (letter != other), before[j + 1] + 1, row[j] + 1)
            if i and j and letter == b[j - 1] and a[i - 1] == other:
                cost = min(cost, earlier[j - 1] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)

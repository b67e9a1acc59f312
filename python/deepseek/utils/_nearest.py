"""One rule for names that do not exist: the error says which existing name is nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def missing_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """The AttributeError for ``module.name``, naming the nearest of ``known``.

    Letter case is ignored in the comparison, because ``nn.linear`` for ``nn.Linear`` is the usual slip.
    """
    message = f"module '{module}' has no attribute '{name}'"
    if not name.startswith("__"):
        folded: dict[str, list[str]] = {}
        for candidate in sorted(known):
            if not candidate.startswith("_"):
                folded.setdefault(candidate.lower(), []).append(candidate)
        close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.0)
        if close:
            best = difflib.get_close_matches(name, folded[close[0]], n=1, cutoff=0.0)
            message += f"; the nearest name is '{best[0]}'"
    return AttributeError(message, name=name)

"""How many random cases a generator tries, and from which one on.

A case is a function of its number alone, so a failure is repeated by ``DEEPSEEK_FIRST_CASE=<number> DEEPSEEK_CASES=1``.
"""

import os


def cases(usual: int) -> range:
    """The numbers of the cases to try: ``usual`` of them, or as many as ``make generators CASES=…`` asks for."""
    first = int(os.environ.get("DEEPSEEK_FIRST_CASE", "0"))
    return range(first, first + int(os.environ.get("DEEPSEEK_CASES", usual)))

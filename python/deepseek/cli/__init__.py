"""The command ``deepseek``: demo, train, generate, bench, config and doctor.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deepseek._binding.missing import guard

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        # Not "deepseek[cli]": on the index that name is another package.
        print(f"deepseek: the command line needs {error.name}: pip install typer rich", file=sys.stderr)
        return 1
    from deepseek.cli.app import run

    return run(list(sys.argv[1:] if arguments is None else arguments))


guard(__name__)

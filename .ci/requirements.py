"""Prints, one per line, what pyproject.toml asks for to build, run, and (for the extras named as arguments) develop."""

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))


def extra(name: str) -> list[str]:
    """The requirements of one extra; an extra that names our own extras is expanded."""
    expanded = []
    for requirement in PROJECT["project"]["optional-dependencies"][name]:
        if requirement.startswith("deepseek["):
            expanded += extra(requirement.removeprefix("deepseek[").removesuffix("]"))
        else:
            expanded.append(requirement)
    return expanded


requirements = PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"]
for name in sys.argv[1:]:
    requirements += extra(name)
print(*requirements, sep="\n")

"""Every op of this tree beside the same op of another commit: `make bench-compare COMMIT=174ce56`.

That commit is built in an environment of its own, kept in build/bench. What became slower is printed; all figures are
stored beside it, as JSON.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from _harness import ROOT


def run(*command: str | Path, folder: Path = ROOT, **environment: str) -> None:
    subprocess.run([str(word) for word in command], cwd=folder, check=True, env=os.environ | environment)


def full_name(commit: str) -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode:
        raise SystemExit(f"{commit!r} is not a commit of this repository")
    return found.stdout.strip()


def python_of(commit: str, folder: Path) -> Path:
    """The interpreter that imports deepseek as it was; built once."""
    python = folder / "venv/bin/python"
    ready = folder / "ready"
    if not ready.exists():
        run("git", "clone", "-q", "--shared", "--no-checkout", ROOT, folder / "source")
        run("git", "checkout", "-q", commit, folder=folder / "source")
        run(sys.executable, "-m", "venv", folder / "venv")
        pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "-q")
        print(f"building {commit[:10]}, some minutes", file=sys.stderr, flush=True)
        run(*pip, ".", folder=folder / "source", CCACHE_BASEDIR=str(folder / "source"))
        ready.touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description="Every op beside the same op of another commit.")
    parser.add_argument("commit")
    options, others = parser.parse_known_args()  # the others are those of bench_all_ops.py
    commit = full_name(options.commit)
    folder = ROOT / "build/bench" / commit[:10]
    folder.mkdir(parents=True, exist_ok=True)
    python = python_of(commit, folder)
    stored = folder / f"all_ops-{os.environ.get('DEEPSEEK_ISA') or 'best'}.json"
    run(sys.executable, ROOT / "benchmarks/bench_all_ops.py", "--old", python, "--json", stored, *others)


if __name__ == "__main__":
    main()

"""Runs every code block of a Markdown file.

Usage: python .ci/readme_blocks.py README.md. Bash blocks run in the project's folder, in order, with this interpreter's
folder first on PATH; then all python blocks run as one session in a scratch folder. A block after the line
`<!-- not run: reason -->` is reported with its reason and not run; other languages (text, json, …) are only listed.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.*?) -->\n+)?```(?P<language>\w*)\n(?P<body>.*?)```", re.DOTALL)


def run_python(blocks: list[str], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "blocks.py")
        script.write_text("\n".join(blocks), encoding="utf-8")
        print(f"{name}: running {len(blocks)} python blocks", flush=True)
        subprocess.run([sys.executable, script], cwd=folder, check=True)


def run_bash(body: str, name: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    print(f"{name}: running bash block\n{body}", end="", flush=True)
    subprocess.run(["bash", "-euo", "pipefail", "-c", body], cwd=ROOT, env=os.environ | {"PATH": path}, check=True)


def main(name: str) -> None:
    python_blocks = []
    for match in BLOCK.finditer(Path(name).read_text(encoding="utf-8")):
        first_line = match["body"].partition("\n")[0]
        if match["reason"]:
            print(f"{name}: not run ({match['reason']}): {first_line}")
        elif match["language"] == "python":
            python_blocks.append(match["body"])
        elif match["language"] in ("bash", "sh"):
            run_bash(match["body"], name)
        else:
            print(f"{name}: shown only ({match['language'] or 'no language'}): {first_line}")
    if python_blocks:
        run_python(python_blocks, name)


main(sys.argv[1])

"""Copies what notebooks/04_mixture_of_experts.ipynb measured: plots to docs/images, figures into docs/moe.md.

make notebooks && python benchmarks/moe_pictures.py
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from _harness import ROOT, write_block

NOTEBOOK = ROOT / "notebooks" / "04_mixture_of_experts.ipynb"
PAGE = ROOT / "docs" / "moe.md"
# What a cell's source contains: the name of its picture, or the mark of the block that shows what it printed.
PICTURES = {
    "experts of layer 1 by load": "moe_balance.png",
    "ProgressiveExperts(model, plan)": "moe_progressive.png",
    "chosen together, as they are": "moe_groups.png",
    "executed share of the FLOPs": "moe_work.png",
}
PRINTED = {
    "runs[name] = model": "notebook:balance",
    "bits_limited_to(used)": "notebook:groups",
    "executed share of the FLOPs": "notebook:work",
}


def outputs(cells: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    found = [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and text in "".join(cell["source"])]
    if len(found) != 1:
        raise SystemExit(f"{NOTEBOOK.name}: {len(found)} cells contain {text!r}, expected one")
    return list(found[0])


def picture(found: list[dict[str, Any]]) -> bytes:
    return base64.b64decode(next(o["data"]["image/png"] for o in found if "image/png" in o.get("data", {})))


def printed(found: list[dict[str, Any]]) -> str:
    return "".join("".join(o["text"]) for o in found if o["output_type"] == "stream").strip("\n")


def main() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for text, name in PICTURES.items():
        path: Path = ROOT / "docs" / "images" / name
        path.write_bytes(picture(outputs(cells, text)))
        print(f"{path}: {path.stat().st_size} bytes")
    for text, mark in PRINTED.items():
        if not write_block(PAGE, mark, f"```text\n{printed(outputs(cells, text))}\n```"):
            raise SystemExit(f"{PAGE} has no place for {mark}")


if __name__ == "__main__":
    main()

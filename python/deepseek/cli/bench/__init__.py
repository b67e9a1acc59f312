"""``deepseek bench``: attention and mixtures of experts on this machine, beside PyTorch where there is one."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

import deepseek
from deepseek import _C
from deepseek.cli.bench.measure import QUIET, Bench, free_share
from deepseek.cli.bench.suites import suite
from deepseek.cli.report import note, size_text


def run_bench(name: str, full: bool, turns: int, only: str, as_json: bool) -> int:
    """Measures the suite ``name`` and prints a table; returns the exit code."""
    chosen = suite(name, full)
    threads = deepseek.get_num_threads()
    free = free_share(threads)
    if free < QUIET:
        note(f"other programs leave {free:.0%} of the time: the figures are rough, PyTorch's most of all")
    with Bench(chosen, threads, turns, full) as bench:
        version = bench.torch.version if bench.torch is not None else None
        about = {
            "suite": name,
            "version": deepseek.__version__,
            "isa": _C.build_info()["isa"],
            "threads": threads,
            "free": round(free, 2),
            "torch": version,
            "about": chosen.about,
        }
        rows = list(bench.run(only, lambda what: note(f"measuring: {what}")))
    if as_json:
        print(json.dumps({**about, "rows": rows}))
        return 0
    print(f"{chosen.about}\n{about['isa']}, {threads} threads, PyTorch {version or f'missing: {bench.without}'}")
    _print(rows)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table("what", "ours", "beside", "theirs", "result", "goal", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.columns[2].justify = "left"
    before = None
    for row in rows:
        what = "" if row["what"] == before else row["what"]
        before = row["what"]
        table.add_row(what, _shown(row, "ours"), row["peer"], _shown(row, "theirs"), _result(row), _goal(row))
    Console(width=max(120, Console().width), soft_wrap=False).print(table)
    for why in dict.fromkeys(row["why"] for row in rows if "why" in row):
        print(f"not compared: {', '.join(row['what'] for row in rows if row.get('why') == why)}: {why}")


def _shown(row: dict[str, Any], side: str) -> str:
    if side not in row:
        return "-"
    value = row[side]
    if row["unit"] == "bytes":
        return size_text(value) if value >= 1e5 else f"{value:,.0f} B"
    return f"{value:.2f}" if row["unit"] == "power" else _duration(value)


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _result(row: dict[str, Any]) -> str:
    if "selector_share" in row:
        return f"selector {row['selector_share']:.0%}"
    return "-" if "ratio" not in row else f"{row['ratio']:.3g}x"


def _goal(row: dict[str, Any]) -> str:
    if "goal" not in row:
        return ""
    return f"{'≤' if row.get('at_most') else '≥'} {row['goal']:g}{'' if row['met'] else ', missed'}"

"""Draws docs/images/demo.svg: the loss of a run like `deepseek demo` and what the model writes at its end.

    make picture

The run is as long in steps, not in seconds, so that the picture does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

from _harness import ROOT
from deepseek.cli.generation import decode, sample_bytes
from deepseek.train import TrainConfig, Trainer, bits_per_byte, gzip_bits_per_byte, load_corpus, xz_bits_per_byte

PROMPT = "class Queue:\n    def __init__(self"
WIDTH, HEIGHT = 960, 400
LEFT, TOP, RIGHT, BOTTOM = 56, 56, 500, 350  # of the curve
TEXT_LEFT, LINES, COLUMNS = 540, 20, 56
LOW, HIGH = 1.0, 5.0  # bits per byte shown
COLOURS = {"loss": "#2563eb", "faint": "#bfdbfe", "gzip": "#9ca3af", "xz": "#6b7280", "ink": "#111827"}


def place(step: float, bits: float, steps: int) -> tuple[float, float]:
    x = LEFT + (RIGHT - LEFT) * step / steps
    y = BOTTOM - (BOTTOM - TOP) * (bits - LOW) / (HIGH - LOW)
    return round(x, 1), round(y, 1)


def line(values: list[float], colour: str, width: float) -> str:
    inside = [(i + 1, v) for i, v in enumerate(values) if LOW <= v <= HIGH]
    points = " ".join("{},{}".format(*place(i, v, len(values))) for i, v in inside)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>'


def label(x: float, y: float, text: str, colour: str = COLOURS["ink"], anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def smooth(values: list[float], keep: float = 0.97) -> list[float]:
    result, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(mean / weight)
    return result


def parts(losses: list[float], marks: dict[str, float], sample: str) -> Iterator[str]:
    """The elements of the picture. Curves are thinned to what the eye can tell apart."""
    every = max(1, len(losses) // 400)
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff" stroke="#e5e7eb"/>'
    yield label(LEFT, 30, "training loss, bits for each byte of text (lower is better)", more='font-weight="600"')
    for bits in (1, 2, 3, 4, 5):
        x, y = place(0, bits, 1)
        yield f'<line x1="{x}" y1="{y}" x2="{RIGHT}" y2="{y}" stroke="#f3f4f6"/>'
        yield label(x - 10, y + 4, str(bits), anchor="end")
    for share in (0, 0.5, 1):
        x, _ = place(share, 1, 1)
        yield label(x, BOTTOM + 20, f"step {round(share * len(losses)):,}", anchor="middle")
    yield line(losses[::every], COLOURS["faint"], 1)
    yield line(smooth(losses)[::every], COLOURS["loss"], 2.2)
    for row, (name, bits) in enumerate(marks.items()):
        _, y = place(0, bits, 1)
        colour = COLOURS.get(name.split()[0], COLOURS["loss"])
        yield f'<line x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}" stroke="{colour}" stroke-dasharray="5 4"/>'
        yield label(RIGHT, TOP + 14 + 18 * row, f"- - {name}: {bits:.2f} on unseen files", colour, "end")
    yield label(TEXT_LEFT, 30, "what it then writes (the first two lines are given)", more='font-weight="600"')
    for row, text in enumerate(sample.splitlines()[:LINES]):
        colour = COLOURS["xz"] if row < PROMPT.count("\n") + 1 else COLOURS["ink"]
        cut = text if len(text) <= COLUMNS else text[: COLUMNS - 1] + "…"
        more = 'xml:space="preserve" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11.5"'
        yield label(TEXT_LEFT, 56 + 16 * row, cut, colour, more=more)


def draw(losses: list[float], marks: dict[str, float], sample: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="13">'
    )
    return "\n".join([head, *parts(losses, marks, sample), "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2400, help="steps of training")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "demo.svg", help="file to write")
    options = parser.parse_args()
    base = TrainConfig()
    config = replace(base, run=replace(base.run, steps=options.steps))
    corpus = load_corpus()
    trainer = Trainer(config, corpus)
    losses = []
    for progress in trainer.steps():
        losses.append(progress.bits_per_byte)
        if progress.step % 100 == 0:
            print(f"step {progress.step}: {losses[-1]:.3f} bits per byte", flush=True)
    held_out = corpus.held_out[: config.data.eval_bytes]
    marks = {
        "gzip -9": gzip_bits_per_byte(held_out.tobytes()),
        "xz -9": xz_bits_per_byte(held_out.tobytes()),
        "this model": bits_per_byte(trainer.model, held_out),
    }
    trainer.model.eval()
    sample = PROMPT + decode(bytes(sample_bytes(trainer.model, PROMPT.encode(), 600, 0.7, 0, 0.95, config.run.seed)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(draw(losses, marks, sample), encoding="utf-8")
    print(f"{options.out}: {marks}\n{sample}")


if __name__ == "__main__":
    main()

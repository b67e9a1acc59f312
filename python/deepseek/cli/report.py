"""Output: progress on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from deepseek.train import Progress

_UNITS = (("EB", 10**18), ("PB", 10**15), ("TB", 10**12), ("GB", 10**9), ("MB", 10**6))
_PLAIN_INTERVAL = 10.0  # seconds between lines where stderr is not a terminal


def error_line(message: str) -> None:
    """Prints ``message`` as one line on stderr."""
    print(f"deepseek: {' '.join(message.split())}", file=sys.stderr)


def note(message: str) -> None:
    """Prints a line about what is going on, on stderr."""
    print(message, file=sys.stderr, flush=True)


def print_table(title: str, rows: list[list[str]], numbers: bool = True) -> None:
    """Prints rows of a name and a value on stdout; numbers are aligned to the right."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=max(80, Console().width), soft_wrap=True).print(table)


def size_text(count: float) -> str:
    """Returns a byte count in MB (10^6), or in the larger unit that it fills."""
    unit, scale = next(((unit, scale) for unit, scale in _UNITS if count >= scale), _UNITS[-1])
    return f"{count / scale:,.1f} {unit}"


def files_text(count: int) -> str:
    """Returns a number of files in words."""
    return "1 file" if count == 1 else f"{count:,} files"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


class TrainingDisplay:
    """Shows step, loss, speed and time left: a live bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._bars = Bars(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=False,
        )
        self._task = self._bars.add_task("", total=1.0)
        self._loss: float | None = None
        self._speed: float | None = None
        self._printed = 0.0

    def __enter__(self) -> TrainingDisplay:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Takes in one step."""
        self._loss = _smooth(self._loss, progress.bits_per_byte)
        self._speed = _smooth(self._speed, progress.tokens / max(progress.seconds, 1e-9))
        text = (
            f"step {progress.step}  loss {self._loss:.3f} bits/byte  {self._speed:,.0f} bytes/s  "
            f"{_clock(progress.seconds_left)} left"
        )
        if progress.experts is not None:
            text += f"  busiest expert {progress.experts:.2f}x the mean"
        if self._live:
            self._bars.update(self._task, completed=progress.fraction, description=text)
            return
        now = time.monotonic()
        if now - self._printed >= _PLAIN_INTERVAL or progress.fraction >= 1.0:
            self._printed = now
            note(text)


def _smooth(mean: float | None, value: float) -> float:
    return value if mean is None else 0.95 * mean + 0.05 * value

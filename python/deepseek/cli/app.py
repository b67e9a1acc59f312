"""Commands, their options, and one place that turns expected failures into one sentence and an exit code."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from deepseek import _C
from deepseek.cli.report import error_line


class _Commands(typer.core.TyperGroup):
    """Lists the commands with their whole first sentence, where the usual one cuts it to the width of the screen."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, " ".join((self.commands[name].help or "").split("\n\n")[0].split())) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    name="deepseek",
    cls=_Commands,
    help="DeepSeek-style models on CPUs.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Threads = Annotated[int | None, typer.Option(min=1, help="Threads to use; default: what the process may use.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting, e.g. --set optim.lr=0.002.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings and text, print parameters and memory, then stop.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from deepseek.version import __version__

        print(f"deepseek {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """DeepSeek-style models on CPUs."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=1.0, help="Training time; evaluation and sample add a few.")] = 100.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoint; default: runs/demo, or the next free.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text the sample continues.")] = "class Queue:\n    def __init__(self",
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, data order and sample.")] = 0,
    threads: Threads = None,
    settings: Settings = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> int:
    """Train a small language model from scratch on Python's standard library, in two minutes.

    Example: deepseek demo --seconds 100
    """
    from deepseek.cli.training import run_demo, use_threads

    use_threads(threads)
    return run_demo(seconds, out, prompt, seed, settings or [], json, dry_run)


@app.command()
def train(
    config: Annotated[
        Path | None,
        typer.Argument(help="Settings: .toml or .json with [model] [data] [optim] [run]; or a run's folder."),
    ] = None,
    config_option: Annotated[
        Path | None, typer.Option("--config", metavar="CONFIG", help="The same, as an option.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the checkpoints; a run found there is continued. Default: runs/train."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Short for --set run.seed=N.")] = None,
    threads: Threads = None,
    settings: Settings = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> int:
    """Train a language model on bytes; run the same command again to continue after Ctrl-C or a crash.

    The file's settings are explained by deepseek config. A finished run is extended by more run.steps.

    \b
    Examples:
      deepseek train config.toml --out runs/mine
      deepseek train runs/mine --set run.steps=5000
      deepseek train --out runs/next --set run.init_from=runs/mine
    """
    from deepseek.cli.training import run_train, use_threads

    if config is not None and config_option is not None:
        raise typer.BadParameter(f"give the settings once, not {config} and --config {config_option}")
    use_threads(threads)
    overrides = [*(settings or []), *([f"run.seed={seed}"] if seed is not None else [])]
    return run_train(config or config_option, out, overrides, json, dry_run)


@app.command()
def generate(
    checkpoint: Annotated[
        Path, typer.Option(help="A run's folder (its newest checkpoint is used) or a step-N folder.")
    ],
    prompt: Annotated[str | None, typer.Option(help="Text to continue.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="File to continue.")] = None,
    max_bytes: Annotated[int, typer.Option(min=0, help="Bytes to generate.")] = 400,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the most likely byte that starts no endless loop.")
    ] = 0.7,
    top_k: Annotated[int, typer.Option(min=0, help="Only the k most likely bytes; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the most likely bytes up to this probability.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    threads: Threads = None,
) -> int:
    """Continue a text with a trained model.

    Example: deepseek generate --checkpoint runs/demo --prompt "class Queue:"
    """
    from deepseek.cli.generation import run_generate
    from deepseek.cli.training import use_threads

    use_threads(threads)
    return run_generate(checkpoint, prompt, prompt_file, max_bytes, temperature, top_k, top_p, seed)


class _Suite(enum.StrEnum):
    attention = "attention"
    moe = "moe"


@app.command()
def bench(
    suite: Annotated[_Suite, typer.Argument(help="What to measure.")],
    full: Annotated[bool, typer.Option("--full", help="Go to 65,536 tokens: many minutes, several GB.")] = False,
    turns: Annotated[int, typer.Option(min=1, help="How often each case is timed; the median counts.")] = 3,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only the rows that contain this.")] = "",
    threads: Threads = None,
    json: Json = False,
) -> int:
    """Measure attention or mixtures of experts on this machine, beside PyTorch where it is installed.

    Ratios above 1 say how many times as fast as the other one ours is. The environment variable
    DEEPSEEK_BENCH_TORCH_PYTHON names a Python that has PyTorch (and transformers), if this one does not.

    \b
    Examples:
      deepseek bench attention
      deepseek bench moe --only training --json
    """
    from deepseek.cli.bench import run_bench
    from deepseek.cli.training import use_threads

    use_threads(threads)
    return run_bench(suite.value, full, turns, only, json)


@app.command()
def config(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/configuration.md.")] = False,
) -> int:
    """Print every setting of deepseek train with its default and meaning, as a file to start from.

    Example: deepseek config > mine.toml
    """
    from deepseek.train.settings import as_page, as_toml

    sys.stdout.write(as_page() if markdown else as_toml())
    return 0


@app.command()
def doctor(json: Json = False) -> int:
    """Print version, compiler, instruction set, libraries and threading, and which extras are present."""
    from deepseek.cli.doctor import run_doctor

    return run_doctor(json)


def run(arguments: list[str]) -> int:
    """Runs one command; expected failures become one line on stderr."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="replace")  # generated text may hold what an ASCII terminal cannot show
    try:
        _C.build_info()
    except ValueError as error:  # an environment variable such as DEEPSEEK_NUM_THREADS
        error_line(str(error))
        return 2
    try:
        result = app(arguments, prog_name="deepseek", standalone_mode=False)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout has gone, as with `| head`
        sys.stderr.close()
        return 1
    except Exception as error:
        return _explain(error)
    if result == 130:
        print("interrupted", file=sys.stderr)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """Prints an expected failure; anything else is a bug and keeps its traceback."""
    from deepseek.cli.training import Interrupted
    from deepseek.train import CheckpointError, ConfigError, DataError

    usage = getattr(error, "format_message", None)  # typer's usage errors, whichever click they derive from
    if callable(usage):
        command = getattr(getattr(error, "ctx", None), "command_path", "deepseek")
        error_line(f"{usage().rstrip('.')}; see {command} --help")
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, Interrupted):
        error_line(str(error))
        return error.exit_code
    if isinstance(error, ConfigError):
        error_line(str(error))
        return 2
    if isinstance(error, CheckpointError | DataError | FloatingPointError):
        error_line(str(error))
        return 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        error_line(f"{where}{error.strerror or error}")
        return 1
    if isinstance(error, MemoryError):
        error_line(f"not enough memory: {error or 'allocation failed'}")
        return 1
    raise error

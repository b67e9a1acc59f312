"""What the command line finds out before it trains, and what it says where a run ends early."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import cli_helpers
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from deepseek.cli import main
from deepseek.train import newest

folder = cli_helpers.folder

BAD_STARTS = [
    ("data.path=nowhere", 1, "data.path: nowhere does not exist"),
    ("data.path=empty", 1, "it holds no files at all"),
    ("data.path=short.txt", 1, "the training text has 18 bytes"),
    ("data.suffix=.xyz", 1, "it holds 120 ending in '.py'"),
    ("run.init_from=nowhere", 1, "run.init_from: nowhere does not exist"),
    ("run.init_from=text", 1, "run.init_from: text holds no usable checkpoint: there is no folder step-N in it"),
    ("run.init_from=short.txt", 1, "run.init_from: short.txt"),
    ("optim.lr=inf", 2, "optim.lr must be above 0 and at most 100, got inf"),
]


@pytest.mark.parametrize(("setting", "code", "message"), BAD_STARTS)
@pytest.mark.parametrize("option", [["--dry-run"], ["--out", "a/b"]])
def test_a_bad_start_is_found_at_once_and_leaves_nothing(folder, capsys, setting, code, message, option):
    before = sorted(folder.rglob("*"))
    assert main(["train", "small.toml", "--set", setting, *option]) == code
    output = capsys.readouterr()
    assert message in output.err and not output.out
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_checks_the_run_it_would_continue(folder, capsys):
    assert main(["train", "small.toml", "--out", "run"]) == 0
    assert main(["train", "run", "--dry-run", "--set", "optim.lr=0.5"]) == 1
    assert "the steps so far were taken with it" in capsys.readouterr().err
    assert main(["train", "run", "--dry-run", "--set", "run.steps=20"]) == 0
    assert main(["train", "run/step-12"]) == 2
    assert f"run/step-12 is one checkpoint; the run to continue is {folder / 'run'}" in capsys.readouterr().err


def test_more_memory_than_there_is_is_remarked_on(folder, capsys):
    assert main(["train", "small.toml", "--dry-run", "--set", "run.batch=1000000000"]) == 0
    output = capsys.readouterr()
    assert re.search(r"needs about \d+\.\d TB of memory, the machine has [\d.,]+ \wB; lower run.batch", output.err)
    assert "TB" in output.out
    assert main(["train", "small.toml", "--dry-run"]) == 0
    assert "of memory" not in capsys.readouterr().err


def test_a_damaged_run_is_told_of_in_the_same_words_everywhere(folder, capsys):
    assert main(["train", "small.toml", "--out", "run"]) == 0
    for weights_file in folder.glob("run/*/model.ds"):
        weights_file.write_bytes(b"x")
    words = "run holds no usable checkpoint: step-12, step-9 damaged or incomplete (files do not match manifest.json)"
    for command in (["generate", "--checkpoint", "run"], ["train", "run"], ["train", "--set", "run.init_from=run"]):
        assert main(command) == 1
        assert words in capsys.readouterr().err
    assert main(["generate", "--checkpoint", "run/step-9"]) == 1
    assert "run/step-9 holds no usable checkpoint: step-9 damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limits", "way"),
    [
        (["run.steps=3"], "; --set run.steps=N extends it"),
        (
            ["run.steps=0", "run.seconds=1e-6"],
            "; --set run.seconds=N (or --set run.steps=N --set run.seconds=0) extends it",
        ),
    ],
)
def test_the_way_to_extend_a_run_names_the_limit_that_ended_it(folder, capsys, limits, way):
    options = [x for limit in limits for x in ("--set", limit)]
    assert main(["train", "small.toml", "--out", "run", *options]) == 0
    capsys.readouterr()
    assert main(["train", "run"]) == 0
    assert way in capsys.readouterr().err
    if "run.seconds=1e-6" in limits:
        assert main(["train", "run", "--set", "run.steps=20"]) == 2
        assert (
            f"run.seconds = 1e-06 would end this run before the 1 steps in 0 s that it has{way}"
            in capsys.readouterr().err
        )
        assert main(["train", "run", "--set", "run.steps=4", "--set", "run.seconds=0"]) == 0
        assert newest(folder / "run").step == 4


def test_text_from_a_larger_vocabulary_is_bytes(folder, capsys):
    assert main(["train", "small.toml", "--out", "run", "--set", "model.vocab_size=1000", "--set", "run.steps=1"]) == 0
    assert "try: deepseek generate --checkpoint run\n" in capsys.readouterr().out  # no Python prompt for one's own text
    for temperature in ("0", "50"):
        assert main(["generate", "--checkpoint", "run", "--temperature", temperature, "--top-p", "1"]) == 0
        assert capsys.readouterr().out


def test_paths_may_begin_at_home(folder, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert main(["train", "small.toml", "--out", "run", "--set", "data.path=~/text"]) == 0
    assert main(["train", "small.toml", "--dry-run", "--set", "run.init_from=~/run"]) == 0
    assert f"text: {folder / 'text'}, " in capsys.readouterr().err


def test_an_interrupt_while_measuring_names_the_checkpoint(folder, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("deepseek.cli.training.bits_per_byte", interrupted)
    assert main(["train", "small.toml", "--out", "run"]) == 130
    assert "interrupted while measuring, after the last step; the checkpoint is run/step-12" in capsys.readouterr().err
    monkeypatch.setattr("deepseek.cli.generation._stream_bytes", interrupted)
    assert main(["generate", "--checkpoint", "run", "--prompt", "def"]) == 130
    output = capsys.readouterr()
    assert output.out == "def\n" and output.err == "interrupted\n"


@pytest.mark.parametrize("command", ["doctor", "--version", "demo"])
@pytest.mark.parametrize("value", ["abc", "0"])
def test_a_wrong_environment_is_one_sentence(command, value):
    done = subprocess.run(
        [sys.executable, "-m", "deepseek", command],
        check=False, capture_output=True, text=True, env={**os.environ, "DEEPSEEK_NUM_THREADS": value},
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f'deepseek: DEEPSEEK_NUM_THREADS must be a positive integer, got "{value}"\n'

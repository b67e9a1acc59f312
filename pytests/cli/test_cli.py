"""The command line as a user meets it: results, errors, exit codes, interruption and resuming."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cli_helpers
import deepseek
import pytest
from cli_helpers import CONFIG

pytest.importorskip("typer")
pytest.importorskip("rich")

from deepseek.cli import main
from deepseek.cli.doctor import cgroup_quota
from deepseek.train import TrainConfig, Trainer, find_checkpoint, load_config, load_corpus, newest, settings

folder = cli_helpers.folder


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deepseek.cli", *arguments],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def weights(run: Path, step: int) -> bytes:
    return (find_checkpoint(run / f"step-{step}").path / "model.ds").read_bytes()


def test_train_then_generate(folder, capsys):
    assert main(["train", "small.toml", "--out", "run", "--json"]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert result["steps"] == 12
    assert result["held_out_bytes"] == 300
    assert 0 < result["held_out_bits_per_byte"] < 9
    assert result["gzip_9_bits_per_byte"] > 0
    assert result["xz_9_bits_per_byte"] > 0
    assert "bytes/s" in output.err
    assert Path(result["checkpoint"]).name == "step-12"

    texts = []
    for seed in ("1", "1", "2"):
        command = ["generate", "--checkpoint", "run", "--prompt", "dé", "--max-bytes", "30", "--seed", seed]
        assert main([*command, "--temperature", "1.5"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0].startswith("dé")
    assert texts[0] == texts[1] != texts[2]

    assert main(["train", "small.toml", "--out", "run"]) == 0  # finished already: evaluates again
    assert "continuing from run/step-12" in capsys.readouterr().err.replace(os.sep, "/")


def test_demo_prints_the_comparison_and_a_checkpoint_that_generates(folder, capsys):
    settings = [f"model.{line}" for line in CONFIG.split("[data]")[0].splitlines() if "=" in line]
    arguments = ["demo", "--seconds", "1", *(x for s in [*settings, "data.path=text"] for x in ("--set", s))]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    for expected in ("gzip -9", "xz -9", "this model", "sample:", "def __init__(self", "deepseek generate"):
        assert expected in first
    assert main([*arguments, "--json"]) == 0  # a second demo takes the next free folder
    result = json.loads(capsys.readouterr().out)
    assert Path(result["checkpoint"]).parent.name == "demo-2"
    assert result["sample"].startswith("class Queue:\n    def __init__(self")
    assert main(["generate", "--checkpoint", "runs/demo", "--max-bytes", "5"]) == 0
    assert main([*arguments, "--out", "runs/demo"]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_dry_run_prints_parameters_and_memory_and_writes_nothing(folder, capsys):
    for command in (["train", "small.toml"], ["demo"]):
        assert main([*command, "--dry-run", "--json"]) == 0
        size = json.loads(capsys.readouterr().out)
        assert size["weights_bytes"] == 4 * size["parameters"]
        assert size["optimizer_bytes"] == 8 * size["parameters"]
        assert size["total_bytes"] > 16 * size["parameters"]
    assert main(["train", "small.toml", "--dry-run"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["unknown"], 2, "unknown"),
        (["train", "--sed", "1"], 2, "see deepseek train --help"),
        (["train", "absent.toml"], 2, "absent.toml"),
        (["train", "small.toml", "--set", "optim.lr=x"], 2, "optim.lr must be a number"),
        (["train", "small.toml", "--config", "small.toml"], 2, "give the settings once"),
        (["train", "small.toml", "--set", "optim.speed=1"], 2, "unknown setting"),
        (["train", "small.toml", "--threads", "0"], 2, "threads"),
        (["train", "small.toml", "--seed", "-1"], 2, "seed"),
        (["train", "small.toml", "--no-such-option"], 2, "no-such-option"),
        (["train", "small.toml", "--set", "data.path=nowhere"], 1, "data.path: nowhere does not exist"),
        (["train", "small.toml", "--set", "data.path=empty.txt"], 1, "data.path: empty.txt is empty"),
        (["train", "small.toml", "--set", "data.path=one.txt"], 1, "data.path: one.txt has 1 bytes, too few"),
        (["train", "small.toml", "--set", "data.path=short.txt"], 1, "data.path: the training text has 18 bytes"),
        (["train", "small.toml", "--set", "data.path=empty"], 1, "it holds no files at all"),
        (["train", "small.toml", "--set", "data.suffix=.c"], 1, "it holds 120 ending in '.py'"),
        (["train", "small.toml", "--set", "data.suffix=/**/x"], 1, "ending in '/**/x'"),
        (["train", "small.toml", "--set", "data.held_out=1e-9"], 1, "data.held_out = 1e-09 leaves 120 to train on"),
        (["train", "small.toml", "--set", "data.path=few"], 1, "data.path: few has too few files"),
        (["train", "text"], 2, "text is a folder without checkpoints"),
        (["train", "small.toml", "--set", "run.init_from=nowhere"], 1, "run.init_from: nowhere does not exist"),
        (["train", "small.toml", "--set", "run.init_from=text"], 1, "run.init_from: text holds no usable checkpoint"),
        (["train", "small.toml", "--set", "run.init_from=short.txt"], 1, "run.init_from: short.txt"),
        (["train", "small.toml", "--out", "small.toml"], 1, "small.toml"),
        (["train", "small.toml", "--set", "model.context=50000"], 1, "context"),
        (["demo", "--seconds", "0"], 2, "seconds"),
        (["generate"], 2, "checkpoint"),
        (["generate", "--checkpoint", "absent"], 1, "absent does not exist"),
        (["generate", "--checkpoint", "text"], 1, "no usable checkpoint"),
        (["generate", "--checkpoint", "text", "--top-p", "2"], 2, "top_p"),
        (["generate", "--checkpoint", "text", "--temperature", "-1"], 2, "temperature"),
        (["generate", "--checkpoint", "text", "--prompt", "a", "--prompt-file", "b"], 2, "not both"),
        (["generate", "--checkpoint", "text", "--prompt-file", "absent.txt"], 1, "absent.txt"),
    ],
)
def test_wrong_input_gives_one_sentence_and_a_code(folder, capsys, arguments, code, message):
    assert main(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    last = output.err.strip().splitlines()[-1]
    assert last.startswith("deepseek: ")
    assert message in last.lower() or message in last
    assert "Traceback" not in output.err


def test_other_settings_do_not_overwrite_a_run(folder, capsys):
    assert main(["train", "small.toml", "--out", "run"]) == 0
    before = weights(folder / "run", 12)
    assert main(["train", "small.toml", "--out", "run", "--set", "optim.lr=0.5"]) == 1
    assert "optim.lr" in capsys.readouterr().err
    assert weights(folder / "run", 12) == before


def test_kill_9_and_resume_gives_the_weights_of_an_uninterrupted_run(folder):
    length = ["--set", "run.steps=120", "--set", "run.checkpoint_every=5"]
    assert main(["train", "small.toml", "--out", "whole", *length]) == 0
    for kill_after in (5, 40, 75):
        process = start("train", "small.toml", "--out", "parts", *length, cwd=folder)
        wait_for(lambda: (found := newest(folder / "parts")) is not None and found.step >= kill_after, process)  # noqa: B023
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert newest(folder / "parts") is not None
    assert main(["train", "small.toml", "--out", "parts", *length]) == 0
    assert weights(folder / "parts", 120) == weights(folder / "whole", 120)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_saves_and_the_same_command_continues(folder, number, code):
    length = ["--set", "run.steps=100000", "--set", "run.checkpoint_every=100000"]
    process = start("train", "small.toml", "--out", "run", *length, cwd=folder)
    seen = process.stderr.readline() + process.stderr.readline() + process.stderr.readline()
    assert "step 1 " in seen
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    assert "the same command continues it" in err.strip().splitlines()[-1]
    saved = newest(folder / "run")
    assert saved is not None
    assert saved.step >= 1


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"version", "python", "build", "machine", "extras", "environment"} <= facts.keys()
    assert {"version", "compiler", "isa", "num_threads", "num_threads_reason"} <= facts["build"].keys()
    assert facts["build"]["num_threads"] >= 1
    assert facts["machine"]["cpus_allowed"] == len(os.sched_getaffinity(0))
    assert facts["extras"]["numpy"]
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for expected in ("compiler", "isa", "num threads reason", "cgroup cpu quota", "extra: rich"):
        assert expected in text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n1:memory:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
    ],
)
def test_cgroup_quota(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroup_quota(tmp_path) == expected


def test_a_missing_extra_is_named_with_its_install_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["doctor"]) == 1
    error = capsys.readouterr().err
    assert error == "deepseek: the command line needs typer: pip install typer rich\n"


def run_module(module: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True, capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout


def test_python_m_deepseek_and_the_version():
    assert run_module("deepseek", "--version") == f"deepseek {deepseek.__version__}\n"
    assert run_module("deepseek.cli", "doctor", "--json").startswith("{")


@pytest.mark.parametrize("width", ["30", "80", "300"])
def test_the_command_alone_shows_help_with_whole_sentences(width):
    text = " ".join(run_module("deepseek", COLUMNS=width, TERMINAL_WIDTH=width).split())
    for command in ("demo", "train", "generate", "config", "doctor"):
        assert f" {command} " in text
    for sentence in ("in two minutes.", "after Ctrl-C or a crash.", "as a file to start from.", "extras are present."):
        assert sentence in text
    assert "..." not in text.partition("Commands:")[2]


# --- continuing, extending, starting from weights ---------------------------------------------------------------------
def test_a_finished_run_is_extended_exactly(folder, capsys):
    """Two ways to 20 steps from a run of 12 give the same weights: at once, and stopped in between."""
    assert main(["train", "small.toml", "--out", "run"]) == 0
    shutil.copytree("run", "other")
    assert main(["train", "run", "--set", "run.steps=20"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "continuing from run/step-12" in said.replace(os.sep, "/")
    assert "from 12 steps to 20 steps" in said and "learning rate goes on as in a run of the new length" in said
    assert (
        json.loads((folder / "run" / "step-20" / "manifest.json").read_text())["info"]["config"]["run"]["steps"] == 20
    )
    config = load_config("small.toml", ["run.steps=20"])
    trainer = Trainer(config, load_corpus("text"))
    trainer.restore_newest(Path("other"))
    assert trainer.step == 12
    for _ in range(3):
        trainer.train_step()
    trainer.save(Path("other"), "train")
    assert main(["train", "other"]) == 0
    assert weights(folder / "run", 20) == weights(folder / "other", 20)
    assert main(["train", "run"]) == 0
    assert re.search(r"ended, after 20 steps in \d+ s; --set run.steps=N extends it", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (["run.steps=5"], 2, "run.steps = 5 would end this run before the 12 steps"),
        (["run.steps=20", "run.seconds=1e-6"], 2, "run.seconds = 1e-06 would end this run"),
        (["run.batch=3"], 1, "run.batch = 2, not 3, and cannot go on with another: the order of the text"),
        (["optim.lr=0.5"], 1, "the steps so far were taken with it"),
        (["model.dim=32"], 1, "the weights belong to such a model"),
        (["data.suffix=.txt", "data.path=one.txt"], 1, "one.txt has 1 bytes"),
        (["data.path=README", "run.steps=20"], 1, "data.path: README does not exist"),
    ],
)
def test_what_a_continued_run_cannot_change(folder, capsys, changes, code, message):
    assert main(["train", "small.toml", "--out", "run"]) == 0
    before = weights(folder / "run", 12)
    assert main(["train", "run", *(x for change in changes for x in ("--set", change))]) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("deepseek: ") and message in last
    assert weights(folder / "run", 12) == before and not (folder / "run" / "step-20").exists()


def test_a_folder_and_out_together_are_refused(folder, capsys):
    assert main(["train", "text", "--out", "run"]) == 2
    assert "names another one" in capsys.readouterr().err


def test_warm_start_takes_the_weights_alone(folder, capsys):
    assert main(["train", "small.toml", "--out", "first", "--set", "model.dim=8"]) == 0
    state = find_checkpoint(Path("first")).load("model")
    deepseek.save(state, "weights.ds")
    deepseek.io.safetensors.save_file(dict(state), "weights.safetensors")
    final = {}
    for number, source in enumerate(["first", "first/step-12", "weights.ds", "weights.safetensors"]):
        out = f"next{number}"
        # The file of settings says dim = 16; without a [model] table the shape comes from the source.
        shape = [] if "first" in source else [x for s in shape_settings(8) for x in ("--set", s)]
        command = ["train", "--out", out, *shape, "--set", "data.path=text", "--set", "run.steps=2"]
        capsys.readouterr()
        assert (
            main([*command, "--set", "run.batch=2", "--set", "data.eval_bytes=100", "--set", f"run.init_from={source}"])
            == 0
        )
        assert f"starting from the weights of {source}" in capsys.readouterr().err
        final[source] = find_checkpoint(Path(out)).load("model")
    assert all(same(found, final["first"]) for found in final.values())
    shutil.rmtree("first")
    assert main(["train", "next0", "--set", "run.steps=3"]) == 0  # the source is not needed any more
    assert main(["train", "small.toml", "--out", "new", "--set", "run.init_from=next0"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "run.init_from: model.dim = 16, next0 has 8; without such settings" in error
    assert main(["train", "small.toml", "--out", "new", "--set", "run.init_from=weights.ds"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(
        r"weights of weights.ds do not fit the model: '\S+' has shape .*8\S*, not .*, and \d+ more$", error
    )
    assert not Path("new").exists()


def shape_settings(dim: int) -> list[str]:
    lines = [line.replace(" ", "") for line in CONFIG.split("[data]")[0].splitlines() if "=" in line]
    return [f"model.{line}" for line in lines if not line.startswith("dim")] + [f"model.dim={dim}"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(deepseek.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("prompt", [[], ["--prompt", "def f"]])
def test_greedy_text_has_no_end_and_no_loop(folder, capsys, prompt):
    """The model of a few steps would repeat itself, or end the file at once."""
    assert main(["train", "small.toml", "--out", "run", "--set", "run.steps=300"]) == 0
    capsys.readouterr()
    for temperature in ("0", "0.7"):
        assert main(["generate", "--checkpoint", "run", "--temperature", temperature, *prompt]) == 0
        text = capsys.readouterr().out
        assert len(text.encode()) >= 400 and "\0" not in text and text.strip()
        if temperature == "0":
            assert len(set(text)) > 5
            for start in range(len(text) - 48):
                assert len(set(text[start : start + 48])) > 1


# --- settings ---------------------------------------------------------------------------------------------------------
def test_every_setting_is_documented():
    page = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == settings.as_page(), "out of date: deepseek config --markdown > docs/configuration.md"
    names = {setting.name for setting in settings.all_settings()}
    config = TrainConfig().to_dict()
    assert names == {f"{section}.{key}" for section, keys in config.items() for key in keys}
    assert all(len(setting.doc) > 10 and f"`{setting.name}`" in page for setting in settings.all_settings())
    assert set(settings._FREE) <= names


def test_deepseek_config_prints_a_file_of_the_defaults(folder, capsys):
    assert main(["config"]) == 0
    (folder / "all.toml").write_text(capsys.readouterr().out)
    assert load_config(folder / "all.toml") == TrainConfig()
    assert main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out == settings.as_page()


def test_text_that_is_not_utf8_is_remarked_on(folder, capsys):
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 200)
    assert main(["train", "small.toml", "--out", "run", "--set", "data.path=latin.txt", "--set", "run.steps=1"]) == 0
    assert "data.path: 1 files of latin.txt are not UTF-8 text, they are read as bytes" in capsys.readouterr().err


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("demo", "train", "generate", "config", "doctor"):
        assert command in text
        assert main([command, "--help"]) == 0
        assert "--" in capsys.readouterr().out

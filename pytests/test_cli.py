"""The command line as a user meets it: results, errors, exit codes, interruption and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from deepseek.cli import main
from deepseek.cli.doctor import cgroup_quota
from deepseek.train import find_checkpoint, newest

CONFIG = """
[model]
dim = 16
n_layers = 1
n_heads = 2
context = 16
n_routed_experts = 3
top_k = 2
expert_dim = 8
ngram_orders = [2, 3]
ngram_rows = 32
ngram_dim = 4
[data]
path = "text"
eval_bytes = 300
[run]
steps = 12
batch = 2
checkpoint_every = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with some text and a configuration for it."""
    for number in range(120):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 4)
    (tmp_path / "small.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    assert "tokens/s" in output.err
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
        ([], 2, "missing command"),
        (["unknown"], 2, "unknown"),
        (["train", "absent.toml"], 2, "absent.toml"),
        (["train", "small.toml", "--set", "optim.lr=x"], 2, "optim.lr must be a number"),
        (["train", "small.toml", "--set", "optim.speed=1"], 2, "unknown setting"),
        (["train", "small.toml", "--threads", "0"], 2, "threads"),
        (["train", "small.toml", "--seed", "-1"], 2, "seed"),
        (["train", "small.toml", "--no-such-option"], 2, "no-such-option"),
        (["train", "small.toml", "--set", "data.path=nowhere"], 1, "nowhere"),
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


def test_a_missing_extra_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(ImportError, match=r'pip install "deepseek\[cli\]"'):
        main(["doctor"])


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("demo", "train", "generate", "doctor"):
        assert command in text
        assert main([command, "--help"]) == 0
        assert "--" in capsys.readouterr().out

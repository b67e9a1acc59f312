"""The demo's model, trained from the same weights on the same bytes, has the same loss at every step in both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = 200
CLOSE = 0.01  # relative; measured: the two drift apart through rounding, and through experts chosen at a tie


@pytest.mark.parity
def test_the_loss_is_the_same_at_every_step(tmp_path: Path) -> None:
    def losses(library: str) -> list[float]:
        script = Path(__file__).with_name("train_curve.py")
        command = [sys.executable, str(script), library, str(tmp_path / "weights.npz"), str(STEPS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    theirs = losses("torch")
    ours = losses("deepseek")
    apart = [abs(a - b) / b for a, b in zip(ours, theirs, strict=True)]
    assert len(ours) == STEPS and ours[-1] < 0.75 * ours[0]
    assert max(apart) <= CLOSE, f"{max(apart):.2%} apart at step {apart.index(max(apart)) + 1}"

"""Training in several real processes (gloo) is the same training."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
sys.path[:0] = [".", "tests"]
from test_training import _training
from captioning import distributed
from captioning.training.phases import Phase

examples, work, out = map(Path, sys.argv[1:])
torch.set_num_threads(1)
losses, step = [], Phase.step

def told(self, batch, moment):
    if len(losses) == int(os.environ.get("DIE_AT", -1)):
        os.kill(os.getpid(), signal.SIGKILL)
    loss = step(self, batch, moment)
    total, number = distributed.add([float(loss.reported), loss.num_reported])
    losses.append(total / number)
    return loss

Phase.step = told
with distributed.together():
    training = _training(examples, work, decoder=json.loads(out.read_text()), epochs=7, batch_size=5, patience=None)
    history = training.run()
    if distributed.is_first():
        rows = history.to_dict("records")
        out.write_text(json.dumps({"losses": losses, "history": rows, "processes": distributed.num_processes()}))
"""


def _train(num_processes: int, examples: Path, folder: Path, *, die_at: int = -1) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    script, out = folder / "script.py", folder / "out.json"
    script.write_text(SCRIPT)
    decoder = {"name": "soft_attention", "dropout": 0.0, "tied_embeddings": False}
    widths = ("feature_width", "embedding_width", "attention_width", "hidden_width")
    out.write_text(json.dumps(decoder | dict.fromkeys(widths, 24)))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    command = [
        sys.executable,
        *(torchrun if num_processes > 1 else []),
        str(script),
        str(examples),
        str(folder / "work"),
        str(out),
    ]
    environment = {**os.environ, "DIE_AT": str(die_at), "CAPTIONING_CHECKPOINT_SECONDS": "0"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=300
    )
    if die_at >= 0:
        assert ended.returncode
        return {}
    assert not ended.returncode, ended.stderr
    result: dict[str, Any] = json.loads(out.read_text())
    assert result["processes"] == num_processes
    return result


@pytest.mark.slow
def test_two_processes_train_as_one_does_also_when_they_are_killed_and_resumed(
    tiny_examples: Path, tmp_path: Path
):
    one, two = (_train(number, tiny_examples, tmp_path / str(number)) for number in (1, 2))
    assert len(one["losses"]) >= 50
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for own, other in zip(one["history"], two["history"], strict=True):
        assert own == pytest.approx(other, abs=2e-5)
    _train(2, tiny_examples, tmp_path / "killed", die_at=12)
    resumed = _train(2, tiny_examples, tmp_path / "killed")
    assert 35 < len(resumed["losses"]) < 56, "nothing was saved before the kill"
    assert resumed["history"] == two["history"]

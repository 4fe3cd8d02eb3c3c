"""Train the captioner; keep the checkpoint with the best decoded captions of val.

    python -m stages.train data/examples models/captioner reports/training

Killed and started again it continues where it was. The accelerator is used where there is one; where there are several,
torchrun starts a process for each. On several machines start torchrun yourself, with its own rendezvous:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m stages.train ...
"""

import os
import sys
from pathlib import Path

import torch

from captioning import distributed, params, tracking
from captioning.home import work
from captioning.outputs import whole_folder
from captioning.training import Training
from stages import run


def main(examples: Path, model: Path, reports: Path) -> None:
    """Write the model folder and the history of its training."""
    if torch.cuda.device_count() > 1 and not distributed.is_launched():
        start = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "gpu",
            "-m",
            "stages.train",
        ]
        os.execv(sys.executable, [sys.executable, *start, *sys.argv[1:]])
    settings, model_name = params.load("train"), params.load("register").model_name
    with distributed.together():
        training = Training(examples, settings, weights=Path("weights"), work=work())
        if not distributed.is_first():
            training.run()
            return
        with tracking.training_run(training.fingerprint, params.read(), model_name, examples) as report:
            history = training.run(report)
        with whole_folder(model) as aside:
            training.captioner.save(aside, fingerprint=training.fingerprint)
            reports.mkdir(parents=True, exist_ok=True)
            history.to_csv(reports / "history.csv", index=False)
        training.close()


if __name__ == "__main__":
    run(main)

"""Train the captioner; keep the checkpoint with the best decoded BLEU-4 on val.

    python -m stages.train data/examples models/captioner reports/training

Killed and started again it continues where it was. The accelerator is used where there is one.
"""

from pathlib import Path

from captioning import params, tracking
from captioning.home import work
from captioning.outputs import whole_folder
from captioning.training import Training
from stages import run


def main(examples: Path, model: Path, reports: Path) -> None:
    """Write the model folder and the history of its training."""
    settings = params.load("train")
    training = Training(examples, settings, weights=Path("weights"), work=work())
    model_name = params.load("register").model_name
    with tracking.training_run(training.fingerprint, params.read(), model_name, examples) as report:
        history = training.run(report)
    with whole_folder(model) as aside:
        training.captioner.save(aside, fingerprint=training.fingerprint)
        reports.mkdir(parents=True, exist_ok=True)
        history.to_csv(reports / "history.csv", index=False)
    training.close()


if __name__ == "__main__":
    run(main)

"""Record the evaluation in MLflow, create a model version, promote it to champion if it deserves to be.

    python -m stages.register data/raw data/clean data/splits data/examples models/captioner reports \
        reports/registration.json

Takes about half a minute, and as long as the champion takes to caption the test set where that is another one than it
was scored on. Registering the same model with the same scores again gives the same version.
"""

from pathlib import Path

from captioning import params, registry, store
from captioning.progress import say
from captioning.registry import DataFolders
from stages import run


def main(
    raw: Path, clean: Path, splits: Path, examples: Path, model: Path, reports: Path, receipt_file: Path
) -> None:
    """Write the receipt of the registration."""
    settings = params.load("register")
    data = DataFolders(raw=raw, clean=clean, splits=splits, examples=examples)
    with store.in_words():
        receipt = registry.register(model, reports, data, settings, params.read())
    receipt.write(receipt_file)
    say(f"register: version {receipt.version} of {receipt.model_name}, {receipt.metric} {receipt.value:.4f}")
    say(f"register: {receipt.reason}")


if __name__ == "__main__":
    run(main)

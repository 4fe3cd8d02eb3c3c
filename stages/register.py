"""Record the evaluation in MLflow, create a model version, promote it to champion if it wins.

    python -m stages.register models/captioner reports reports/registration.json

Takes about half a minute. Registering the same model with the same scores again gives the same version.
"""

from pathlib import Path

from captioning import params, registry
from captioning.progress import say
from stages import run


def main(model: Path, reports: Path, receipt_file: Path) -> None:
    """Write the receipt of the registration."""
    settings = params.load("register")
    receipt = registry.register(model, reports, settings, params.read())
    receipt.write(receipt_file)
    say(f"register: version {receipt.version} of {receipt.model_name}, {receipt.metric} {receipt.value:.4f}")
    say(f"register: {receipt.reason}")


if __name__ == "__main__":
    run(main)

"""A model folder -> a model that MLflow can serve, with code and requirements."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from captioning import creation, encoders, store
from captioning.tokens import WORDS
from captioning.vocabulary import Vocabulary

RUNTIME = (
    "aiohttp",
    "mlflow",
    "numpy",
    "pillow",
    "pydantic",
    "ruamel-yaml",
    "safetensors",
    "scipy",
    "simplejpeg",
    "torch",
    "torchvision",
    "tqdm",
)
"""Packages that captioning a picture needs; a network of timm also needs timm, other tokens than words RDKit."""

RED_SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42mM8ISfHQApgYiARjGoY1TB0NAAATx8BJMixHB8AAAAA"
    "SUVORK5CYII="
)
"""A PNG of 16 x 16 pixels as a request carries it: the input example."""


def log_model(run_id: str, model_folder: Path, generation: dict[str, Any]) -> str:
    """Log the servable model of a run and return its id: `models:/<id>` loads it.

    It carries this package's code, and captions as it was scored, with the settings `generation`.
    """
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    package, client = Path(__file__).parent, store.client()
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = creation.create_logged_model(experiment_id, package.name, run_id)

    def log(as_output_of: str | None) -> None:
        Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            run_id=as_output_of,
            model_id=logged.model_id,
            python_model=str(package / "pyfunc_model.py"),
            artifacts={"captioner": str(model_folder)},
            code_paths=[str(package)],
            model_config=generation,
            pip_requirements=requirements(model_folder),
            input_example=[RED_SQUARE],
        )

    with store.as_default_uri():
        try:
            log(as_output_of=run_id)
        except MlflowException:
            # the client asks again where an answer was lost, and MLflow refuses an output that the run has already
            outputs = client.get_run(run_id).outputs.model_outputs
            if logged.model_id not in {output.model_id for output in outputs}:
                raise
            log(as_output_of=None)
    return str(logged.model_id)


def requirements(model_folder: Path) -> list[str]:
    """Pin what the model needs to the versions that made it; after `make setup` those are requirements.lock's."""
    encoder = json.loads((model_folder / "captioner.json").read_text())["encoder"]["name"]
    tokens = Vocabulary.load(model_folder / "vocabulary.json").tokens
    names = [*RUNTIME, *(["timm"] if encoder.startswith(encoders.TIMM) else [])]
    names += ["rdkit"] if tokens != WORDS else []
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]

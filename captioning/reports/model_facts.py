"""What a model is, from its folder, its examples and its history: for the cards, the page and comparisons."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from captioning.captioner import Captioner
from captioning.figures import kept_epoch
from captioning.outputs import whole_file
from captioning.tokens import WORDS, module_of

FILE = "model.json"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of reports/model.json."""

    fingerprint: str
    """Of the training: the tag `captioning.fingerprint` of its MLflow run."""
    encoder: str
    encoder_weights: str
    """What they were before this training: a file in weights/, imagenet or none."""
    decoder: str
    num_encoder_parameters: int
    num_decoder_parameters: int
    num_words: int
    """Of the vocabulary, with the markers."""
    tokens: str = WORDS
    """How captions are cut into them: name of a module of `captioning.tokens`; older files do not say."""
    image_height: int
    """Pixels."""
    image_width: int
    """Pixels."""
    num_train_images: int
    num_train_captions: int
    num_epochs: int
    num_phases: int
    kept_epoch: int | None

    @property
    def num_parameters(self) -> int:
        """Return the size of encoder and decoder together."""
        return self.num_encoder_parameters + self.num_decoder_parameters

    @property
    def unit(self) -> str:
        """Return what one of the words it knows is called, such as `word` or `character`."""
        unit: str = module_of(self.tokens).UNIT
        return unit

    @property
    def name(self) -> str:
        """Return what a person calls the model."""
        return f"{self.decoder} on {self.encoder}"

    def write(self, path: Path) -> None:
        """Write the facts as JSON."""
        with whole_file(path) as aside:
            aside.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "ModelFacts":
        """Read what `write` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not state a model's facts: {error}; `dvc repro evaluate` writes it"
            ) from None


def read_model_facts(
    captioner: Captioner, model_folder: Path, examples_folder: Path, history: pd.DataFrame
) -> ModelFacts:
    """Return the facts of a model folder and of what it was trained on."""
    description = json.loads((model_folder / "captioner.json").read_text())
    train: dict[str, Any] = json.loads((examples_folder / "index.json").read_text())["splits"]["train"]
    return ModelFacts(
        fingerprint=description["fingerprint"],
        encoder=description["encoder"]["name"],
        encoder_weights=description["encoder"]["weights"],
        decoder=description["decoder"]["name"],
        num_encoder_parameters=sum(own.numel() for own in captioner.encoder.parameters()),
        num_decoder_parameters=sum(own.numel() for own in captioner.decoder.parameters()),
        num_words=len(captioner.vocabulary),
        tokens=captioner.vocabulary.tokens,
        image_height=captioner.transform.height,
        image_width=captioner.transform.width,
        num_train_images=train["num_images"],
        num_train_captions=train["num_captions"],
        num_epochs=len(history),
        num_phases=history["phase"].nunique() if "phase" in history else 1,
        kept_epoch=kept_epoch(history),
    )

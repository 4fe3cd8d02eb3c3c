"""Encoder + decoder + vocabulary + pixel transform: a picture's captions, a folder on disk."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from captioning import encoders, lookup
from captioning.generation import PLAIN_BEAM, GenerationSettings, generate
from captioning.images import PixelTransform
from captioning.language_model import LanguageModel
from captioning.params import named_part
from captioning.records import Hypothesis
from captioning.vocabulary import Vocabulary


class AnyCaptioner(nn.Module, ABC):
    """What captions pictures: a single captioner, or an ensemble of several."""

    vocabulary: Vocabulary
    decoder: Any
    language_model: LanguageModel | None = None
    """Of the train captions, where `train.language_model` asked for one."""

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next(self.parameters()).device

    @abstractmethod
    def pixels(self, images: Sequence[np.ndarray]) -> Any:
        """Return pictures (uint8, H x W x 3, upright) as the encoder sees them, for `caption_pixels`."""

    @abstractmethod
    def features(self, inputs: Any) -> Any:
        """Return what the decoder prepares, on the device."""

    def caption(
        self,
        images: Sequence[np.ndarray],
        generation: GenerationSettings = PLAIN_BEAM,
        *,
        top: int = 1,
        with_attention: bool = False,
        **changes: Any,
    ) -> list[list[Hypothesis]]:
        """Return the `top` captions of each picture (uint8, H x W x 3, upright), the best first.

        Args:
            images: the pictures.
            generation: how captions are made of scores; plain beam search of width 3 where nothing is said.
            top: captions an image, 1 or more; more than the settings give widen the beam, or draw more.
            with_attention: also return each word's attention weights, where the decoder attends.
            changes: of the settings, such as `beam_width=5` or `max_words=16`.

        Raises:
            ValueError: a change that the settings do not know, or an image without a caption (see `generate`).
        """
        if not images:
            return []
        return self.caption_pixels(
            self.pixels(images), generation, top=top, with_attention=with_attention, **changes
        )

    @torch.inference_mode()
    def caption_pixels(
        self,
        pixels_BCHW: Any,
        generation: GenerationSettings = PLAIN_BEAM,
        *,
        top: int = 1,
        with_attention: bool = False,
        image_numbers: Sequence[int] | None = None,
        **changes: Any,
    ) -> list[list[Hypothesis]]:
        """Return what `caption` does, of images given as the pixels that the transform makes, uint8.

        `image_numbers` decide, with the seed, what sampling draws; by default the places in the batch.
        """
        self.eval()
        return generate(
            self.decoder,
            self.features(pixels_BCHW),
            self.vocabulary,
            generation.replaced(**changes).at_least(top),
            top=top,
            with_attention=with_attention,
            image_numbers=image_numbers,
            language_model=self.language_model,
        )


class Captioner(AnyCaptioner):
    """An encoder and a decoder with its vocabulary.

    Args:
        encoder: the settings of `train.encoder`.
        decoder: the settings of `train.decoder`.
        vocabulary: of the captions.
        transform: the pixels that the encoder sees.
        encoder_state: pretrained weights of the encoder, if any.
    """

    def __init__(
        self,
        *,
        encoder: encoders.Settings,
        decoder: Any,
        vocabulary: Vocabulary,
        transform: PixelTransform,
        encoder_state: dict[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.settings = {"encoder": encoder.model_dump(), "decoder": decoder.model_dump()}
        self.vocabulary, self.transform = vocabulary, transform
        self.encoder = encoders.build(
            encoder, height=transform.height, width=transform.width, state=encoder_state
        )
        self.decoder = lookup.find("decoders", decoder.name).Decoder(
            decoder, feature_dim=self.encoder.feature_dim, vocabulary_size=len(vocabulary)
        )

    def pixels(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Return `pixels_BCHW`, uint8, of pictures."""
        return torch.stack([torch.from_numpy(self.transform(image)) for image in images])

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return `features_BLD` of uint8 pixels; features pass through."""
        inputs = inputs.to(self.device)
        return self.encoder(inputs) if inputs.dtype == torch.uint8 else inputs.float()

    def save(self, folder: Path, *, fingerprint: str) -> None:
        """Write weights, settings, vocabulary and transform into an existing folder; its bytes are deterministic."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")
        description = {**self.settings, "vocabulary": self.vocabulary.digest, "fingerprint": fingerprint}
        (folder / "captioner.json").write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        self.vocabulary.save(folder / "vocabulary.json")
        if self.language_model is not None:
            self.language_model.save(folder)
        (folder / "transform.json").write_text(self.transform.model_dump_json(exclude_defaults=True) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> "Captioner":
        """Read what `save` wrote, for captioning: its encoder is folded, and cannot be trained or saved.

        Raises:
            ValueError: a file is missing or damaged, or the vocabulary is not the one the weights were trained with.
        """
        remedy = "restore the folder (`dvc checkout models/captioner`) or train again"
        try:
            description = _description(folder / "captioner.json")
            vocabulary = Vocabulary.load(folder / "vocabulary.json")
            transform = PixelTransform.model_validate_json((folder / "transform.json").read_text())
            tensors = load_file(folder / "weights.safetensors")
            language_model = LanguageModel.load(folder)
            encoder = encoders.Settings.model_validate(description["encoder"])
            decoder = named_part("decoders")(description["decoder"])
        except (OSError, ValueError, SafetensorError) as error:
            what = " ".join(str(error).split())
            raise ValueError(f"{folder} is not a captioner's folder: {what}; {remedy}") from None
        if vocabulary.digest != description["vocabulary"]:
            raise ValueError(
                f"{folder}/vocabulary.json ({len(vocabulary)} words) is not the vocabulary that the weights were "
                f"trained with; {remedy}"
            )
        captioner = cls(encoder=encoder, decoder=decoder, vocabulary=vocabulary, transform=transform)
        try:
            captioner.load_state_dict(tensors)
        except RuntimeError as error:
            what = " ".join(str(error).split())
            raise ValueError(
                f"{folder}/weights.safetensors are not those of the model that captioner.json and vocabulary.json "
                f"describe: {what}; {remedy}"
            ) from None
        captioner.encoder = captioner.encoder.folded()
        captioner.language_model = language_model
        return captioner.to(device).eval()


def _description(path: Path) -> dict[str, Any]:
    description = json.loads(path.read_text())
    keys = {"encoder", "decoder", "vocabulary"}
    if not isinstance(description, dict) or not keys <= {*description}:
        raise ValueError(f"{path.name} is no JSON object with {', '.join(sorted(keys))}")
    return description

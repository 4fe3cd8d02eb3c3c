"""Encoder + decoder + vocabulary + pixel transform: a batch's loss, a picture's captions, a folder on disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from captioning import lookup
from captioning.encoders import torchvision_network
from captioning.generation import beam_search
from captioning.images import PixelTransform
from captioning.records import Hypothesis
from captioning.vocabulary import PAD, Vocabulary


@dataclass(frozen=True)
class Loss:
    """Sums over the words of a batch, so that batches of unequal size add up exactly."""

    total: torch.Tensor
    """What is minimised: mean cross-entropy a word (smoothed) plus the attention penalty."""
    cross_entropy_sum: torch.Tensor
    """Natural logarithms, without smoothing."""
    num_words: int
    """`<eos>` included."""


class Captioner(nn.Module):
    """A model that captions pictures.

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
        encoder: torchvision_network.Settings,
        decoder: Any,
        vocabulary: Vocabulary,
        transform: PixelTransform,
        encoder_state: dict[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.settings = {"encoder": encoder.model_dump(), "decoder": decoder.model_dump()}
        self.vocabulary, self.transform = vocabulary, transform
        self.encoder = torchvision_network.Encoder(
            name=encoder.name,
            layer=encoder.layer,
            height=transform.height,
            width=transform.width,
            state=encoder_state,
        )
        self.encoder.requires_grad_(encoder.trainable)
        self.decoder = lookup.find("decoders", decoder.name).Decoder(
            feature_dim=self.encoder.feature_dim,
            vocabulary_size=len(vocabulary),
            **decoder.model_dump(exclude={"name"}),
        )

    @property
    def is_encoder_trainable(self) -> bool:
        """Return whether training moves the encoder."""
        return bool(self.settings["encoder"]["trainable"])

    def train(self, mode: bool = True) -> "Captioner":
        """Set training mode; a frozen encoder stays in evaluation mode, so BatchNorm statistics do not move."""
        super().train(mode)
        if not self.is_encoder_trainable:
            self.encoder.eval()
        return self

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return `features_BLD` of uint8 pixels; features pass through."""
        return self.encoder(inputs) if inputs.dtype == torch.uint8 else inputs.float()

    def loss(
        self,
        *,
        inputs: torch.Tensor,
        tokens_NT: torch.Tensor,
        targets_NT: torch.Tensor,
        lengths_N: torch.Tensor,
        label_smoothing: float = 0.0,
        attention_penalty: float = 0.0,
    ) -> Loss:
        """Return the loss of N captions of B images; see `captioning.batches.Batch` for the tensors.

        The penalty is the doubly stochastic term of Show, Attend and Tell, equation 14: the attention that each cell
        got over the whole caption should add up to 1.
        """
        forced = self.decoder(self.decoder.prepare(self.features(inputs)), tokens_NT, lengths_N)
        attention_WL = forced.attention_WL
        is_word_NT = targets_NT != PAD
        targets = targets_NT[is_word_NT]
        log_probabilities = torch.log_softmax(self.decoder.words.logits(forced.output_WE).float(), dim=1)
        cross_entropy = -log_probabilities.gather(1, targets.unsqueeze(1)).sum()
        total = (1 - label_smoothing) * cross_entropy / len(
            targets
        ) - label_smoothing * log_probabilities.mean()
        if attention_penalty and attention_WL is not None:
            row_W = is_word_NT.nonzero()[:, 0]
            attended_NL = attention_WL.new_zeros(len(tokens_NT), attention_WL.shape[1]).index_add(
                0, row_W, attention_WL
            )
            total = total + attention_penalty * (1 - attended_NL[is_word_NT.any(dim=1)]).square().mean()
        return Loss(total=total, cross_entropy_sum=cross_entropy.detach(), num_words=len(targets))

    def caption(
        self,
        images: Sequence[np.ndarray],
        *,
        beam_width: int = 3,
        max_words: int = 24,
        top: int = 1,
        with_attention: bool = False,
    ) -> list[list[Hypothesis]]:
        """Return the `top` captions of each picture (uint8, H x W x 3, upright), the most probable first."""
        pixels_BCHW = torch.stack([torch.from_numpy(self.transform(image)) for image in images])
        return self.caption_pixels(
            pixels_BCHW, beam_width=beam_width, max_words=max_words, top=top, with_attention=with_attention
        )

    @torch.inference_mode()
    def caption_pixels(
        self,
        pixels_BCHW: torch.Tensor,
        *,
        beam_width: int = 3,
        max_words: int = 24,
        top: int = 1,
        with_attention: bool = False,
    ) -> list[list[Hypothesis]]:
        """Return the `top` captions of each image, given as the pixels that the transform makes, uint8."""
        self.eval()
        hypotheses = beam_search(
            self.decoder,
            self.features(pixels_BCHW.to(next(self.parameters()).device)),
            self.vocabulary,
            beam_width=max(beam_width, top),
            max_words=max_words,
            with_attention=with_attention,
        )
        return [own[:top] for own in hypotheses]

    def save(self, folder: Path, *, fingerprint: str) -> None:
        """Write weights, settings, vocabulary and transform into an existing folder; its bytes are deterministic."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")
        description = {**self.settings, "vocabulary": self.vocabulary.digest, "fingerprint": fingerprint}
        (folder / "captioner.json").write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")
        self.vocabulary.save(folder / "vocabulary.json")
        (folder / "transform.json").write_text(self.transform.model_dump_json() + "\n")

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> "Captioner":
        """Read what `save` wrote, in evaluation mode.

        Raises:
            ValueError: a file is missing or damaged, or the vocabulary is not the one the weights were trained with.
        """
        try:
            description = json.loads((folder / "captioner.json").read_text())
            vocabulary = Vocabulary.load(folder / "vocabulary.json")
            transform = PixelTransform.model_validate_json((folder / "transform.json").read_text())
            tensors = load_file(folder / "weights.safetensors")
        except (OSError, ValueError, ValidationError, SafetensorError) as error:
            raise ValueError(f"{folder} is not a captioner's folder: {error}") from None
        if vocabulary.digest != description["vocabulary"]:
            raise ValueError(
                f"{folder}/vocabulary.json ({len(vocabulary)} words) is not the vocabulary that the weights were "
                "trained with; restore it (`dvc checkout models/captioner`) or train again"
            )
        captioner = cls(
            encoder=torchvision_network.Settings.model_validate(description["encoder"]),
            decoder=lookup.find("decoders", description["decoder"]["name"]).Settings.model_validate(
                description["decoder"]
            ),
            vocabulary=vocabulary,
            transform=transform,
        )
        captioner.load_state_dict(tensors)
        return captioner.to(device).eval()


def device() -> torch.device:
    """Return the accelerator where there is one, else the CPU; hardware is no part of an experiment."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

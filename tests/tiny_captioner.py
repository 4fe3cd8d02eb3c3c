"""A captioner with random weights on disk."""

from pathlib import Path

import torch

from captioning import encoders
from captioning.captioner import Captioner
from captioning.decoders import soft_attention
from captioning.images import PixelTransform
from captioning.vocabulary import MARKERS, Vocabulary


def save_captioner(folder: Path, seed: int) -> Path:
    """Write a captioner of 32 x 32 pixels and five words, whose fingerprint repeats the seed; return its folder."""
    torch.manual_seed(seed)
    widths = dict.fromkeys(("feature_width", "embedding_width", "attention_width", "hidden_width"), 8)
    captioner = Captioner(
        encoder=encoders.Settings(name="resnet18", weights="none", layer="layer2", pooled=False),
        decoder=soft_attention.Settings(name="soft_attention", dropout=0.0, tied_embeddings=False, **widths),
        vocabulary=Vocabulary([*MARKERS, "a", "red", "dog", "runs", "far"]),
        transform=PixelTransform(height=32, width=32),
    )
    with torch.no_grad():  # far from uniform
        captioner.decoder.words.output_bias.normal_(std=2.0)
    folder.mkdir(parents=True)
    captioner.save(folder, fingerprint=f"{seed}" * 16)
    return folder

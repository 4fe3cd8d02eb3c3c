"""Pictures that a person names -> a row each with captions, or with why there are none."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from captioning import picture_sources
from captioning.caption_files import Row
from captioning.captioner import AnyCaptioner, Captioner
from captioning.generation import GenerationSettings
from captioning.images import BadImage, decode
from captioning.records import Hypothesis
from captioning.workers import ahead

IMAGES_PER_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some pictures as the encoder sees them, and why others cannot be seen."""

    names: list[str]
    inputs: dict[str, Any]
    """By name; of the readable ones."""
    images: dict[str, Any]
    """Of these, uint8, H x W x 3, where they will be drawn."""
    errors: dict[str, str]


class PictureCaptions:
    """A captioner for pictures by name.

    Args:
        captioner: a single one, or an ensemble.
        generation: how captions are made.
        top: captions a picture.
        made_by: the captioner and how it makes captions, in words.
        attention: folder for a drawing of where the model looked, one a picture; None draws nothing.
        allow_private_addresses: fetch from addresses in private networks, too.

    Raises:
        ValueError: drawings are asked for of an ensemble.
    """

    def __init__(
        self,
        captioner: AnyCaptioner,
        generation: GenerationSettings,
        *,
        top: int,
        made_by: str,
        attention: Path | None,
        allow_private_addresses: bool,
    ) -> None:
        self._captioner, self._generation, self._top = captioner, generation, top
        self.made_by = made_by
        self._allow_private_addresses = allow_private_addresses
        self._sheets = None if attention is None else _Sheets(captioner, attention)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Yield one row a picture, in the order given; a picture that cannot be read is a row with an error.

        Raises:
            ValueError: drawings are asked for of a decoder that does not attend.
        """
        for batch in ahead(self._batches(names), group_size=1, num_groups=2):
            hypotheses: dict[str, list[Hypothesis]] = {}
            if batch.inputs:
                captions = self._captioner.caption_pixels(
                    _joined([*batch.inputs.values()]),
                    self._generation,
                    top=self._top,
                    with_attention=self._sheets is not None,
                    image_numbers=[crc32(name.encode(errors="surrogateescape")) for name in batch.inputs],
                )
                hypotheses = dict(zip(batch.inputs, captions, strict=True))
            for name in batch.names:
                own = hypotheses.get(name, [])
                if own and self._sheets:
                    self._sheets.draw(name, batch.images[name], own[0])
                yield {
                    "image": picture_sources.printable(name),
                    "captions": [
                        {"text": best.text, "probability": math.exp(best.log_probability)} for best in own
                    ],
                    "error": batch.errors.get(name),
                }

    def _batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """Yield pictures as the encoder sees them: as they are, they would fill the memory."""
        found = zip(
            names,
            picture_sources.read(names, allow_private_addresses=self._allow_private_addresses),
            strict=True,
        )
        while some := list(islice(found, IMAGES_PER_BATCH)):
            batch = Batch(names=[name for name, _ in some], inputs={}, images={}, errors={})
            for name, encoded in some:
                try:
                    if isinstance(encoded, OSError):
                        raise encoded
                    image = decode(encoded)
                except (BadImage, OSError) as error:
                    batch.errors[name] = getattr(error, "strerror", None) or str(error)
                    continue
                batch.inputs[name] = self._captioner.pixels([image])
                if self._sheets:
                    batch.images[name] = image
            yield batch


def _joined(inputs: Sequence[Any]) -> Any:
    """Return the pixels of single pictures as those of a batch, for each member of an ensemble."""
    if isinstance(inputs[0], torch.Tensor):
        return torch.cat([*inputs])
    return tuple(torch.cat(own) for own in zip(*inputs, strict=True))


class _Sheets:
    """Drawings of where the model looked, one file a picture."""

    def __init__(self, captioner: AnyCaptioner, folder: Path) -> None:
        if not isinstance(captioner, Captioner):
            raise ValueError("--attention: several models look each at a grid of its own; give one --model")
        self._grid = captioner.encoder.grid
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._num_of: Counter[str] = Counter()

    def draw(self, name: str, image: np.ndarray, hypothesis: Hypothesis) -> None:
        """Draw one picture."""
        if hypothesis.attention is None:
            raise ValueError(
                "--attention: this model's decoder does not attend, so it has no attention to draw"
            )
        from captioning.figures import attention_sheet  # and pandas with it

        stem = Path(name.partition("?")[0]).stem
        self._num_of[stem] += 1
        number = f"-{self._num_of[stem]}" if self._num_of[stem] > 1 else ""
        weights_TL = np.array(hypothesis.attention)
        attention_sheet(image, hypothesis.words, weights_TL, self._grid, self._folder / f"{stem}{number}.png")

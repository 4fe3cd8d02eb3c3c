"""The pictures of a report: which are shown, upright and in their own proportions, and where the decoder looked."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captioning.captioner import Captioner
from captioning.decoding import pixel_reader
from captioning.evaluation import Evaluation
from captioning.examples import Examples
from captioning.figures import best_median_worst
from captioning.generation import GenerationSettings, generate
from captioning.images import encode_jpeg
from captioning.metrics import higher_is_better
from captioning.reports.data_facts import sizes_of
from captioning.tokens import module_of
from captioning.vocabulary import Vocabulary

USUAL = "rouge_l"
"""What captions are ranked by: unlike BLEU-4, it tells single captions apart."""
JPEG_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture with its caption."""

    image_id: str
    position: int
    """In its split."""
    image: np.ndarray
    """uint8, height x width x 3."""
    hypothesis: str
    references: list[str]
    score: float
    drawn: np.ndarray | None = None
    """What the hypothesis says, where captions of this kind can be drawn; None where it says nothing."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Captions from best to worst by one score."""

    score_name: str
    higher_is_better: bool
    bands: dict[str, list[Shown]]
    """`Best`, `Median` and `Worst`, each with the better first; an empty band is left out."""
    are_drawn: bool = False
    """Whether captions of this kind can be drawn, as molecules can."""

    @property
    def shown(self) -> list[Shown]:
        """Return the pictures of all bands."""
        return [own for band in self.bands.values() for own in band]

    @property
    def extremes(self) -> list[Shown]:
        """Return one picture a band: the best, one of the middle, the worst."""
        return [band[-1] if name == "Worst" else band[0] for name, band in self.bands.items()]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Where the decoder looked in a picture, a row of weights a word."""

    shown: Shown
    words: list[str]
    weights_TL: np.ndarray
    grid: tuple[int, int]


def choose(evaluation: Evaluation, examples: Examples, clean: Path) -> Ranking:
    """Return the pictures that a report shows, ranked by ROUGE-L if it was scored, else by the first score of images.

    Where images have no scores they are ranked by the probability that the model gave to its caption.
    """
    ids = examples.image_ids
    names = list(evaluation.scores_of_images[ids[0]])
    if names:
        score_name = USUAL if USUAL in names else names[0]
        scores = [evaluation.scores_of_images[image_id][score_name] for image_id in ids]
    else:
        score_name = "log_probability"
        scores = [evaluation.hypotheses[image_id].log_probability for image_id in ids]
    is_higher_better = higher_is_better(score_name)
    positions = best_median_worst(scores, higher_is_better=is_higher_better)
    chosen = [ids[position] for band in positions for position in band]
    sizes = sizes_of(clean, chosen)
    draw = getattr(module_of(Vocabulary.load(examples.folder / "vocabulary.json").tokens), "drawings", None)
    texts = [evaluation.hypotheses[image_id].text for image_id in chosen]
    drawn = dict(zip(chosen, draw(texts), strict=True)) if draw else {}
    if examples.transform.keeps_proportions:
        sizes = {}
    bands = {
        name: [
            Shown(
                image_id=ids[position],
                position=position,
                image=in_proportion(_pixels(examples, position), sizes, ids[position]),
                hypothesis=evaluation.hypotheses[ids[position]].text,
                references=evaluation.references[ids[position]],
                score=scores[position],
                drawn=drawn.get(ids[position]),
            )
            for position in band
        ]
        for name, band in zip(("Best", "Median", "Worst"), positions, strict=True)
        if band
    }
    return Ranking(
        score_name=score_name, higher_is_better=is_higher_better, bands=bands, are_drawn=draw is not None
    )


def _pixels(examples: Examples, position: int) -> np.ndarray:
    """Return a stored picture, 3 x H x W; gray ones have three equal channels."""
    pixels_CHW = examples.images([position])[0]
    return np.broadcast_to(pixels_CHW, (3, *pixels_CHW.shape[1:]))


def in_proportion(pixels_CHW: np.ndarray, sizes: Mapping[str, tuple[int, int]], image_id: str) -> np.ndarray:
    """Return a stored picture, H x W x 3, in the proportions it has in its data set: a model's are all alike."""
    pixels_HWC = np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
    stored_height, stored_width = pixels_HWC.shape[:2]
    width, height = sizes.get(image_id, (stored_width, stored_height))
    longest = max(stored_height, stored_width)
    size = tuple(max(1, round(side * longest / max(width, height))) for side in (width, height))
    if size == (stored_width, stored_height):
        return pixels_HWC
    return np.asarray(Image.fromarray(pixels_HWC).resize(size, Image.Resampling.BICUBIC))


@torch.inference_mode()
def look(
    captioner: Captioner, examples: Examples, ranking: Ranking, generation: GenerationSettings
) -> list[Look]:
    """Return where the decoder looked in one picture of each band; nothing of a decoder that does not attend."""
    shown = ranking.extremes
    positions = [own.position for own in shown]
    captions = generate(
        captioner.eval().decoder,
        captioner.features(pixel_reader(examples, captioner.device)(np.array(positions))),
        captioner.vocabulary,
        generation,
        top=1,
        with_attention=True,
        image_numbers=positions,
        image_ids=[own.image_id for own in shown],
        language_model=captioner.language_model,
    )
    return [
        Look(shown=own, words=best.words, weights_TL=np.array(best.attention), grid=captioner.encoder.grid)
        for own, (best, *_) in zip(shown, captions, strict=True)
        if best.attention is not None
    ]


def jpeg(pixels_HWC: np.ndarray) -> str:
    """Return uint8 pixels as the address of a JPEG that lies in the page itself."""
    encoded = encode_jpeg(pixels_HWC.transpose(2, 0, 1), JPEG_QUALITY).tobytes()
    return data_uri(encoded, "image/jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Return an address that holds a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

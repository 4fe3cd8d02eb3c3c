"""A captioner and a split -> hypotheses, each image decoded once."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from captioning import distributed
from captioning.captioner import AnyCaptioner
from captioning.examples import Examples
from captioning.generation import GenerationSettings, generate
from captioning.progress import progress
from captioning.records import Hypothesis

BATCH_SIZE = 64
"""Images decoded together; it changes the speed, not the captions."""

Read = Callable[[np.ndarray], torch.Tensor]


def pixel_reader(examples: Examples, device: torch.device) -> Read:
    """Return a function of positions that reads `images_BCHW` uint8 to the device."""
    return lambda positions: torch.from_numpy(examples.images(positions)).to(device)


def decode_split(
    captioner: AnyCaptioner,
    examples: Examples,
    read: Read,
    generation: GenerationSettings,
    *,
    what: str = "decode",
    observe: Callable[[np.ndarray, Any], None] | None = None,
) -> dict[str, Hypothesis]:
    """Return the best caption of every image of the split, by image id; `read` gives pixels or features.

    Processes that work together share the images, each image is decoded by one of them, and all get all captions.
    `observe` is told the positions and features of each batch, so that nothing need be encoded a second time.

    Raises:
        ValueError: two images of the split have one id, or one has no caption (see `generate`).
    """
    if repeated := [image_id for image_id, count in Counter(examples.image_ids).items() if count > 1]:
        raise ValueError(
            f"{examples.folder}: {len(repeated)} image ids of {examples.split} occur twice, such as {repeated[:3]}, "
            "and captions are kept by image id; run `dvc repro --force preprocess`"
        )
    captioner.eval()
    hypotheses: dict[str, Hypothesis] = {}
    own_positions = np.arange(distributed.rank(), len(examples), distributed.num_processes())
    starts = range(0, len(own_positions), BATCH_SIZE)
    for start in progress(starts, total=len(starts), what=what, unit="batches"):
        positions = own_positions[start : start + BATCH_SIZE]
        with torch.inference_mode():
            features = captioner.features(read(positions))
        if observe:
            observe(positions, features)
        captions = generate(
            captioner.decoder,
            features,
            captioner.vocabulary,
            generation,
            top=1,
            image_numbers=positions.tolist(),
            image_ids=[examples.image_ids[position] for position in positions],
            language_model=captioner.language_model,
        )
        for position, own in zip(positions, captions, strict=True):
            hypotheses[examples.image_ids[position]] = own[0]
    of_all = {image_id: own for part in distributed.gather(hypotheses) for image_id, own in part.items()}
    return {image_id: of_all[image_id] for image_id in examples.image_ids}

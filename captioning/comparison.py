"""Two models on the same images: how much better one is, and how sure that is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning import bootstrap
from captioning.bootstrap import Difference
from captioning.scoring import Scorer, such_as


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """What `reports/hypotheses.jsonl` says: captions of a model, and the references they were scored against."""

    hypotheses: dict[str, str]
    references: dict[str, list[str]]


def read_captioned(path: Path) -> Captioned:
    """Read what the evaluate stage wrote.

    Raises:
        ValueError: a line is no row of it, or an image has two rows.
    """
    captioned = Captioned(hypotheses={}, references={})
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not _is_row(row):
                raise ValueError(
                    f"{path}: line {number} is no JSON object with image_id, hypothesis and references, as "
                    "`dvc repro evaluate` writes them: two texts and a list of texts"
                )
            image_id = row["image_id"]
            if image_id in captioned.hypotheses:
                raise ValueError(
                    f"{path}: line {number} is the second of image {image_id!r}; expected one an image, as "
                    "`dvc repro evaluate` writes them"
                )
            captioned.hypotheses[image_id] = row["hypothesis"]
            captioned.references[image_id] = row["references"]
    return captioned


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("references"), list) or not row["references"]:
        return False
    texts = (row.get("image_id"), row.get("hypothesis"), *row["references"])
    return all(isinstance(text, str) for text in texts)


def compare(
    first: Captioned, second: Captioned, metrics: Sequence[str], *, num_samples: int
) -> dict[str, Difference]:
    """Return the scores of one model less those of another on the same images, by paired bootstrap, by score name.

    Raises:
        ValueError: the images or their references differ, there are less than two, or a metric reads more than
            captions.
    """
    if first.references.keys() != second.references.keys():
        odd = sorted(first.references.keys() ^ second.references.keys())
        raise ValueError(
            f"two models are compared on the same images, and {len(odd)} were captioned by one only{such_as(odd)}; "
            "evaluate both on one split"
        )
    if other := [
        image_id for image_id, own in first.references.items() if own != second.references[image_id]
    ]:
        raise ValueError(
            f"two models are compared by the same references, and {len(other)} images have others{such_as(other)}; "
            "evaluate both on the same data"
        )
    if len(first.references) < bootstrap.MIN_IMAGES:
        raise ValueError(
            f"a difference is told from chance by {bootstrap.MIN_IMAGES} images at least, and both captioned "
            f"{len(first.references)}; evaluate both on more"
        )
    scorer = Scorer(first.references, metrics)
    ordered = {image_id: second.hypotheses[image_id] for image_id in first.hypotheses}
    return bootstrap.differences(
        scorer.measure(first.hypotheses), scorer.measure(ordered), num_samples=num_samples
    )

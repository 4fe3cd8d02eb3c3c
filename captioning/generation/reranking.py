"""All captions of the images, ranked anew: by what reads them, by the captioner and by a language model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from captioning import lookup
from captioning.generation.settings import RerankSettings
from captioning.language_model import LanguageModel
from captioning.records import Hypothesis


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A caption that was found."""

    hypothesis: Hypothesis
    ids: list[int]
    """Of its words."""
    rank: float
    """What it was compared by."""


def rerank(
    captions: Sequence[Sequence[Candidate]],
    settings: RerankSettings,
    language_model: LanguageModel | None,
) -> list[list[Candidate]]:
    """Return the captions of each image, the best first; equally good ones keep their order.

    Their log-probabilities stay the captioner's own, of the words that it wrote.

    Raises:
        ValueError: a language model is weighed and there is none.
    """
    if settings.language_model and language_model is None:
        raise ValueError(
            f"rerank.language_model is {settings.language_model:g}, and the model has no language model: train it with "
            "train.language_model, such as {order: 6, min_count: 2}, or set rerank.language_model: 0"
        )
    every = [one for own in captions for one in own]
    normal = lookup.find("normalisers", settings.normaliser).normalise([one.hypothesis.text for one in every])
    usual = [0.0] * len(every)
    if settings.language_model and language_model is not None:
        usual = language_model.log_probabilities([one.ids for one in every])
    ranked, at = [], 0
    for own in captions:
        rows = range(at, at + len(own))
        at += len(own)
        worth = {
            row: every[row].rank
            + settings.validity * (normal[row] is not None)
            + settings.language_model * usual[row]
            for row in rows
        }
        best_first = sorted(
            rows, key=worth.__getitem__, reverse=True
        )  # stable, as equal ones keep their order
        texts = {row: normal[row] if settings.replaces_text else None for row in rows}
        ranked.append([_with_text(every[row], texts[row]) for row in best_first])
    return ranked


def _with_text(one: Candidate, text: str | None) -> Candidate:
    return one if text is None else replace(one, hypothesis=replace(one.hypothesis, text=text))

"""Next-word scores -> captions: beam search, diverse beams and sampling, batched over images and captions.

One loop (`search`) goes over the words: what is constant per image is computed once, the decoder's state is reordered
once a word, and finished images are left out. `beams` and `samples` choose the words, `constraints` forbids some.

A caption's log-probability is the model's own: the sum of the log-probabilities of its words and of `<eos>` among all
words of the vocabulary, as teacher forcing gives it. Constraints, length normalisation, temperature, nucleus and the
penalty of diverse beams decide which caption comes out and are no part of it. A caption that was cut has no `<eos>`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from captioning.generation.beams import Beams, rank
from captioning.generation.constraints import NEVER_GENERATED, Constraints, forbid
from captioning.generation.grammar import GrammarConstraint
from captioning.generation.reranking import Candidate, rerank
from captioning.generation.samples import Sampler
from captioning.generation.search import Captions, Chooser, search
from captioning.generation.settings import (
    PLAIN_BEAM,
    BeamSettings,
    ConstraintSettings,
    DiverseBeamSettings,
    GenerationSettings,
    LengthNormalisation,
    RerankSettings,
    SampleSettings,
    read_settings,
)
from captioning.grammars import NONE
from captioning.language_model import LanguageModel
from captioning.records import Hypothesis
from captioning.vocabulary import EOS, Vocabulary

__all__ = [
    "NEVER_GENERATED",
    "PLAIN_BEAM",
    "BeamSettings",
    "Captions",
    "ConstraintSettings",
    "Constraints",
    "DiverseBeamSettings",
    "GenerationSettings",
    "LengthNormalisation",
    "RerankSettings",
    "SampleSettings",
    "Sampler",
    "forbid",
    "generate",
    "read_settings",
    "search",
]


@torch.inference_mode()
def generate(
    decoder: Any,
    features: Any,
    vocabulary: Vocabulary,
    settings: GenerationSettings,
    *,
    top: int | None = None,
    with_attention: bool = False,
    image_numbers: Sequence[int] | None = None,
    image_ids: Sequence[str] | None = None,
    language_model: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """Return captions of each image, the best first: by log-probability, or by what it is divided by for its length.

    A decoder that nothing was taught returns captions too.

    Args:
        decoder: see `captioning.decoders`.
        features: grid features `features_BLD` of B images, or what else the decoder prepares.
        vocabulary: of the decoder.
        settings: of the way.
        top: at most so many captions an image; a search ends when these are found. None returns all.
        with_attention: also return each word's attention weights, where the decoder attends.
        image_numbers: with the settings' seed they decide what is drawn for each image, whatever other images come
            with it; 0, 1, ... where they are not given.
        image_ids: what a refusal calls the images.
        language_model: of the train captions, for `rerank`.

    Raises:
        ValueError: `top` is less than 1, or an image has no caption, since scores are not finite or all words are
            forbidden; the grammar cannot read the vocabulary; or a language model is weighed and there is none.
    """
    if top is not None and top < 1:
        raise ValueError(f"top is {top}, expected 1 caption an image or more")
    top = settings.num_captions if top is None else min(top, settings.num_captions)
    is_reranked = settings.rerank is not None
    parts = search(
        decoder,
        features,
        _chooser(settings, settings.num_captions if is_reranked else top, image_numbers),
        _constraints(settings, vocabulary),
        max_words=settings.max_words,
        with_attention=with_attention,
    )
    found = [own for part in parts for own in _hypotheses(part, vocabulary, settings).items()]
    for image, own in found:
        if not own:
            which = f"image {image} of the batch" if image_ids is None else f"image {image_ids[image]!r}"
            raise ValueError(
                f"{which} has no caption: its scores are not finite (NaN in weights or features), "
                f"or no word is left that the settings allow; {settings!r}: loosen them"
            )
    captions = [own for _, own in sorted(found, key=lambda one: one[0])]
    if settings.rerank is not None:
        captions = rerank(captions, settings.rerank, language_model)
    return [[one.hypothesis for one in own[:top]] for own in captions]


def _constraints(
    settings: GenerationSettings, vocabulary: Vocabulary
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    constraints = Constraints(
        vocabulary,
        min_words=settings.min_words,
        max_words=settings.max_words,
        no_repeat_ngram=settings.no_repeat_ngram,
        bad_endings=settings.bad_endings,
    )
    if settings.grammar == NONE:
        return constraints
    grammar = GrammarConstraint(settings.grammar, vocabulary, max_words=settings.max_words)

    def forbid_both(scores_NV: torch.Tensor, words_NT: torch.Tensor) -> None:
        constraints(scores_NV, words_NT)
        grammar(scores_NV, words_NT)

    return forbid_both


def _chooser(settings: GenerationSettings, top: int, image_numbers: Sequence[int] | None) -> Chooser:
    if isinstance(settings, SampleSettings):
        return Sampler(
            settings.num_samples,
            _random_numbers(settings, image_numbers),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
    groups: dict[str, Any] = {}
    if isinstance(settings, DiverseBeamSettings):
        groups = {"num_groups": settings.num_groups, "diversity_penalty": settings.diversity_penalty}
    return Beams(
        width=settings.beam_width,
        normalisation=settings.length_normalisation,
        max_words=settings.max_words,
        top=top,
        **groups,
    )


def _random_numbers(
    settings: SampleSettings, image_numbers: Sequence[int] | None
) -> Callable[[Captions], torch.Tensor]:
    """Return what gives each image numbers of its own, the same on every device and in every batch."""
    numbers_of: dict[int, np.ndarray] = {}

    def random(captions: Captions) -> torch.Tensor:
        step, images = captions.words_NT.shape[1] - 1, captions.images_B.tolist()
        for image in images:
            if image not in numbers_of:
                seed = [settings.seed, image if image_numbers is None else int(image_numbers[image])]
                numbers_of[image] = np.random.default_rng(seed).random(
                    (settings.num_samples, settings.max_words), dtype=np.float32
                )
        numbers_N = np.concatenate([numbers_of[image][:, step] for image in images])
        return torch.from_numpy(numbers_N).to(captions.scores_N.device)

    return random


def _hypotheses(
    captions: Captions, vocabulary: Vocabulary, settings: GenerationSettings
) -> dict[int, list[Candidate]]:
    """Return the captions of each image, by its number in the batch, the best first; none if one's score is NaN."""
    normalisation = None if isinstance(settings, SampleSettings) else settings.length_normalisation
    ranks_N = rank(captions.scores_N, captions.num_terms_N, normalisation)
    images = captions.images_B.tolist()
    num_captions = len(ranks_N) // len(images)
    words, scores, ranks = captions.words_NT[:, 1:].tolist(), captions.scores_N.tolist(), ranks_N.tolist()
    attention_NTL = None if captions.attention_NTL is None else captions.attention_NTL.cpu()
    found: dict[int, list[Candidate]] = {}
    for place, image in enumerate(images):
        rows = range(place * num_captions, (place + 1) * num_captions)
        if any(math.isnan(ranks[row]) for row in rows):
            found[image] = []
            continue
        best_first = sorted((row for row in rows if ranks[row] > -math.inf), key=lambda row: -ranks[row])
        found[image] = [
            _candidate(
                words[row],
                scores[row],
                ranks[row],
                vocabulary,
                None if attention_NTL is None else attention_NTL[row],
            )
            for row in best_first
        ]
    return found


def _candidate(
    ids: list[int], score: float, rank_: float, vocabulary: Vocabulary, attention_TL: torch.Tensor | None
) -> Candidate:
    words = ids[: ids.index(EOS)] if EOS in ids else ids
    attention = None if attention_TL is None else attention_TL[: len(words)].tolist()
    hypothesis = Hypothesis(
        text=vocabulary.decode(words),
        log_probability=score,
        attention=attention,
        tokens=tuple(vocabulary.words_of(words)),
    )
    return Candidate(hypothesis=hypothesis, ids=words, rank=rank_)

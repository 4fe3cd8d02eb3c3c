"""Next-word scores -> captions: beam search, batched over images and beams; width 1 is greedy."""

from dataclasses import dataclass
from typing import Any

import torch

from captioning.records import Hypothesis
from captioning.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

NEVER_GENERATED = (PAD, BOS, UNK)
"""`<unk>` included: it is no word of a caption, and would be counted as a match."""


def forbid(scores_NV: torch.Tensor) -> torch.Tensor:
    """Set the scores of the words that are never generated to -inf, in place, and return them."""
    return scores_NV.index_fill_(1, torch.tensor(NEVER_GENERATED, device=scores_NV.device), -torch.inf)


@dataclass
class _Steps:
    """What each step chose, for each image and beam; captions are read backwards through `parents`."""

    words: list[torch.Tensor]
    parents: list[torch.Tensor]
    attention: list[torch.Tensor]


@torch.inference_mode()
def beam_search(
    decoder: Any,
    features_BLD: torch.Tensor,
    vocabulary: Vocabulary,
    *,
    beam_width: int,
    max_words: int,
    with_attention: bool = False,
) -> list[list[Hypothesis]]:
    """Return up to `beam_width` captions for each image, the most probable first.

    A caption that has ended keeps its place in the beam with its log-probability. One that has not ended after
    `max_words` is cut there, so that an untrained decoder returns captions too.

    Args:
        decoder: see `captioning.decoders`.
        features_BLD: grid features of B images.
        vocabulary: of the decoder.
        beam_width: K, hypotheses kept an image at each step.
        max_words: at most so many words a caption.
        with_attention: also return each word's attention weights, where the decoder attends.
    """
    num_images, device = features_BLD.shape[0], features_BLD.device
    memory = decoder.prepare(features_BLD)
    state = decoder.start(memory, num_images * beam_width)
    scores_BK = torch.full((num_images, beam_width), -torch.inf, device=device)
    scores_BK[:, 0] = 0.0  # all beams start alike: only the first may branch
    tokens_BK = torch.full((num_images, beam_width), BOS, device=device)
    has_ended_BK = torch.zeros(num_images, beam_width, dtype=torch.bool, device=device)
    first_row_B1 = torch.arange(num_images, device=device).unsqueeze(1) * beam_width
    steps = _Steps(words=[], parents=[], attention=[])
    for num_words in range(max_words + 1):
        output, state, attention = decoder.step(memory, state, tokens_BK.flatten())
        scores_BKV = scores_BK.unsqueeze(2) + _next_word_scores(
            decoder.words.logits(output), has_ended_BK, num_words == max_words
        )
        scores_BK, choice_BK = scores_BKV.flatten(1).topk(beam_width, dim=1)
        num_choices = scores_BKV.shape[2]
        parents_BK = torch.div(choice_BK, num_choices, rounding_mode="floor")
        tokens_BK = choice_BK % num_choices
        has_ended_BK = has_ended_BK.gather(1, parents_BK) | (tokens_BK == EOS)
        rows_N = (first_row_B1 + parents_BK).flatten()
        state = {name: tensor.index_select(0, rows_N) for name, tensor in state.items()}
        steps.words.append(tokens_BK)
        steps.parents.append(parents_BK)
        if with_attention and attention is not None:
            steps.attention.append(attention.view(num_images, beam_width, -1))
        if bool(has_ended_BK.all()):
            break
    return _read_backwards(steps, scores_BK, vocabulary)


def _next_word_scores(logits_NV: torch.Tensor, has_ended_BK: torch.Tensor, must_end: bool) -> torch.Tensor:
    """Return log-probabilities B x K x V; an ended caption can only stay as it is, at no cost, by a further `<eos>`."""
    scores_NV = forbid(torch.log_softmax(logits_NV.float(), dim=1))
    if must_end:
        end_N = torch.zeros_like(scores_NV[:, EOS])
        scores_NV.fill_(-torch.inf)
        scores_NV[:, EOS] = end_N
    scores_BKV = scores_NV.view(*has_ended_BK.shape, -1)
    stay_V = torch.full_like(scores_BKV[0, 0], -torch.inf)
    stay_V[EOS] = 0.0
    return torch.where(has_ended_BK.unsqueeze(2), stay_V, scores_BKV)


def _read_backwards(steps: _Steps, scores_BK: torch.Tensor, vocabulary: Vocabulary) -> list[list[Hypothesis]]:
    words_TBK = torch.stack(steps.words).cpu()
    parents_TBK = torch.stack(steps.parents).cpu()
    attention_TBKL = torch.stack(steps.attention).cpu() if steps.attention else None
    num_steps, num_images, beam_width = words_TBK.shape
    beam_BK = torch.arange(beam_width).expand(num_images, beam_width)
    words_BKT = torch.empty(num_images, beam_width, num_steps, dtype=torch.long)
    attention_BKTL = None
    if attention_TBKL is not None:
        attention_BKTL = torch.empty(num_images, beam_width, num_steps, attention_TBKL.shape[-1])
    for t in reversed(range(num_steps)):
        words_BKT[:, :, t] = words_TBK[t].gather(1, beam_BK)
        beam_BK = parents_TBK[t].gather(1, beam_BK)
        if attention_BKTL is not None and attention_TBKL is not None:
            index = beam_BK.unsqueeze(2).expand(-1, -1, attention_TBKL.shape[-1])
            attention_BKTL[:, :, t] = attention_TBKL[t].gather(1, index)  # rows of step t are the parents'
    return [
        [
            _hypothesis(
                words_BKT[b, k].tolist(),
                scores,
                vocabulary,
                None if attention_BKTL is None else attention_BKTL[b, k],
            )
            for k, scores in enumerate(scores_BK[b].tolist())
            if scores > -torch.inf
        ]
        for b in range(num_images)
    ]


def _hypothesis(
    ids: list[int], score: float, vocabulary: Vocabulary, attention_TL: torch.Tensor | None
) -> Hypothesis:
    words = ids[: ids.index(EOS)] if EOS in ids else ids
    attention = None if attention_TL is None else attention_TL[: len(words)].tolist()
    return Hypothesis(text=vocabulary.decode(words), log_probability=score, attention=attention)

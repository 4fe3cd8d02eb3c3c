"""Teacher forcing: what a captioner makes of captions that it is given, word by word."""

from dataclasses import dataclass

import torch

from captioning.batches import Batch
from captioning.captioner import Captioner
from captioning.records import Likelihood
from captioning.recurrence import Forced, is_word

NUM_TOP = 5


@dataclass(frozen=True, kw_only=True)
class Words:
    """The positions of a batch that carry a word, W of them, row after row."""

    row_W: torch.Tensor
    step_W: torch.Tensor
    targets_W: torch.Tensor


def force(captioner: Captioner, batch: Batch) -> tuple[Forced, Words]:
    """Run teacher forcing; where the words stand is found on the CPU, so that a GPU need not be waited for."""
    device = captioner.device
    is_word_NT = is_word(batch.lengths_N, batch.tokens_NT.shape[1])
    row_W, step_W = (own.to(device, non_blocking=True) for own in is_word_NT.nonzero(as_tuple=True))
    tokens_NT = batch.tokens_NT.to(device, non_blocking=True)
    targets_NT = batch.targets_NT.to(device, non_blocking=True)
    memory = captioner.decoder.prepare(captioner.features(batch.inputs))
    forced = captioner.decoder(memory, tokens_NT, batch.lengths_N)
    return forced, Words(row_W=row_W, step_W=step_W, targets_W=targets_NT[row_W, step_W])


@torch.inference_mode()
def likelihoods(captioner: Captioner, batch: Batch) -> list[Likelihood]:
    """Return what a captioner in evaluation mode thinks of the captions of each image of a batch."""
    forced, words = force(captioner, batch)
    scores_WV = torch.log_softmax(captioner.decoder.words.logits(forced.output_WE).float(), dim=1)
    target_W1 = words.targets_W.unsqueeze(1)
    is_target_WK = scores_WV.topk(min(NUM_TOP, scores_WV.shape[1]), dim=1).indices == target_W1
    columns = (scores_WV.gather(1, target_W1), is_target_WK[:, :1], is_target_WK.any(dim=1, keepdim=True))
    of_words_W3 = torch.cat([own.double() for own in columns], dim=1)
    # Into a table and not by index_add, whose order of adding, and so the last bit, varies on a GPU.
    of_steps_NT3 = of_words_W3.new_zeros(*batch.tokens_NT.shape, 3)
    of_steps_NT3[words.row_W, words.step_W] = of_words_W3
    num_images = len(batch.image_ids)
    of_images_B3 = of_steps_NT3.view(num_images, -1, 3).sum(dim=1).tolist()
    num_words_B = batch.lengths_N.view(num_images, -1).sum(dim=1).tolist()
    return [
        Likelihood(num_words=count, log_likelihood=sum_, num_right=int(right), num_in_top_5=int(in_top))
        for count, (sum_, right, in_top) in zip(num_words_B, of_images_B3, strict=True)
    ]

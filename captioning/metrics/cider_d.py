"""CIDEr-D as training rewards it: on the model's own words, with the document frequencies of the train captions.

`cider` is the same formula as the field reports it: on standard tokens, with the document frequencies of the very
references scored. This one does not depend on which other images are scored, and says how well what self-critical
training maximises carries over to other images. See `captioning.rewards`.
"""

from collections.abc import Mapping, Sequence

from captioning.cider import IMAGES_AT_ONCE
from captioning.metrics import Statistics, check_pairs, mean
from captioning.rewards import CiderReward
from captioning.vocabulary import BOS, EOS, UNK, Vocabulary

HIGHER_IS_BETTER = True


def score(
    raw_hypotheses: Mapping[str, str],
    raw_references: Mapping[str, Sequence[str]],
    train_references: Mapping[str, Sequence[str]],
    vocabulary: Vocabulary,
) -> dict[str, Statistics | float]:
    """Return `cider_d`, in 0..10; each hypothesis counts as ended. The score of the set is the mean over images."""
    check_pairs(raw_hypotheses, raw_references)
    trained = CiderReward(train_references, vocabulary)
    reward = CiderReward(raw_references, vocabulary, trained.frequencies)
    image_ids, scores = [*raw_hypotheses], []
    for start in range(0, len(image_ids), IMAGES_AT_ONCE):
        own = image_ids[start : start + IMAGES_AT_ONCE]
        words_B1 = [[_encode(raw_hypotheses[image_id], vocabulary)] for image_id in own]
        scores += reward(own, words_B1)[:, 0].tolist()
    return {"cider_d": mean(scores)}


def _encode(hypothesis: str, vocabulary: Vocabulary) -> list[int]:
    """Return word ids, with `<bos>`, which no reference has, for a word that the model cannot have said."""
    return [*(BOS if word == UNK else word for word in vocabulary.encode(hypothesis)), EOS]

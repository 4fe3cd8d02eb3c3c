"""Tokens <-> ids, built from train captions only."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from captioning import lookup
from captioning.tokens import WORDS, module_of

PAD, BOS, EOS, UNK = 0, 1, 2, 3
MARKERS = ("<pad>", "<bos>", "<eos>", "<unk>")


class Vocabulary:
    """The words a model reads and writes. The first four ids are `<pad>`, `<bos>`, `<eos>` and `<unk>`.

    Args:
        words: all, markers first.
        tokens: name of the module of `captioning.tokens` that cuts captions into them.
    """

    def __init__(self, words: Sequence[str], *, tokens: str = WORDS) -> None:
        if tuple(words[: len(MARKERS)]) != MARKERS or len(set(words)) != len(words):
            raise ValueError(
                f"a vocabulary starts with {', '.join(MARKERS)} and has each word once; "
                f"got {list(words[:6])} of {len(words)} words"
            )
        self.words, self.tokens = tuple(words), tokens
        cut = module_of(tokens)
        self.split, self.join = cut.split, cut.join
        self._ids = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], *, min_word_count: int, tokens: str = WORDS) -> "Vocabulary":
        """Return the words that occur `min_word_count` times or more, most frequent first, then alphabetically."""
        split = module_of(tokens).split
        counts = Counter(word for caption in captions for word in split(caption))
        frequent = [word for word, count in counts.items() if count >= min_word_count]
        if not frequent:
            raise ValueError(
                f"no word of the train captions occurs {min_word_count} times or more; lower preprocess.min_word_count"
            )
        return cls([*MARKERS, *sorted(frequent, key=lambda word: (-counts[word], word))], tokens=tokens)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Return the ids of the caption's words, without markers; unknown words are `<unk>`."""
        return [self._ids.get(word, UNK) for word in self.split(caption)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the caption that the words of `ids` make; markers are left out."""
        text: str = self.join(self.words_of(ids))
        return text

    def words_of(self, ids: Iterable[int]) -> list[str]:
        """Return the words of `ids`; markers are left out."""
        return [self.words[number] for number in ids if number >= len(MARKERS)]

    @property
    def digest(self) -> str:
        """Return a fingerprint of the words, their order and how captions are cut into them."""
        named = [] if self.tokens == WORDS else [f"tokens: {self.tokens}"]
        return hashlib.sha256("\n".join([*named, *self.words]).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the words as JSON, and how captions are cut into them unless it is the way of natural language."""
        named = {} if self.tokens == WORDS else {"tokens": self.tokens}
        path.write_text(json.dumps(named | {"words": self.words}, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote.

        Raises:
            ValueError: it is something else, or this code does not know its tokens.
        """
        found = json.loads(path.read_text())
        words = found.get("words") if isinstance(found, dict) else None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(
                f"{path} is no vocabulary, a JSON object with a list of words as `dvc repro preprocess` and "
                "`dvc repro train` write it; restore it with `dvc checkout`"
            )
        if (tokens := found.get("tokens", WORDS)) not in lookup.names("tokens"):
            raise ValueError(
                f"{path} names the tokens {tokens!r}, expected one of {', '.join(lookup.names('tokens'))}: take the "
                "version of this program that wrote it, or restore it with `dvc checkout`"
            )
        return cls(words, tokens=tokens)

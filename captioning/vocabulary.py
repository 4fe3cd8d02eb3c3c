"""Words <-> ids, built from train captions only."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

PAD, BOS, EOS, UNK = 0, 1, 2, 3
MARKERS = ("<pad>", "<bos>", "<eos>", "<unk>")

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")


def split_words(caption: str) -> list[str]:
    """Return the lower-case words of a caption; punctuation is dropped, `t-shirt` and `man's` stay whole."""
    return _WORD.findall(caption.lower())


class Vocabulary:
    """The words a model reads and writes. The first four ids are `<pad>`, `<bos>`, `<eos>` and `<unk>`."""

    def __init__(self, words: Sequence[str]) -> None:
        if tuple(words[: len(MARKERS)]) != MARKERS or len(set(words)) != len(words):
            raise ValueError(
                f"a vocabulary starts with {', '.join(MARKERS)} and has each word once; "
                f"got {list(words[:6])} of {len(words)} words"
            )
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], *, min_word_count: int) -> "Vocabulary":
        """Return the words that occur `min_word_count` times or more, most frequent first, then alphabetically."""
        counts = Counter(word for caption in captions for word in split_words(caption))
        frequent = [word for word, count in counts.items() if count >= min_word_count]
        if not frequent:
            raise ValueError(
                f"no word of the train captions occurs {min_word_count} times or more; lower preprocess.min_word_count"
            )
        return cls([*MARKERS, *sorted(frequent, key=lambda word: (-counts[word], word))])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Return the ids of the caption's words, without markers; unknown words are `<unk>`."""
        return [self._ids.get(word, UNK) for word in split_words(caption)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of `ids` joined by single spaces; markers are left out."""
        return " ".join(self.words[number] for number in ids if number >= len(MARKERS))

    @property
    def digest(self) -> str:
        """Return a fingerprint of the words and their order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the words as JSON."""
        path.write_text(json.dumps({"words": self.words}, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote.

        Raises:
            ValueError: it is something else.
        """
        found = json.loads(path.read_text())
        words = found.get("words") if isinstance(found, dict) else None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(
                f"{path} is no vocabulary, a JSON object with a list of words as `dvc repro preprocess` and "
                "`dvc repro train` write it; restore it with `dvc checkout`"
            )
        return cls(words)

"""The rows that pass from stage to stage, and the letters that name tensor axes.

Axes: B images, N captions (several an image), K hypotheses kept by beam search, T words of a caption,
L cells of the encoder's grid, D features of a cell, V words of the vocabulary, C H W channels, rows, columns.
So `images_BCHW` are pixels, `features_BLD` grid features, `tokens_NT` word ids, `logits_NV` next-word scores.
"""

from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")
PREDICT = "predict"
"""The split of images without captions, which are captioned and not scored."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its reference captions, as a dataset states them."""

    image_id: str
    """Unique in its dataset, stable as the data grows."""
    source: str = ""
    """Name of the dataset, where several are joined; the download stage fills it in where it is empty."""
    archive: str = ""
    """Zip file in the raw folder that holds the image; empty where `url` says where to fetch it."""
    member: str = ""
    """Name inside the archive."""
    url: str = ""
    """Where the image comes from."""
    error: str = ""
    """Why there is no image, where the data set makes its own: a fixed word, a colon and a sentence."""
    captions: tuple[str, ...] = ()
    """Raw reference captions, in the dataset's order."""
    split: str = ""
    """The dataset's own split: train, val, test, predict (for images without captions) or empty."""
    license: str = ""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A caption that a model gave to an image."""

    text: str
    """Words joined as the vocabulary does, without markers."""
    log_probability: float
    """The model's own, whichever way it was made: the sum over its words and `<eos>`, which a cut caption lacks."""
    attention: list[list[float]] | None = field(default=None, repr=False)
    """One row of L weights a word, where the decoder attends and the caller asked for it."""
    tokens: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    """What the model wrote, word by word; None where only the text is known."""

    @property
    def words(self) -> list[str]:
        """Return the words of the caption, as the model wrote them."""
        return self.text.split() if self.tokens is None else [*self.tokens]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """What a model thinks of the references of an image, word by word, given the image and the true words before."""

    num_words: int
    """`<eos>` of each reference included."""
    log_likelihood: float
    """Sum over the words, natural logarithm."""
    num_right: int
    """Words that the model held for the most probable."""
    num_in_top_5: int
    """Words among its five most probable."""

"""METEOR 1.5 (Denkowski and Lavie, 2014): words aligned by form, stem, synonym and paraphrase.

The program that coco-caption brings aligns, in one Java process of 0.6 GB that lives as long as the call: 6 s to load
the paraphrases, and a second for 2,000 images. The score is computed here from its counts, as the program would.
"""

import subprocess
from pathlib import Path

import numpy as np
from pycocoevalcap.meteor import meteor

from captioning.metrics import Statistics, check_pairs, divide
from captioning.tokenization import java

HIGHER_IS_BETTER = True

METEOR_JAR = Path(meteor.__file__).parent / meteor.METEOR_JAR
COMMAND = (
    "-XX:+UseSerialGC",  # a fifth less time, and 0.6 GB instead of 1.4
    "-Xmx2G",
    *("-jar", str(METEOR_JAR), "-", "-", "-stdio", "-l", "en", "-norm"),
)
SEPARATOR = " ||| "

MOST_WORDS = 1000
"""Of a caption: of 10,000 the alignment fills the memory, after a minute."""

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
"""English, tuned on rankings."""
STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Of matches by form, stem, synonym and paraphrase."""
LENGTHS, FUNCTION_WORDS, MATCHES, WORDS_MATCHED = slice(0, 2), slice(2, 4), slice(4, 20), slice(21, 23)
CHUNKS = 20
"""Where the program's counts stand: each of hypothesis and reference, matches by stage and by content and function."""


def score(hypotheses: dict[str, str], references: dict[str, list[str]]) -> dict[str, Statistics | float]:
    """Return `meteor`, in 0..1; the score of the set is computed from the sums of all images' match counts.

    Raises:
        OSError: Java cannot be used.
        ValueError: a caption has more than 1,000 words.
    """
    check_pairs(hypotheses, references)
    for image_id, hypothesis in hypotheses.items():
        num_words = max(len(text.split()) for text in (hypothesis, *references[image_id]))
        if num_words > MOST_WORDS:
            raise ValueError(
                f"image {image_id!r} has a caption or reference of {num_words:,} words, and METEOR aligns at most "
                f"{MOST_WORDS:,}; shorten it, or remove meteor from the metrics"
            )
    with java(*COMMAND) as process:
        counts_BS = np.array(
            [
                _counts(process, hypothesis, references[image_id])
                for image_id, hypothesis in hypotheses.items()
            ]
        )
    return {"meteor": Statistics(of_images_BS=_without_perfect_chunks(counts_BS), formula=_meteor)}


def _counts(process: subprocess.Popen[str], hypothesis: str, references: list[str]) -> list[float]:
    """Return what the program counts for the reference that suits the hypothesis best."""
    _say(process, "SCORE", *references, hypothesis)
    return [float(count) for count in _answer(process).split()]


def _without_perfect_chunks(counts_BS: np.ndarray) -> np.ndarray:
    """Return the counts where a hypothesis that is its reference has no chunk, as it pays no penalty."""
    num_matches_B2 = counts_BS[:, MATCHES].reshape(-1, 8, 2).sum(axis=1)
    is_perfect_B = (num_matches_B2 == counts_BS[:, LENGTHS]).all(axis=1) & (counts_BS[:, CHUNKS] == 1)
    counts_BS[is_perfect_B, CHUNKS] = 0
    return counts_BS


def _meteor(counts_S: np.ndarray) -> np.ndarray:
    """Return the score of summed counts (Denkowski and Lavie, 2014, equations 1 to 5)."""
    function_words = counts_S[..., FUNCTION_WORDS]
    content_words = counts_S[..., LENGTHS] - function_words
    matches = counts_S[..., MATCHES].reshape(*counts_S.shape[:-1], 4, 2, 2)  # stage, kind of word, side
    weights = STAGE_WEIGHTS[:, np.newaxis, np.newaxis] * np.array([[DELTA], [1 - DELTA]])
    shares = divide(
        (matches * weights).sum(axis=(-3, -2)), DELTA * content_words + (1 - DELTA) * function_words
    )
    precision, recall = shares[..., 0], shares[..., 1]
    f_mean = divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    fragmentation = divide(counts_S[..., CHUNKS], counts_S[..., WORDS_MATCHED].mean(axis=-1))
    return f_mean * (1 - GAMMA * fragmentation**BETA)


def _say(process: subprocess.Popen[str], *fields: str) -> None:
    assert process.stdin is not None
    line = SEPARATOR.join(field.replace("|||", "") for field in fields)
    process.stdin.write(f"{line}\n")


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise EOFError
    return line.strip()

"""METEOR 1.5 (Denkowski and Lavie, 2014): words aligned by form, stem, synonym and paraphrase.

Runs the program that coco-caption brings, in one Java process of up to 2 GB that lives as long as the call:
6 s to load the paraphrases, and another second for 1,000 images.
"""

import subprocess
from pathlib import Path

from pycocoevalcap.meteor import meteor

from captioning.metrics import check_pairs
from captioning.tokenization import java

HIGHER_IS_BETTER = True

METEOR_JAR = Path(meteor.__file__).parent / meteor.METEOR_JAR
SEPARATOR = " ||| "


def score(
    hypotheses: dict[str, str], references: dict[str, list[str]]
) -> dict[str, tuple[float, list[float]]]:
    """Return `meteor`, in 0..1; the score of the set is computed from the sums of all images' match counts.

    Raises:
        OSError: Java cannot be used.
    """
    check_pairs(hypotheses, references)
    with java("-Xmx2G", "-jar", str(METEOR_JAR), "-", "-", "-stdio", "-l", "en", "-norm") as process:
        counts = []
        for image_id, hypothesis in hypotheses.items():
            _say(process, "SCORE", *references[image_id], hypothesis)
            counts.append(_answer(process))
        _say(process, "EVAL", *counts)
        image_scores = [float(_answer(process)) for _ in counts]
        return {"meteor": (float(_answer(process)), image_scores)}


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

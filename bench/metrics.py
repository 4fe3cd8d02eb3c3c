"""Scoring 5,000 captions against 25,000 references: COCO's Karpathy test split, the captions of M2 Transformer."""

import json
import time
from collections.abc import Callable

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from bench.comparison import Comparison, alternately
from bench.photographs import shared
from captioning.metrics import meteor
from captioning.scoring import Scorer
from captioning.tokenization import java, tokenize

TARGET_SECONDS, TARGET_METEOR_SECONDS = 5.0, 20.0
NUM_ROUNDS = 3

Captions = dict[str, list[str]]


def _captions() -> tuple[dict[str, str], Captions]:
    """Return hypotheses and references by image id."""
    hypotheses = json.loads(shared("metrics/m2_transformer.json").read_text())
    return hypotheses, json.loads(shared("metrics/reference_captions.json").read_text())


def _tokenized(hypotheses: dict[str, str], references: Captions) -> tuple[Captions, Captions]:
    """Return both in tokens, from a Java each, as coco-caption does it."""
    return tokenize({image_id: [text] for image_id, text in hypotheses.items()}), tokenize(references)


def _against_coco_caption(
    ours: Callable[[], None], coco_caption: Callable[[], None], *, target_seconds: float, what: str
) -> Comparison:
    value, baseline = alternately(_seconds(ours), _seconds(coco_caption), num_rounds=NUM_ROUNDS)
    return Comparison(
        value=value,
        baseline=baseline,
        unit="s",
        what=what,
        target=baseline / target_seconds,
        is_rate=False,
    )


def _seconds(work: Callable[[], None]) -> Callable[[], float]:
    """Return what works once and says how long that took."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measure


def metrics_seconds() -> Comparison:
    """Measure tokenizer, BLEU, ROUGE-L and CIDEr together against coco-caption's own scorers."""
    hypotheses, references = _captions()

    def ours() -> None:
        scores = Scorer(references, ["bleu", "rouge_l", "cider"]).measure(hypotheses)
        assert len(scores) == 6

    def coco_caption() -> None:
        said, truth = _tokenized(hypotheses, references)
        truth = {image_id: truth[image_id] for image_id in said}
        Bleu(4).compute_score(truth, said, verbose=0)
        Rouge().compute_score(truth, said)
        Cider().compute_score(truth, said)

    return _against_coco_caption(
        ours,
        coco_caption,
        target_seconds=TARGET_SECONDS,
        what="tokenizer, BLEU, ROUGE-L and CIDEr of 5,000 images x 5, against coco-caption's scorers",
    )


def meteor_seconds() -> Comparison:
    """Measure METEOR against its program run as coco-caption runs it."""
    said, truth = _tokenized(*_captions())
    hypotheses = {image_id: text for image_id, [text] in said.items()}

    def ours() -> None:
        meteor.score(hypotheses, truth)

    def coco_caption() -> None:
        with java(
            "-Xmx2G", "-jar", str(meteor.METEOR_JAR), "-", "-", "-stdio", "-l", "en", "-norm"
        ) as process:
            assert process.stdin and process.stdout
            counts = []
            for image_id, hypothesis in hypotheses.items():
                process.stdin.write(" ||| ".join(["SCORE", *truth[image_id], hypothesis]) + "\n")
                counts.append(process.stdout.readline().strip())
            process.stdin.write(" ||| ".join(["EVAL", *counts]) + "\n")
            for _ in range(len(counts) + 1):
                process.stdout.readline()

    return _against_coco_caption(
        ours,
        coco_caption,
        target_seconds=TARGET_METEOR_SECONDS,
        what="METEOR of 5,000 images x 5, Java's start included, against its program as coco-caption runs it",
    )

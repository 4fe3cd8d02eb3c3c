"""Scoring 5,000 captions against 25,000 references: COCO's Karpathy test split, the captions of M2 Transformer."""

import json
import time

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

Hypotheses, References = dict[str, str], dict[str, list[str]]


def _captions() -> tuple[Hypotheses, References]:
    hypotheses = json.loads(shared("metrics/m2_transformer.json").read_text())
    return hypotheses, json.loads(shared("metrics/reference_captions.json").read_text())


def _tokenized(hypotheses: Hypotheses, references: References) -> tuple[References, References]:
    """Return both in tokens, from a Java each, as coco-caption does it."""
    return tokenize({image_id: [text] for image_id, text in hypotheses.items()}), tokenize(references)


def metrics_seconds() -> Comparison:
    """Measure tokenizer, BLEU, ROUGE-L and CIDEr together against coco-caption's own scorers."""
    hypotheses, references = _captions()

    def ours() -> float:
        began = time.perf_counter()
        scores = Scorer(references, ["bleu", "rouge_l", "cider"]).measure(hypotheses)
        assert len(scores) == 6
        return time.perf_counter() - began

    def coco_caption() -> float:
        began = time.perf_counter()
        said, truth = _tokenized(hypotheses, references)
        truth = {image_id: truth[image_id] for image_id in said}
        Bleu(4).compute_score(truth, said, verbose=0)
        Rouge().compute_score(truth, said)
        Cider().compute_score(truth, said)
        return time.perf_counter() - began

    value, baseline = alternately(ours, coco_caption, num_rounds=NUM_ROUNDS)
    return Comparison(
        value=value,
        baseline=baseline,
        unit="s",
        what="tokenizer, BLEU, ROUGE-L and CIDEr of 5,000 images x 5, against coco-caption's scorers",
        target=baseline / TARGET_SECONDS,
        is_rate=False,
    )


def meteor_seconds() -> Comparison:
    """Measure METEOR against its program run as coco-caption runs it."""
    said, truth = _tokenized(*_captions())
    hypotheses = {image_id: text for image_id, [text] in said.items()}

    def ours() -> float:
        began = time.perf_counter()
        meteor.score(hypotheses, truth)
        return time.perf_counter() - began

    def coco_caption() -> float:
        began = time.perf_counter()
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
        return time.perf_counter() - began

    value, baseline = alternately(ours, coco_caption, num_rounds=NUM_ROUNDS)
    return Comparison(
        value=value,
        baseline=baseline,
        unit="s",
        what="METEOR of 5,000 images x 5, Java's start included, against its program as coco-caption runs it",
        target=baseline / TARGET_METEOR_SECONDS,
        is_rate=False,
    )

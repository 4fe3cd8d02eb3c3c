"""The data card and the model card of a run, as Markdown (Mitchell et al., Model Cards for Model Reporting, 2019)."""

from itertools import groupby

from captioning.evaluation import Evaluation
from captioning.reports.data_facts import DataFacts
from captioning.reports.model_facts import ModelFacts
from captioning.reports.page import leading_score, score_row
from captioning.reports.templating import render
from captioning.reports.word_errors import WordErrors

WORST_SLICES = 3
"""Of a group, on the model card."""
WORST_WORDS = 5


def data_card(data: DataFacts, *, examples_digest: str) -> str:
    """Return what the data is, where it comes from, what was left out, and what the gates found."""
    return render("data_card.md", data=data, examples_digest=examples_digest)


def model_card(
    evaluation: Evaluation, *, split: str, model: ModelFacts, data: DataFacts, errors: WordErrors
) -> str:
    """Return what the model is, what it is worth and where it fails, and what it was made from."""
    score = leading_score(evaluation)
    worst = {
        group: [
            (own.name, own.num_images, score_row(own.scores, own.intervals, score))
            for own in slices
            if score in own.scores
        ][:WORST_SLICES]
        for group, slices in (
            (group, list(own)) for group, own in groupby(evaluation.slices, key=lambda each: each.group)
        )
    }
    return render(
        "model_card.md",
        model=model,
        data=data,
        split=split,
        num_images=len(evaluation.hypotheses),
        signature=evaluation.signature,
        scores=[score_row(evaluation.scores, evaluation.intervals, name) for name in evaluation.scores],
        slice_score=score_row(evaluation.scores, evaluation.intervals, score),
        slices={group: rows for group, rows in worst.items() if rows},
        unfounded=errors.unfounded[:WORST_WORDS],
        missed=errors.missed[:WORST_WORDS],
        num_distinct=errors.num_distinct,
        licenses=list(dict.fromkeys(license or "not stated" for _, license, _, _ in data.sources)),
    )

"""Say what the last run of the pipeline ended with: captions, scores, the decision, and where to look next."""

import argparse
import json
from pathlib import Path

HELP = "what the last run of the pipeline ended with"
SCORES_A_LINE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: it reads `reports`."""


def run(options: argparse.Namespace) -> int:
    """Print three captions of test pictures with their references, the scores, and where to look next."""
    from captioning import params
    from captioning.home import mlruns

    metrics = json.loads(Path("reports/metrics.json").read_text())
    receipt = json.loads(Path("reports/registration.json").read_text())
    split = params.read()["evaluate"]["split"]
    with Path("reports/hypotheses.jsonl").open() as file:
        rows = [json.loads(line) for line, _ in zip(file, range(3), strict=False)]
    print("\nThree test pictures\n")
    for row in rows:
        print(f"  {row['image_id']}\n    caption:    {row['hypothesis']}")
        for position, reference in enumerate(row["references"]):
            print(f"    {'' if position else 'references:':<11} {reference}")
        print()
    print(f"Scores of {metrics['num_images']:,} {split} pictures ({metrics['tokenizer']} tokenizer)\n")
    scores = [f"{name:<20} {score:8.4f}" for name, score in metrics[split].items()]
    for start in range(0, len(scores), SCORES_A_LINE):
        print("  " + "    ".join(scores[start : start + SCORES_A_LINE]))
    print()
    print(f"Registered as {receipt['model_name']}. {receipt['reason']}\n")
    print("Where to look next\n")
    print(
        "  reports/evaluation.html                      the page of this run, for any browser: captions, scores, errors"
    )
    print("  reports/model_card.md, reports/data_card.md  what the model is, and what it learned from")
    print(
        "  reports/figures/                             learning curves, best and worst captions, attention"
    )
    print("  reports/validation/data_docs/index.html      what was expected of the data, and what was found")
    print(
        f"  make ui                                      runs and models of {mlruns()} in MLflow, and Prefect"
    )
    print("  captioning caption PHOTO --top 3             caption a picture of yours")
    return 0

"""Reports of a tiny, untrained captioner, for tests of what is made of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from captioning import encoders, lookup, reports
from captioning.captioner import Captioner
from captioning.evaluation import Evaluation
from captioning.examples import Examples
from captioning.generation import PLAIN_BEAM
from captioning.images import PixelTransform
from captioning.records import Hypothesis
from captioning.slices import Slice
from captioning.vocabulary import Vocabulary

WIDTHS = {
    "soft_attention": ("feature_width", "embedding_width", "attention_width", "hidden_width"),
    "adaptive_attention": ("embedding_width", "attention_width", "hidden_width"),
}
TRANSFORMER = {
    "width": 8,
    "num_heads": 2,
    "encoder_depth": 1,
    "decoder_depth": 1,
    "feedforward_width": 8,
}
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "phase": [1, 1, 2],
        "train_loss": [3.0, 2.0, np.nan],
        "train_reward": [np.nan, np.nan, 0.4],
        "val_loss": [3.1, 2.5, 2.6],
        "val_bleu_4": [0.1, 0.3, 0.2],
        "kept": [0, 1, 0],
    }
)
HOSTILE = '<script>alert("x")</script> & a|pipe `tick`'


def captioner(examples: Path, decoder: str = "soft_attention") -> Captioner:
    """Return an untrained captioner of these examples' vocabulary."""
    torch.manual_seed(0)
    widths = TRANSFORMER if decoder == "transformer" else dict.fromkeys(WIDTHS[decoder], 8)
    settings = {"name": decoder, "dropout": 0.0, "tied_embeddings": False, **widths}
    return Captioner(
        encoder=encoders.Settings(name="resnet18", weights="none", layer="layer3", pooled=False),
        decoder=lookup.find("decoders", decoder).Settings.model_validate(settings),
        vocabulary=Vocabulary.load(examples / "vocabulary.json"),
        transform=PixelTransform(height=64, width=64),
    ).eval()


def evaluation(examples: Examples, **changes: Any) -> Evaluation:
    """Return an evaluation whose captions are references, one of them hostile; scores are made up."""
    references = examples.references()
    ids = list(references)
    texts = {image_id: references[image_id][0].lower() for image_id in ids} | {ids[0]: HOSTILE, ids[1]: ""}
    scores = {"bleu_4": 0.25, "rouge_l": 0.5, "cider": 1.25, "perplexity": 12.5, "exact_match": 1.0}
    of_part = {"bleu_4": 0.125}
    values: dict[str, Any] = {
        "hypotheses": {key: Hypothesis(text=text, log_probability=-1.0) for key, text in texts.items()},
        "references": references,
        "scores": scores,
        "scores_of_images": {key: {"rouge_l": number / len(ids)} for number, key in enumerate(ids)},
        "intervals": {"bleu_4": (0.2, 0.3), "cider": (1.0, 1.5)},
        "slices": [
            Slice(
                group="object word",
                name=name,
                num_images=3,
                scores=of_part,
                intervals={"bleu_4": (0.0, 0.25)},
            )
            for name in ("square", "<unk>")
        ],
        "signature": "captioning | bleu | ptb | 5 images",
    }
    return Evaluation(**values | changes)


def write_verdicts(folder: Path) -> None:
    """Write the reports of both gates, one with a broken expectation."""
    broken = {
        "claim": "few images are of one flat colour",
        "holds": False,
        "severity": "warn",
        "observed": 0.5,
        "expected": "at most 0",
    }
    for gate, expectations in (("validation", [broken]), ("inspection", [])):
        report = {
            "accepted": True,
            "num_expectations": 7,
            "expectations": expectations,
            "notes": [f"a note of {gate}"],
        }
        (folder / gate).mkdir(parents=True, exist_ok=True)
        (folder / gate / "report.json").write_text(json.dumps(report))


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was written."""

    folder: Path
    evaluation: Evaluation

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def make(tables: Path, folder: Path, *, decoder: str = "soft_attention", **changes: Any) -> Made:
    """Write everything that the evaluate stage shows, of the tables in a folder and examples below it."""
    examples_folder = tables / "examples"
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    write_verdicts(folder)
    own = captioner(examples_folder, decoder)
    own.save(model, fingerprint="f00d")
    examples = Examples(examples_folder, "test")
    evaluated = evaluation(examples, **changes)
    ranking = reports.choose(evaluated, examples, tables / "clean")
    looks = reports.look(own, examples, ranking, PLAIN_BEAM)
    reports.draw_figures(HISTORY, ranking, looks, folder / "figures")
    reports.write_reports(
        evaluated,
        split="test",
        model=reports.read_model_facts(own, model, examples_folder, HISTORY),
        data=reports.read_data_facts(
            tables / "raw", tables / "clean", tables / "splits", examples_folder, folder
        ),
        history=HISTORY,
        ranking=ranking,
        looks=looks,
        examples_digest=examples.digest,
        folder=folder,
    )
    return Made(folder=folder, evaluation=evaluated)

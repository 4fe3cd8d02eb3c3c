"""Finished pipeline runs up to the register stage: real data, an untrained captioner, captions of a known quality."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from captioning import encoders, registry, splits, store
from captioning.captioner import Captioner
from captioning.decoders import soft_attention
from captioning.examples import Examples
from captioning.generation import PLAIN_BEAM
from captioning.images import PixelTransform
from captioning.preprocessing import PreprocessSettings, write_examples
from captioning.registry import DataFolders, Receipt, RegisterSettings
from captioning.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
GENERATION = PLAIN_BEAM.replaced(beam_width=2, max_words=5).model_dump()
PARAMS: dict[str, Any] = {"evaluate": {"generation": GENERATION}, "train": {"seed": 0}}
METRIC = "exact_match"
SETTINGS = RegisterSettings(
    model_name="captioner",
    metric=METRIC,
    min_gain=0.0,
    must_be_sure=True,
    bootstrap_samples=200,
    min_images=8,
    floors={},
    max_slice_loss=None,
    max_seconds_per_caption=None,
    approval=False,
)


def write_model(folder: Path, fingerprint: str, side: int = 32) -> Path:
    """Write an untrained captioner of a few words, which sees squares of `side` pixels."""
    torch.manual_seed(0)
    widths = {name: 8 for name in soft_attention.Settings.model_fields if name.endswith("_width")}
    decoder = {"name": "soft_attention", "dropout": 0.0, "tied_embeddings": False, **widths}
    captioner = Captioner(
        encoder=encoders.Settings(name="resnet18", weights="none", layer="layer1", pooled=False),
        decoder=soft_attention.Settings.model_validate(decoder),
        vocabulary=Vocabulary.build(["a red square", "a blue circle"], min_word_count=1),
        transform=PixelTransform(height=side, width=side),
    )
    folder.mkdir(parents=True)
    captioner.save(folder, fingerprint=fingerprint)
    return folder


def split_data(tables: Path, folder: Path, places: Mapping[str, range]) -> DataFolders:
    """Divide cleaned images by their position and make examples of them, 64 x 64 pixels."""
    folder.mkdir(parents=True)
    image_ids = pq.read_table(tables / "clean" / "images.parquet")["image_id"].to_pylist()
    split_of = {position: name for name, own in places.items() for position in own}
    rows = {"image_id": image_ids, "split": [split_of[position] for position in range(len(image_ids))]}
    (folder / "splits").mkdir()
    pq.write_table(pa.table(rows, schema=splits.SCHEMA), folder / "splits" / "images.parquet")
    data = DataFolders(
        raw=tables / "raw", clean=tables / "clean", splits=folder / "splits", examples=folder / "examples"
    )
    settings = PreprocessSettings(
        image=PixelTransform(height=64, width=64),
        storage="pixels",
        jpeg_quality=95,
        tokens="words",
        min_word_count=1,
        max_words=24,
        images_per_shard=64,
    )
    write_examples(data.raw, data.clean, data.splits, data.examples, settings)
    return data


def write_reports(folder: Path, data: DataFolders, quality: float, **scores: float) -> None:
    """Write what the stages before register leave in reports/: so great a share of the captions is right."""
    for name in ("training", "figures", "validation", "inspection"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "training" / "history.csv").write_text("epoch,train_loss,val_bleu_4\n1,2.0,0.1\n2,1.0,0.2\n")
    (folder / "figures" / "learning_curve.png").write_bytes(b"\x89PNG")
    for name in ("evaluation.html", "data_card.md", "model_card.md", "model.json"):
        (folder / name).write_text("{}")
    for name in ("validation", "inspection"):
        (folder / name / "verdict.json").write_text('{"accepted": true}\n')
    (folder / "validation" / "profile.json").write_text(json.dumps({"num_images": 2}) + "\n")
    references = Examples(data.examples, "test").references()
    num_right = round(quality * len(references))
    rows = [
        {"image_id": image_id, "hypothesis": own[0] if number < num_right else "a", "references": own}
        for number, (image_id, own) in enumerate(references.items())
    ]
    metrics = {
        "test": {METRIC: num_right / len(references), "cider": 0.5, **scores},
        "tokenizer": "none",
        "num_images": len(references),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "hypotheses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Project:
    """A finished pipeline run, up to the register stage."""

    root: Path
    model_name: str
    data: DataFolders

    @property
    def settings(self) -> RegisterSettings:
        return SETTINGS.model_copy(update={"model_name": self.model_name})

    @property
    def model(self) -> Path:
        return self.root / "models" / "captioner"

    def register(self, quality: float, data: DataFolders | None = None, **changes: Any) -> Receipt:
        write_reports(self.root / "reports", data or self.data, quality)
        return self.register_reports(data, **changes)

    def register_reports(self, data: DataFolders | None = None, **changes: Any) -> Receipt:
        settings = RegisterSettings.model_validate(self.settings.model_dump() | changes)
        return registry.register(self.model, self.root / "reports", data or self.data, settings, PARAMS)

    def aliases(self) -> dict[str, int]:
        found = store.client().get_registered_model(self.model_name).aliases
        return {alias: int(version) for alias, version in found.items()}


def python(*arguments: str, home: Path, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """Start Python with a registry."""
    env = {**os.environ, "CAPTIONING_HOME": str(home)}
    command = [sys.executable, *arguments]
    return subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

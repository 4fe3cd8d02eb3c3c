"""Decoders trained with one budget on the same pictures, scored on the same test split.

    captioning use flickr8k-attention && dvc repro inspect
    python -m bench.quality [NAME ...]           # 20 to 30 minutes a decoder on two cores
    python -m bench.quality --rates [NAME ...]   # captions a second in training, in turns, on an idle machine

The budget is the present params.yaml: encoder, images and captions seen, schedule, and how captions are decoded. Only
the decoder changes, and what its literature has otherwise (below). A model that is trained is not trained again; the
rows are in reports/quality.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.comparison import in_turns
from captioning import lookup, params
from captioning.captioner import Captioner
from captioning.distributed import device
from captioning.evaluation import evaluate
from captioning.examples import Examples
from captioning.home import work
from captioning.outputs import whole_file, whole_folder
from captioning.training import Training, TrainSettings
from captioning.training.schedules import Moment

EXAMPLES, WEIGHTS, REPORT = Path("data/examples"), Path("weights"), Path("reports/quality.json")
SCORES = ("bleu_4", "cider")
STEPS = 4
"""Timed in a row."""

WIDE = {"embedding_width": 512, "hidden_width": 512, "dropout": 0.5, "tied_embeddings": False}
DECODERS: dict[str, dict[str, Any]] = {
    "show_and_tell": WIDE | {"cell": "lstm", "depth": 1, "image": "first_input", "batch_norm": True},
    "merge": WIDE | {"cell": "lstm"},
    "bahdanau": WIDE | {"cell": "gru", "feature_width": 512, "attention_width": 256},
    "luong": WIDE | {"cell": "lstm", "score": "general", "input_feeding": True, "feature_width": 512},
    "soft_attention": WIDE | {"feature_width": 512, "attention_width": 256},
    "adaptive_attention": WIDE | {"attention_width": 256},
    "top_down": WIDE | {"feature_width": 512, "attention_width": 256},
    "transformer": {
        "width": 256,
        "num_heads": 8,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "feedforward_width": 1024,
        "dropout": 0.3,
        "tied_embeddings": True,
    },
}
LEARNING_RATES = {"transformer": 5e-4}
"""Where it is not the budget's."""


def main(names: list[str], *, rates: bool) -> None:
    """Train and score what is not there yet, or time the training; print the table."""
    rows = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    if rates:
        timed = in_turns({name: _steps(name) for name in names})
        found = {name: {"captions_per_second": round(own, 1)} for name, own in timed.items()}
        _note(rows, found)
    else:
        for name in names:
            _note(rows, {name: _scores(name)})
    print(table({name: rows[name] for name in names}))


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown, the best on val first."""
    lines = [
        "| decoder | val BLEU-4 | val CIDEr | test BLEU-4 | test CIDEr | parameters | captions/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in sorted(rows.items(), key=lambda row: -row[1].get("val", {}).get("bleu_4", 0.0)):
        scores = [
            f"{own[split][score]:.4f}" if split in own else ""
            for split in ("val", "test")
            for score in SCORES
        ]
        parameters = f"{own['parameters'] / 1e6:.1f} M" if "parameters" in own else ""
        lines.append(
            f"| {' | '.join([name, *scores, parameters, str(own.get('captions_per_second', ''))])} |"
        )
    return "\n".join(lines)


def _note(rows: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
    for name, own in found.items():
        rows[name] = rows.get(name, {}) | own
    REPORT.parent.mkdir(exist_ok=True)
    with whole_file(REPORT) as aside:
        aside.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")


def _settings(name: str) -> TrainSettings:
    values = params.read()["train"]
    values["decoder"] = {"name": name, **DECODERS[name]}
    for phase in values["phases"]:
        if not lookup.find("decoders", name).Decoder.has_full_attention:
            phase["objective"]["attention_penalty"] = 0.0
        phase["optimizer"]["learning_rate"] = LEARNING_RATES.get(name, phase["optimizer"]["learning_rate"])
    return TrainSettings.model_validate(values)


def _scores(name: str) -> dict[str, Any]:
    """Train a decoder, unless that was done, and return its scores on val and test."""
    training = Training(EXAMPLES, _settings(name), weights=WEIGHTS, work=work())
    model = work("quality") / training.fingerprint
    if not model.exists():
        training.run()
        with whole_folder(model) as aside:
            training.captioner.save(aside, fingerprint=training.fingerprint)
        training.close()
    captioner = Captioner.load(model, device())
    row: dict[str, Any] = {"parameters": sum(own.numel() for own in captioner.decoder.parameters())}
    for split in ("val", "test"):
        settings = params.load("evaluate").model_copy(update={"split": split})
        row[split] = {
            score: round(own, 4)
            for score, own in evaluate(captioner, Examples(EXAMPLES, split), settings).scores.items()
        }
    return row


def _steps(name: str) -> Callable[[], float]:
    """Return a function that trains some steps and returns captions a second."""
    training = Training(EXAMPLES, _settings(name), weights=WEIGHTS, work=work())
    phase = training.phase(0)
    batches = phase.batches(0, first_step=0)
    moment = Moment(step=0, steps_per_epoch=phase.steps_per_epoch, epochs=1, history=[])

    def captions_per_second() -> float:
        training.captioner.train()
        own = [next(batches) for _ in range(STEPS)]
        began = time.perf_counter()
        for batch in own:
            phase.step(batch, moment)
        return sum(int((batch.lengths_N > 0).sum()) for batch in own) / (time.perf_counter() - began)

    return captions_per_second


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"out of {', '.join(DECODERS)}; default: all"
    )
    parser.add_argument("--rates", action="store_true", help="time the training instead")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(DECODERS)):
        parser.error(f"no decoder {', '.join(unknown)}; available: {', '.join(DECODERS)}")
    main(arguments.names or [*DECODERS], rates=arguments.rates)

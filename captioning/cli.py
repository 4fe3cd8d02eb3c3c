"""What a user types: `captioning caption`, `use`, `probe`, `compare`, `report`."""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

IMAGES_PER_BATCH = 16
SCORES_A_LINE = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; refuse with one message and exit code 1."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(options.command(options))
    except (ValueError, OSError) as error:
        print(f"captioning: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captioning", description="Captioned images in, a captioning model in service out."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    caption = commands.add_parser(
        "caption", help="caption pictures with the champion, or with a model folder"
    )
    caption.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    caption.add_argument(
        "--model", metavar="NAME_OR_FOLDER", help="registered model, or folder (default: register.model_name)"
    )
    caption.add_argument(
        "--beam", type=_positive, default=3, metavar="K", help="hypotheses kept at each word (default: 3)"
    )
    caption.add_argument(
        "--top", type=_positive, default=1, metavar="N", help="captions a picture (default: 1)"
    )
    caption.add_argument(
        "--max-words", type=_positive, default=24, metavar="N", help="longest caption (default: 24)"
    )
    caption.add_argument("--json", action="store_true", help="one JSON line a picture, in the order given")
    caption.add_argument(
        "--attention", type=Path, metavar="DIR", help="draw where the model looked, one PNG a picture"
    )
    caption.set_defaults(command=caption_photos)

    use = commands.add_parser("use", help="write params.yaml from a recipe, with settings replaced")
    use.add_argument("recipe", help="name of a file in recipes/")
    use.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="such as train.phases.0.epochs=20")
    use.set_defaults(command=use_recipe)

    probe = commands.add_parser(
        "probe", help="look whether the source has new data, which `dvc repro` then fetches"
    )
    probe.set_defaults(command=probe_source)

    compare = commands.add_parser("compare", help="scores of several runs, and whether they differ")
    compare.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder with reports, NAME/VERSION, NAME@champion, or the beginning of an MLflow run's id",
    )
    compare.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write comparison.md, .csv and .png, and curves.png"
    )
    compare.set_defaults(command=compare_runs)

    report = commands.add_parser("report", help="what the last run of the pipeline ended with")
    report.set_defaults(command=report_last_run)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def use_recipe(options: argparse.Namespace) -> int:
    """Write params.yaml."""
    from captioning import recipes

    recipes.use(options.recipe, options.settings)
    print(f"params.yaml is now {options.recipe}; `dvc repro` runs it")
    return 0


def probe_source(options: argparse.Namespace) -> int:
    """Write source.json, on which the download stage depends, and say what is new; fetch nothing."""
    from captioning import params, source_state

    seen = source_state.observe(params.load("download"))
    news = source_state.changes(source_state.read(), seen)
    print("\n".join(news) or "nothing is new")
    if news:
        source_state.write(seen)
    return 0


def compare_runs(options: argparse.Namespace) -> int:
    """Print the table of several runs as Markdown; with `--out` also write it, its picture and the curves."""
    from captioning.named_runs import read_named_run
    from captioning.reports import comparison_table

    compared = comparison_table.compare_runs([read_named_run(run) for run in options.runs])
    print(comparison_table.markdown(compared), end="")
    if options.out:
        comparison_table.write_comparison(compared, options.out)
    return 0


def caption_photos(options: argparse.Namespace) -> int:
    """Caption each picture; a broken one is one line, the others are still captioned. Return 1 if any was broken."""
    from captioning.captioner import Captioner
    from captioning.distributed import device

    captioner = Captioner.load(_model_folder(options.model), device())
    if options.attention:
        options.attention.mkdir(parents=True, exist_ok=True)
    num_broken = 0
    for start in range(0, len(options.photos), IMAGES_PER_BATCH):
        for row in _caption_batch(captioner, options.photos[start : start + IMAGES_PER_BATCH], options):
            num_broken += row["error"] is not None
            _print_row(row, options.json)
    return int(num_broken > 0)


def _model_folder(name: str | None) -> Path:
    from captioning.champion import champion_folder

    if name is not None and (Path(name) / "captioner.json").exists():
        return Path(name)
    if name is None:
        from captioning import params

        name = str(params.read()["register"]["model_name"])
    return champion_folder(name)


def _caption_batch(
    captioner: Any, photos: Sequence[Path], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield one row a picture, in the order given."""
    from captioning.images import BadImage, decode

    images, errors = {}, {}
    for number, photo in enumerate(photos):
        try:
            images[number] = decode(photo.read_bytes())
        except (BadImage, OSError) as error:
            errors[number] = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hypotheses = {}
    if images:
        captions = captioner.caption(
            list(images.values()),
            beam_width=options.beam,
            top=options.top,
            max_words=options.max_words,
            with_attention=options.attention is not None,
        )
        hypotheses = dict(zip(images, captions, strict=True))
    for number, photo in enumerate(photos):
        own = hypotheses.get(number, [])
        if own and options.attention:
            _draw_attention(captioner, images[number], own[0], options.attention / f"{photo.stem}.png")
        rows = [{"text": best.text, "probability": math.exp(best.log_probability)} for best in own]
        yield {"image": str(photo), "captions": rows, "error": errors.get(number)}


def _draw_attention(captioner: Any, image: Any, hypothesis: Any, path: Path) -> None:
    import numpy as np

    from captioning.figures import attention_sheet

    if hypothesis.attention is None:
        raise ValueError("--attention: this model's decoder does not attend, so it has no attention to draw")
    weights_TL = np.array(hypothesis.attention)
    attention_sheet(image, hypothesis.words, weights_TL, captioner.encoder.grid, path)


def _print_row(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(row, ensure_ascii=False), flush=True)
    elif row["error"] is not None:
        print(f"{row['image']}: {row['error']}", file=sys.stderr, flush=True)
    else:
        print(row["image"])
        for caption in row["captions"]:
            print(f"  {caption['probability']:.1e}  {caption['text']}", flush=True)


def report_last_run(options: argparse.Namespace) -> int:
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

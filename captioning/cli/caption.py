"""Caption pictures with the champion, or with a model folder; a broken picture is one line."""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HELP = "caption pictures with the champion, or with a model folder"
IMAGES_PER_BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument(
        "--model", metavar="NAME_OR_FOLDER", help="registered model, or folder (default: register.model_name)"
    )
    parser.add_argument(
        "--beam", type=_positive, default=3, metavar="K", help="hypotheses kept at each word (default: 3)"
    )
    parser.add_argument(
        "--top", type=_positive, default=1, metavar="N", help="captions a picture (default: 1)"
    )
    parser.add_argument(
        "--max-words", type=_positive, default=24, metavar="N", help="longest caption (default: 24)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line a picture, in the order given")
    parser.add_argument(
        "--attention", type=Path, metavar="DIR", help="draw where the model looked, one PNG a picture"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def run(options: argparse.Namespace) -> int:
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

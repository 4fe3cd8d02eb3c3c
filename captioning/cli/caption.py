"""Caption pictures: files, folders, patterns such as '**/*.jpg', addresses, and `-` for a list of these.

A picture that cannot be read is a row with the reason, and the exit code is then 1. With --out a run that was ended
goes on where it was when the same command is given again.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioning.caption_files import Row
    from captioning.picture_captions import PictureCaptions

HELP = "caption pictures, folders and addresses with the champion, or with a model folder"
FORMATS = {".txt": "text", ".jsonl": "jsonl", ".csv": "csv", ".md": "markdown"}
"""The suffix of a file -> what is written to it."""
XMP = "xmp"
METHODS: dict[str, dict[str, Any]] = {
    "beam": {"beam_width": 3, "length_normalisation": None},
    "diverse_beam": {
        "beam_width": 6,
        "num_groups": 3,
        "diversity_penalty": 0.5,
        "length_normalisation": None,
    },
    "sample": {"num_samples": 1, "temperature": 1.0, "top_k": None, "top_p": None, "seed": 0},
}
"""What --method begins with."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="file, folder, pattern, address, or -")
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME_OR_FOLDER",
        help="registered model or folder (default: register.model_name); given several times, they decide together",
    )
    parser.add_argument(
        "--top", type=_positive, default=1, metavar="N", help="captions a picture (default: 1)"
    )
    parser.add_argument("--beam", type=_positive, metavar="K", help="the same as --set beam_width=K")
    parser.add_argument("--max-words", type=_positive, metavar="N", help="the same as --set max_words=N")
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="how captions are made (default: as the model was registered, else beam)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the method, such as no_repeat_ngram=2 or top_p=0.9; keys as in evaluate.generation",
    )
    parser.add_argument(
        "--format",
        choices=[*FORMATS.values(), XMP],
        help="default: text, or as the name of --out ends: .jsonl, .csv, .md",
    )
    parser.add_argument("--json", action="store_true", help="the same as --format jsonl")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write all rows to a file, once all are there"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="--format xmp writes a sidecar beside each picture: replace descriptions that are there, too",
    )
    parser.add_argument(
        "--attention", type=Path, metavar="DIR", help="draw where the model looked, one PNG a picture"
    )
    parser.add_argument(
        "--allow-private-addresses", action="store_true", help="fetch from addresses in private networks, too"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def run(options: argparse.Namespace) -> int:
    """Caption each picture; a broken one is one row, the others are still captioned. Return 1 if any was broken."""
    from captioning import picture_sources

    form = _form(options)
    names = picture_sources.expand(options.pictures, sys.stdin)
    if form == XMP:
        return _write_sidecars(names, options)
    return _write_file(names, form, options) if options.out else _print(names, form, options)


def _print(names: Sequence[str], form: str, options: argparse.Namespace) -> int:
    """Print each row as it comes; what is no caption goes to stderr, where it would be no row."""
    from captioning import caption_files

    num_broken = 0

    def rows() -> Iterator["Row"]:
        nonlocal num_broken
        for row in _loaded(options).rows(names):
            num_broken += row["error"] is not None
            if row["error"] is not None and form == "text":
                print(caption_files.as_text(row), end="", file=sys.stderr, flush=True)
            else:
                yield row

    for line in caption_files.lines(form, rows(), top=options.top):
        print(line, end="", flush=True)
    return int(num_broken > 0)


def _write_file(names: Sequence[str], form: str, options: argparse.Namespace) -> int:
    """Write all rows to a file, which appears whole."""
    from captioning import caption_files
    from captioning.picture_sources import printable
    from captioning.progress import progress, say

    pictures = _loaded(options)
    with caption_files.Kept(options.out, pictures.made_by) as kept:
        todo = [name for name in names if printable(name) not in kept.rows]
        for row in progress(pictures.rows(todo), total=len(todo), what="caption", unit="pictures"):
            kept.append(row)
        rows = [kept.rows[printable(name)] for name in names]
        caption_files.write(options.out, form, rows, top=options.top)
        kept.remove()
    num_broken = sum(row["error"] is not None for row in rows)
    say(f"{options.out}: {len(rows):,} pictures, {num_broken:,} of them broken")
    return int(num_broken > 0)


def _write_sidecars(names: Sequence[str], options: argparse.Namespace) -> int:
    """Write a sidecar beside each picture that has no description yet."""
    from captioning import sidecars
    from captioning.progress import progress, say

    todo = names if options.overwrite else [name for name in names if not sidecars.is_described(Path(name))]
    if len(todo) < len(names):
        say(f"{len(names) - len(todo):,} pictures have a description already; --overwrite replaces them")
    pictures = _loaded(options)
    num_broken = 0
    for row in progress(pictures.rows(todo), total=len(todo), what="caption", unit="pictures"):
        error = row["error"]
        if error is None:
            try:
                sidecars.write(Path(row["image"]), row["captions"][0]["text"], writer=pictures.made_by)
            except (ValueError, OSError) as refused:
                error = str(refused)
        if error is not None:
            num_broken += 1
            print(f"{row['image']}: {error}", file=sys.stderr, flush=True)
    return int(num_broken > 0)


def _form(options: argparse.Namespace) -> str:
    """Return what is written."""
    stated = "jsonl" if options.json else options.format
    if stated == XMP:
        if options.out or (addresses := [own for own in options.pictures if "://" in own]):
            what = "--out" if options.out else addresses[0]
            raise ValueError(f"--format xmp writes a sidecar beside each file, so it takes no {what}")
        return XMP
    if stated or not options.out:
        return stated or "text"
    if options.out.suffix not in FORMATS:
        raise ValueError(
            f"--out {options.out} does not say what to write: end it with .jsonl, .csv or .md, or add --format"
        )
    return FORMATS[options.out.suffix]


def _loaded(options: argparse.Namespace) -> "PictureCaptions":
    """Return what makes the rows."""
    from captioning import named_models
    from captioning.picture_captions import PictureCaptions

    model = named_models.load(options.model or [])
    generation = _generation(options, model.generation)
    return PictureCaptions(
        model.captioner,
        generation,
        top=options.top,
        made_by=f"captioning, training {model.trainings}, {generation}, top={options.top}",
        attention=options.attention,
        allow_private_addresses=options.allow_private_addresses,
    )


def _generation(options: argparse.Namespace, registered: Any) -> Any:
    """Return how captions are made: as the model was registered, with what is asked for in its place."""
    from ruamel.yaml import YAML

    from captioning.generation import ConstraintSettings, read_settings

    generation = registered
    if options.method and options.method != registered.method:
        shared = {key: getattr(registered, key) for key in ConstraintSettings.model_fields}
        generation = read_settings(shared | METHODS[options.method] | {"method": options.method})
    stated = {"beam_width": options.beam, "max_words": options.max_words}
    changes = {key: value for key, value in stated.items() if value is not None}
    for setting in options.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: expected KEY=VALUE, such as no_repeat_ngram=2")
        changes[key] = YAML(typ="safe", pure=True).load(value)
    return generation.replaced(**changes)

"""Find captioned pictures by words: any of them, the best match first; "in quotes" together, -word excluded."""

import argparse
import json
import sys
from pathlib import Path

HELP = "find pictures of an indexed folder by words"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("words", nargs="+", metavar="WORDS", help="such as: person sitting on a bench")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="pictures at most (default: 10)")
    parser.add_argument("--json", action="store_true", help="one JSON line a picture")
    parser.add_argument("--collection", type=Path, metavar="FILE", help="default: collection.db of this home")


def run(options: argparse.Namespace) -> int:
    """Print what is found, the best first. Return 1 if that is nothing."""
    from captioning import collection, home

    mark = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    opened = collection.open_for_search(options.collection or home.collection())
    found = opened.search(" ".join(options.words), top=options.top)
    for own in found:
        opening, closing = ("", "") if options.json else mark
        caption = own.caption.replace(collection.OPEN, opening).replace(collection.CLOSE, closing)
        if options.json:
            row = {"image": own.path, "caption": caption, "score": round(own.score, 4)}
            print(json.dumps(row, ensure_ascii=False))
        else:
            print(f"{own.path}\n  {caption}")
    if not found:
        print("nothing was found", file=sys.stderr)
    return int(not found)

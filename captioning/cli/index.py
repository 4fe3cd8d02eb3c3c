"""Caption the pictures of a folder so that `captioning search` finds them by words.

Given again it captions what is new or has changed, tries again what could not be read, and forgets what is gone. Ended,
even by `kill -9`, it goes on where it was.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captioning.caption_files import Row

HELP = "caption the pictures of folders, to find them by words"
SECONDS_BETWEEN_COMMITS = 10.0
CAPTIONS_A_PICTURE = 3
"""Different words for the same thing: a query finds either."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME_OR_FOLDER",
        help="registered model or folder (default: register.model_name)",
    )
    parser.add_argument("--collection", type=Path, metavar="FILE", help="default: collection.db of this home")
    parser.add_argument(
        "--again", action="store_true", help="also caption anew what another model has captioned"
    )


def run(options: argparse.Namespace) -> int:
    """Bring the collection up to date. Return 1 if a picture could not be read."""
    from captioning import home, named_models
    from captioning.collection import Collection
    from captioning.picture_captions import PictureCaptions
    from captioning.picture_sources import inside, printable
    from captioning.progress import progress, say

    folder = options.collection or home.collection()
    collection = Collection(folder)
    names: dict[str, str] = {}
    known: dict[str, tuple[str, str]] = {}
    for pictures_folder in options.folders:
        if not pictures_folder.is_dir():
            raise ValueError(f"{pictures_folder} is no folder; `captioning index` takes folders of pictures")
        resolved = str(pictures_folder.resolve())
        names |= {printable(path): path for path in inside(resolved)}
        known |= collection.states(resolved)
    states = {name: _state(path) for name, path in names.items()}
    gone = known.keys() - names.keys()
    if gone:
        collection.update([], {}, "", gone=gone)
    model = named_models.load(options.model)
    others = {name for name, (_, made_by) in known.items() if made_by != model.trainings and name in names}
    todo = [
        name
        for name in names
        if name not in known or known[name][0] != states[name] or (options.again and name in others)
    ]
    pictures = PictureCaptions(
        model.captioner,
        model.generation,
        top=CAPTIONS_A_PICTURE,
        made_by=model.trainings,
        attention=None,
        allow_private_addresses=False,
    )
    num_broken = 0
    rows = pictures.rows([names[name] for name in todo])
    for some in _groups(progress(rows, total=len(todo), what="index", unit="pictures")):
        collection.update(some, states, model.trainings)
        for row in some:
            if row["error"] is not None:
                num_broken += 1
                print(f"{row['image']}: {row['error']}", file=sys.stderr, flush=True)
    say(
        f"{folder}: {len(todo):,} pictures captioned, {num_broken:,} of them broken, {len(gone):,} gone, "
        f"{len(collection):,} in all"
    )
    if left := others.difference(todo):
        say(f"{len(left):,} have captions of another model; --again makes them anew")
    return int(num_broken > 0)


def _state(path: str) -> str:
    """Return what changes when the file does."""
    try:
        found = Path(path).stat()
    except OSError:  # its row says why
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _groups(rows: Iterable["Row"]) -> Iterator[list["Row"]]:
    """Yield rows some at a time: what a kill can undo."""
    group: list[Row] = []
    began = time.monotonic()
    for row in rows:
        group.append(row)
        if time.monotonic() - began > SECONDS_BETWEEN_COMMITS:
            yield group
            group, began = [], time.monotonic()
    if group:
        yield group

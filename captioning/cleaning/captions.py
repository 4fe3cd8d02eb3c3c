"""Raw captions -> normalised ones with a verdict: kept, kept and flagged, or quarantined, and why."""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from captioning import tables
from captioning.params import Settings

JUDGED = pa.schema(
    {
        "row": pa.int64(),
        "image_id": pa.string(),
        "position": pa.int32(),
        "caption": pa.string(),
        "flag": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)
"""Captions with the number of their image's row in rows.parquet; `reason` is empty where the caption can be kept."""
SHOWN_CHARACTERS = 60
"""Of a caption in a detail."""
WORD = re.compile(r"\w")
LAST_OF_BASIC_PLANE = 0xFFFF


class CaptionLimits(Settings):
    """What a caption must be."""

    max_caption_words: int = Field(ge=1)
    """Words between white space; longer captions are quarantined."""
    script: str | None
    """First word of the Unicode names of the letters expected (LATIN, CYRILLIC, CJK, ...); null is any."""

    @field_validator("script")
    @classmethod
    def _names_letters(cls, script: str | None) -> str | None:
        characters = map(chr, range(LAST_OF_BASIC_PLANE))
        if script is not None and not any(_is_of(character, script) for character in characters):
            raise ValueError(
                f"no Unicode name begins with {script!r}; expected LATIN, CYRILLIC, GREEK, ARABIC, HANGUL, CJK "
                "or the like, or null for any script"
            )
        return script


def judge_captions(raw: Path, path: Path, limits: CaptionLimits) -> None:
    """Write the captions of `raw`, normalised and judged, in their order, as the table `path` (`JUDGED`).

    Raises:
        ValueError: the captions do not stand in the order of the rows.
    """
    captions, again = itertools.tee(
        tables.read(raw / "captions.parquet", ["image_id", "position", "caption"])
    )
    known = tables.read(raw / "rows.parquet", ["image_id"])
    numbers = find_rows(map(_image_ids, again), map(_image_ids, known))
    tables.write(map(functools.partial(_judge_batch, limits=limits), captions, numbers), path, JUDGED)


def _image_ids(batch: pa.RecordBatch) -> pa.Array:
    return batch["image_id"].cast(pa.string())


def find_rows(image_ids: Iterable[pa.Array], known: Iterator[pa.Array]) -> Iterator[np.ndarray]:
    """Yield, for each array of ids, their positions in the sequence `known`; both are in the same order.

    One array of each is held in memory.

    Raises:
        ValueError: an id is not in `known`, or before one that follows it there.
    """
    window, first = pa.array([], pa.string()), 0
    for own in image_ids:
        found, rest = [np.empty(0, dtype=np.int64)], own
        while len(rest):
            positions = pc.index_in(rest, window).fill_null(-1).to_numpy().astype(np.int64)
            is_out_of_order = (positions < 0) | (np.diff(positions, prepend=0) < 0)
            num_found = int(is_out_of_order.argmax()) if is_out_of_order.any() else len(rest)
            found.append(first + positions[:num_found])
            rest = rest[num_found:]
            if len(rest):
                first += len(window)
                window = next(known, None)
                if window is None:
                    raise ValueError(
                        f"captions.parquet: image {rest[0].as_py()!r} is not in rows.parquet, or its captions do "
                        "not stand where its row does; run `dvc repro --force download`"
                    )
        yield np.concatenate(found)


def _judge_batch(batch: pa.RecordBatch, rows: np.ndarray, limits: CaptionLimits) -> pa.RecordBatch:
    columns: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
    captions, flags, reasons, details = columns
    for caption in batch["caption"].to_pylist():
        text, flag, reason, detail = judge(caption, limits)  # not kept: the collector would visit each tuple
        captions.append(text)
        flags.append(flag)
        reasons.append(reason)
        details.append(detail)
    verdicts = {name: pa.array(own, pa.string()) for name, own in zip(JUDGED.names[3:], columns, strict=True)}
    return pa.RecordBatch.from_pydict(
        {"row": rows, "image_id": batch["image_id"], "position": batch["position"], **verdicts}
    )


def judge(caption: str, limits: CaptionLimits) -> tuple[str, str, str, str]:
    """Return the caption normalised, its flag, and the reason and the detail why it is not kept, else empty."""
    text = normalise(caption)
    num_words = text.count(" ") + 1
    if not (text[:1].isalnum() or WORD.search(text)):
        return text, "", "empty-caption", f"{text[:SHOWN_CHARACTERS]!r} has no word"
    if num_words > limits.max_caption_words:
        shown = f"{text[:SHOWN_CHARACTERS]!r}..."
        return text, "", "caption-too-long", f"{num_words} words, at most {limits.max_caption_words}: {shown}"
    return text, "foreign-looking" if is_foreign(text, limits.script) else "", "", ""


def normalise(caption: str) -> str:
    """Return the caption in Unicode NFKC, without control characters, with single spaces; case is kept."""
    if caption.isascii() and caption.isprintable() and "  " not in caption:
        return caption.strip(" ")  # the only white space that is printable
    printable = "".join(
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFKC", caption)
        if character.isspace() or unicodedata.category(character) not in {"Cc", "Cf"}
    )
    return " ".join(printable.split())


def is_foreign(caption: str, script: str | None) -> bool:
    """Tell whether fewer than half of a caption's letters are of the script; of no letters none is foreign."""
    if script is None or (script == "LATIN" and caption.isascii()):
        return False
    letters = [character for character in caption if character.isalpha()]
    return 2 * sum(_is_of(letter, script) for letter in letters) < len(letters)


@functools.cache
def _is_of(character: str, script: str) -> bool:
    return unicodedata.name(character, "").startswith(f"{script} ")

"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0

is_silent = False
"""Of several processes that do the same one speaks."""


def progress(rows: Iterable[T], *, total: int, what: str, unit: str = "images") -> Iterator[T]:
    """Yield `rows` unchanged while showing on stderr how many of `total` are done, the rate and the time left."""
    if sys.stderr.isatty() and not is_silent:
        yield from tqdm(rows, total=total, desc=what, unit=f" {unit}", leave=False, dynamic_ncols=True)
        return
    began = last = time.monotonic()
    for count, row in enumerate(rows, start=1):
        yield row
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = count / (now - began)
            left = max(total - count, 0) / rate
            say(
                f"{what}: {count:,} of {total:,} {unit}, {rate:,.{0 if rate >= 10 else 1}f}/s, {left:,.0f} s left"
            )


def say(line: str) -> None:
    """Print one line for a person, at once, without tearing a progress bar."""
    if is_silent:
        return
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def in_bytes(num_bytes: float) -> str:
    """Return a size as a person reads it."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.1f} MB"


def in_time(seconds: float) -> str:
    """Return a duration as a person reads it."""
    if seconds >= 5400:
        return f"{seconds / 3600:,.1f} hours"
    return f"{seconds / 60:,.0f} minutes" if seconds >= 90 else f"{seconds:,.0f} s"

"""One stage, run by DVC under the supervisor: what it prints, line by line, and how it ended."""

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flows.orphans import under_supervisor
from flows.supervisor import TIMED_OUT

SECONDS_BETWEEN_REDRAWS = 10.0
"""At most one line is kept in this time of a progress bar that redraws itself with carriage returns."""

MAX_LINE_CHARACTERS = 4_000
"""A longer line is cut: Prefect drops log records that are too long."""

NUM_LAST_LINES = 20
"""Kept for the message of a failure."""


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """How one run of a stage ended."""

    outcome: str
    """ran, cached (restored from DVC's run cache), unchanged, failed, refused (by a gate), or timed out."""
    has_begun: bool
    """DVC started the stage's command."""
    seconds: float
    last_lines: tuple[str, ...] = field(repr=False)
    """The end of what the stage and DVC printed."""


def run_stage(
    name: str, emit: Callable[[str], None], *, force: bool = False, timeout_seconds: float | None = None
) -> StageRun:
    """Run `dvc repro --single-item name` and pass on each line that it prints.

    Everything below it is ended after `timeout_seconds`, and when this process dies or leaves this function by
    an exception, which may be Prefect's cancellation. Must be called in the main thread.
    """
    began = time.monotonic()
    outcome = None
    last_lines: deque[str] = deque(maxlen=NUM_LAST_LINES)
    options = ["--force"] if force else []
    command = dvc_command("--wait-for-lock", "repro", "--single-item", *options, name)
    with under_supervisor(command, limit_seconds=timeout_seconds, env=stage_environment()) as process:
        assert process.stdout is not None
        try:
            for line in read_lines(process.stdout):
                outcome = _outcome(name, line) or outcome
                last_lines.append(line)
                emit(line)
            exit_code = process.wait()
        except BaseException:
            process.terminate()  # the supervisor ends the tree within its grace
            process.stdout.read()  # a full or closed pipe must not hurt a stage that is saving its state
            process.wait()
            raise
    has_begun = outcome == "ran"
    if exit_code < 0:
        last_lines.append(
            f"the supervisor was killed by signal {-exit_code}, and what it had started was ended"
        )
        emit(last_lines[-1])
    if exit_code:
        outcome = "timed out" if exit_code == TIMED_OUT else "failed"
    return StageRun(
        outcome=outcome or "ran",
        has_begun=has_begun,
        seconds=time.monotonic() - began,
        last_lines=tuple(last_lines),
    )


def dvc_command(*arguments: str) -> list[str]:
    """Return the command line of DVC in this very environment."""
    return [sys.executable, "-m", "dvc", *arguments]


def stage_environment() -> dict[str, str]:
    """Return this environment with this Python first, bash as DVC's shell, and unbuffered output."""
    search_path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {
        **os.environ,
        "PATH": os.pathsep.join(search_path),
        "SHELL": "/bin/bash",  # DVC runs `cmd` with $SHELL, which differs under cron and in containers
        "PYTHONUNBUFFERED": "1",
    }


def read_lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield the lines of `stream` as they come, split at newlines and carriage returns, without blank ones.

    Of lines that end in a carriage return one in `SECONDS_BETWEEN_REDRAWS` is kept. Bytes that are not UTF-8
    become the replacement character.
    """
    last_redraw = -SECONDS_BETWEEN_REDRAWS
    rest = b""
    while piece := os.read(stream.fileno(), 65536):
        *ended, rest = re.split(rb"(\r\n|\n|\r(?!\Z))", rest + piece)
        for line, end in zip(ended[::2], ended[1::2], strict=True):
            if end == b"\r":
                if time.monotonic() - last_redraw < SECONDS_BETWEEN_REDRAWS:
                    continue
                last_redraw = time.monotonic()
            yield from _readable(line)
    yield from _readable(rest)


def _readable(line: bytes) -> Iterator[str]:
    if text := line.decode(errors="replace").rstrip():
        yield (
            text
            if len(text) <= MAX_LINE_CHARACTERS
            else f"{text[:MAX_LINE_CHARACTERS]} ... ({len(text):,} characters)"
        )


def _outcome(name: str, line: str) -> str | None:
    """Return what DVC says it does with the stage, or None where `line` does not say it."""
    return {
        f"Running stage '{name}':": "ran",
        f"Stage '{name}' is cached - skipping run, checking out outputs": "cached",
        f"Stage '{name}' didn't change, skipping": "unchanged",
    }.get(line)

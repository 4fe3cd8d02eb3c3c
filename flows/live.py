"""What changes while a run goes on: the graph of the stages, and how far the running one is.

Both are artifacts that are replaced as it goes. A server that does not answer is no reason to end a training: what
could not be shown is left out.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_markdown_artifact, create_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from flows.stage_graph import Stage
from flows.stage_run import StageRun

SECONDS_BETWEEN_UPDATES = 5.0
PROGRESS_LINE = re.compile(r"(?P<what>.+): (?P<count>[\d,]+) of (?P<total>[\d,]+) \w.* left")
"""What captioning/progress.py prints: `epoch 1: 27 of 188 batches, 2.6/s, 61 s left`."""

COLOURS = {
    "running": "#4b7bec",
    "ran": "#2e8b57",
    "cached": "#7fb69a",
    "unchanged": "#8a93a0",
    "failed": "#d64545",
    "refused": "#d64545",
    "timed out": "#d64545",
}
"""Outcome of a stage -> the fill of its box."""
WAITING = "waiting"

logger = logging.getLogger(__name__)


@contextmanager
def forgiving() -> Iterator[None]:
    """Go on where the server does not take what the block shows."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        logger.warning("Prefect's server did not take an artifact: %s", error)


class Live:
    """An artifact that is made when it is first shown, and then replaced."""

    def __init__(self, create: Callable[[Any, str], UUID]) -> None:
        self._create = create
        self._id: UUID | None = None

    def show(self, data: Any, description: str) -> None:
        """Make or replace it."""
        with forgiving():
            if self._id is None:
                self._id = self._create(data, description)
                return
            with get_client(sync_client=True) as client:
                client.update_artifact(self._id, ArtifactUpdate(data=data, description=description))


class Progress:
    """How far the running stage is, by the lines that it prints; to be made inside its task."""

    def __init__(self, key: str) -> None:
        self._live = Live(lambda data, description: _uuid(create_progress_artifact(data, key, description)))
        self._shown_at: float | None = None

    def read(self, line: str) -> None:
        """Show what `line` says, if it says how far the stage is and the last one was not just shown."""
        found = PROGRESS_LINE.fullmatch(line)
        if found is None or (
            self._shown_at is not None and time.monotonic() - self._shown_at < SECONDS_BETWEEN_UPDATES
        ):
            return
        self._shown_at = time.monotonic()
        count, total = (int(found[name].replace(",", "")) for name in ("count", "total"))
        self._live.show(min(100.0, 100.0 * count / max(total, 1)), line)

    def end(self) -> None:
        """Show that nothing is left to do, where anything was shown."""
        if self._shown_at is not None:
            self._live.show(100.0, "done")


class Graph:
    """The stages and how each ended, as a diagram and a table; to be made inside the flow."""

    def __init__(self, stages: list[Stage]) -> None:
        self._stages = stages
        self._outcomes = {stage.name: WAITING for stage in stages}
        self._seconds: dict[str, float] = {}
        self._live = Live(
            lambda data, description: _uuid(create_markdown_artifact(data, "stages", description))
        )

    def begins(self, name: str) -> None:
        """Show that a stage runs."""
        self._outcomes[name] = "running"
        self._show()

    def ended(self, name: str, run: StageRun) -> None:
        """Show how a stage ended."""
        self._outcomes[name] = run.outcome
        self._seconds[name] = run.seconds
        self._show()

    def markdown(self) -> str:
        """Return a table and a diagram, in Mermaid, which one of Prefect's two user interfaces draws."""
        return f"{self._table()}\n\n```mermaid\n{self._diagram()}\n```"

    def _show(self) -> None:
        self._live.show(self.markdown(), "The stages of this run")

    def _diagram(self) -> str:
        numbers = {stage.name: number for number, stage in enumerate(self._stages)}
        lines = ["flowchart TB"]
        for name, number in numbers.items():
            kind = self._outcomes[name].replace(" ", "_")
            lines.append(f'  s{number}["{_text(name)}<br/>{self._outcome(name)}"]:::{kind}')
        for stage in self._stages:
            for other in self._direct(stage):
                lines.append(f"  s{numbers[other]} --> s{numbers[stage.name]}")
        for outcome, colour in COLOURS.items():
            lines.append(
                f"  classDef {outcome.replace(' ', '_')} fill:{colour},stroke:{colour},color:#ffffff"
            )
        return "\n".join(lines)

    def _direct(self, stage: Stage) -> list[str]:
        """Return what a stage reads from without what it reaches through others, for a diagram that can be read."""
        reached: set[str] = set()
        by_name = {own.name: own for own in self._stages}
        todo = [by_name[name] for name in stage.upstream]
        for own in todo:
            reached.update(own.upstream)
            todo.extend(by_name[name] for name in own.upstream if by_name[name] not in todo)
        return [name for name in stage.upstream if name not in reached]

    def _table(self) -> str:
        rows = [
            f"| {stage.name} | {self._outcomes[stage.name]} | {self._time(stage.name)} | {stage.desc} |"
            for stage in self._stages
        ]
        return "\n".join(["| stage | | time | does |", "| --- | --- | --- | --- |", *rows])

    def _outcome(self, name: str) -> str:
        return f"{self._outcomes[name]} {self._time(name)}".strip()

    def _time(self, name: str) -> str:
        seconds = self._seconds.get(name)
        if seconds is None:
            return ""
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes else f"{seconds:.1f} s"


def _uuid(value: Any) -> UUID:
    assert isinstance(value, UUID), value
    return value


def _text(name: str) -> str:
    return name.replace('"', "'")

"""The stages of dvc.yaml in the order in which they run, as DVC itself resolves them.

Nothing about stages is written by hand: names, order, outputs, retries and timeouts come from DVC's own graph,
which knows templates, `foreach` and outputs inside folders.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the pipeline."""

    name: str
    """As `dvc repro` takes it."""
    desc: str
    """One sentence from dvc.yaml; may be empty."""
    upstream: tuple[str, ...]
    """Names of the stages whose outputs it reads, in running order."""
    outs: tuple[Path, ...]
    """Everything that it writes, metrics included."""
    metrics: tuple[Path, ...]
    """The outputs that dvc.yaml lists as metrics."""
    retries: int
    """Further attempts after a failure: `meta.retries`, by default none."""
    retry_delay_seconds: float
    """Pause before each of them: `meta.retry_delay_seconds`."""
    timeout_seconds: float | None
    """An attempt that takes longer is ended: `meta.timeout_seconds`, by default none is."""


def read_stages() -> list[Stage]:
    """Return the stages of the working directory's DVC project, each after all it reads from.

    Where the graph leaves the order open it is that of dvc.yaml.

    Raises:
        ValueError: there is no DVC project, or its graph does not resolve; the message is DVC's.
    """
    try:
        with Repo() as repo:
            graph = repo.index.graph
            position = {stage: number for number, stage in enumerate(repo.index.stages)}
            downstream = networkx.reverse_view(graph)  # DVC's edges point from a stage to what it reads
            order = list(networkx.lexicographical_topological_sort(downstream, key=position.__getitem__))
            return [
                _describe(stage, [other for other in order if graph.has_edge(stage, other)])
                for stage in order
            ]
    except DvcException as error:
        raise ValueError(f"DVC cannot read the pipeline in {Path.cwd()}: {error}") from error


def _describe(stage: Any, upstream: list[Any]) -> Stage:
    meta = stage.meta or {}
    return Stage(
        name=stage.addressing,
        desc=stage.desc or "",
        upstream=tuple(other.addressing for other in upstream),
        outs=tuple(Path(out.def_path) for out in stage.outs),
        metrics=tuple(Path(out.def_path) for out in stage.outs if out.metric),
        retries=int(meta.get("retries", 0)),
        retry_delay_seconds=float(meta.get("retry_delay_seconds", 0)),
        timeout_seconds=float(meta["timeout_seconds"]) if "timeout_seconds" in meta else None,
    )

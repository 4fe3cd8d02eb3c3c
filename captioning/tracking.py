"""Every training as one MLflow run: its parameters, its curves, which code and data it had, and on which machine.

The run of a training is found by the tag `captioning.fingerprint`, so that a resumed training continues it.
"""

import hashlib
import json
import math
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning import creation, machine, revision, store
from captioning.progress import say

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Report = Callable[[int, Mapping[str, float], Mapping[str, str]], None]
"""`report(epoch, scores, captions)`: a point of each curve, and some captions by image id. It never raises."""

DVC_LOCK = Path("dvc.lock")
MACHINES = "machines"
"""Folder of a run's artifacts: a file for each machine that its training ran on."""
POINTS_PER_REQUEST = 1000
"""MLflow refuses more metrics in one request."""


@contextmanager
def training_run(
    fingerprint: str, params: Mapping[str, Any], experiment: str, examples: Path | None = None
) -> Iterator[Report]:
    """Start the run of a training, or continue it, and give the function that records its curves.

    The run ends FINISHED, FAILED where an exception passes, KILLED on SIGTERM, an interrupt or an exit by
    signal. Where MLflow cannot be written the training goes on, one line says so, and the register stage
    completes the run.

    Args:
        fingerprint: names the training: equal for a resumed one.
        params: the whole params.yaml.
        experiment: `register.model_name`.
        examples: folder of the training examples, whose index identifies the data.
    """
    try:
        run = _Run(store.client(), _run_of(fingerprint, params, experiment, examples))
        _log_machine(run.run_id)
    except Exception as error:  # whatever goes wrong with the record, the training is worth more
        _say_untracked(error)
        yield lambda epoch, scores, captions: None
        return
    try:
        with _termination_as_exit():
            yield run.report
    except BaseException as error:
        run.end("KILLED" if _is_kill(error) else "FAILED")
        raise
    run.end("FINISHED")


def log_training(
    fingerprint: str, history: "pd.DataFrame", params: Mapping[str, Any], experiment: str
) -> str:
    """Complete the run of a finished training and return its id.

    The run is created where it is missing (DVC restored the training from its cache, or tracking failed), and
    so are points of `history`: a column `epoch`, a column a curve.
    """
    run_id = _run_of(fingerprint, params, experiment, None)
    recorded = _recorded_points(store.client(), run_id)
    points = [
        _point(name, value, int(epoch))
        for name in history.columns.drop(["epoch", "kept"], errors="ignore")
        for epoch, value in zip(history["epoch"], history[name], strict=True)
        if (name, int(epoch)) not in recorded and isinstance(value, int | float) and not math.isnan(value)
    ]
    _log_points(run_id, points)
    store.client().set_terminated(run_id, "FINISHED")
    return run_id


def log_scores(run_id: str, scores: Mapping[str, float]) -> None:
    """Record scores of a finished model; one that is the latest already is not recorded again."""
    latest = store.client().get_run(run_id).data.metrics
    _log_points(
        run_id, [_point(name, value, 0) for name, value in scores.items() if latest.get(name) != value]
    )


def machines(run_id: str) -> list[dict[str, Any]]:
    """Return the machines that a training ran on (captioning/machine.py); none where DVC restored its outcome."""
    client = store.client()
    with tempfile.TemporaryDirectory() as folder:
        paths = [each.path for each in client.list_artifacts(run_id, MACHINES)]
        return [
            json.loads(Path(client.download_artifacts(run_id, path, folder)).read_text()) for path in paths
        ]


def identity() -> dict[str, str]:
    """Return as tags which code and data this is: git revision, whether files differ, digest of dvc.lock.

    What is recorded whole does not count as a difference (`revision.RECORDED`): DVC rewrites dvc.lock stage by stage
    while the pipeline runs. Without git or a repository there is no revision.
    """
    tags = {}
    if commit := revision.read():
        tags["captioning.git_revision"] = tags["mlflow.source.git.commit"] = commit
        if (changed := revision.changed()) is not None:
            tags["captioning.git_dirty"] = "true" if changed else "false"
    if DVC_LOCK.exists():
        tags["captioning.dvc_lock"] = hashlib.sha256(DVC_LOCK.read_bytes()).hexdigest()
    return tags


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested parameters as `train.decoder.name` -> text; what is no text as JSON."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


class _Run:
    """The open run of one training. Points that a resumed training passes again are recorded once.

    After a failure nothing more is tried: each attempt at a dead server would hold the training for minutes.
    """

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self.run_id = client, run_id
        self._recorded = _recorded_points(client, run_id)
        self._is_writable = True

    def report(self, epoch: int, scores: Mapping[str, float], captions: Mapping[str, str]) -> None:
        """Record what an epoch gave."""
        new = {name: value for name, value in scores.items() if (name, epoch) not in self._recorded}
        self._recorded |= {(name, epoch) for name in new}
        if new:
            self._try(lambda: _log_points(self.run_id, [_point(*own, epoch) for own in new.items()]))
        if captions:
            file = f"captions/epoch-{epoch:03}.json"
            self._try(lambda: self._client.log_dict(self.run_id, dict(captions), file))

    def end(self, status: str) -> None:
        """Close the run."""
        self._try(lambda: self._client.set_terminated(self.run_id, status))

    def _try(self, write: Callable[[], object]) -> None:
        if not self._is_writable:
            return
        try:
            write()
        except Exception as error:  # whatever goes wrong with the record, the training is worth more
            self._is_writable = False
            _say_untracked(error)


def _run_of(fingerprint: str, params: Mapping[str, Any], experiment: str, examples: Path | None) -> str:
    """Return the id of the run of a training, created where it is missing, now running, with its parameters.

    MLflow's parameters cannot change: a continued run keeps those it began with.
    """
    from mlflow.entities import Param

    client = store.client()
    with store.locked("mlflow"):
        experiment_id = _experiment(experiment)
        runs = creation.find_runs(experiment_id, "captioning.fingerprint", fingerprint)
        if runs:
            client.update_run(runs[0].info.run_id, status="RUNNING")
        else:
            tags = {"captioning.fingerprint": fingerprint} | identity()
            runs = [creation.create_run(experiment_id, tags, f"train-{fingerprint[:8]}")]
    run_id = str(runs[0].info.run_id)
    params_ = {key: value for key, value in flatten(params).items() if key not in runs[0].data.params}
    if params_:
        client.log_batch(run_id, params=[Param(key, value) for key, value in params_.items()])
    if examples is not None:
        index = hashlib.sha256((examples / "index.json").read_bytes()).hexdigest()
        client.set_tag(run_id, "captioning.data", index)
    return run_id


def _experiment(name: str) -> str:
    """Return the id of an experiment: created beside the local database, restored where it was deleted."""
    client = store.client()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        database = store.local_database()
        location = (database.parent / name).as_uri() if database else None
        return creation.create_experiment(name, location)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _log_machine(run_id: str) -> None:
    """Record this machine; the same one, when a training resumes, is the same file."""
    described = machine.describe()
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    store.client().log_dict(run_id, described, f"{MACHINES}/{digest[:8]}.json")


def _recorded_points(client: "MlflowClient", run_id: str) -> set[tuple[str, int]]:
    names = client.get_run(run_id).data.metrics
    return {(name, point.step) for name in names for point in client.get_metric_history(run_id, name)}


def _point(name: str, value: float, epoch: int) -> "Metric":
    from mlflow.entities import Metric

    return Metric(name, float(value), int(time.time() * 1000), epoch)


def _log_points(run_id: str, points: list["Metric"]) -> None:
    for begin in range(0, len(points), POINTS_PER_REQUEST):
        store.client().log_batch(run_id, metrics=points[begin : begin + POINTS_PER_REQUEST])


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Let SIGTERM raise `SystemExit(143)`, so that the run can be closed; a handler set before stays."""
    is_main = threading.current_thread() is threading.main_thread()
    is_free = is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if is_free:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        if is_free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _is_kill(error: BaseException) -> bool:
    """Tell whether an interrupt, or an exit with a signal's code (128 + its number), ended the training."""
    exit_by_signal = isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128
    return exit_by_signal or isinstance(error, KeyboardInterrupt)


def _say_untracked(error: Exception) -> None:
    reason = " ".join(str(error).split())[:200]
    say(f"the training goes on without MLflow, `register` completes its record: {reason}")

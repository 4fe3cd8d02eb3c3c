"""Versions, runs and models of MLflow that nothing holds.

A version goes before its files: whoever finds it, finds it whole. Its run is marked first, so that it goes with the
next cleaning where a kill came in between. Of a local database the rows go, too; on a server what is deleted stays in
its bin, without files, until `mlflow gc` is run there.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from captioning import aliases, lineage, store
from captioning.retention.removals import DAY, Removal, num_bytes
from captioning.tracking import DVC_LOCK

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

KEEP = "captioning.keep"
"""Tag of a version that stays: true."""
MARK = "captioning.removed"
"""Tag of a run whose version is being removed."""
FINGERPRINT = "captioning.fingerprint"


def plan(model_names: Sequence[str], keep_last: int, days: float) -> tuple[list[str], list[Removal]]:
    """Return in sentences which versions stay, and what goes."""
    held: list[str] = []
    removals: list[Removal] = []
    every = list(store.every(store.client().search_model_versions))
    going: list[ModelVersion] = []
    for name in model_names:
        own = sorted((each for each in every if each.name == name), key=lambda each: -int(each.version))
        reasons = _reasons(name, own, keep_last)
        held += [f"{name}/{version}: {', '.join(why)}" for version, why in reasons.items()]
        going += [each for each in own if str(each.version) not in reasons]
    staying = [each for each in every if each not in going]
    runs, models = {str(each.run_id) for each in staying}, {_model_id(each) for each in staying}
    for version in reversed(going):
        removals.append(_of_version(version, is_run_free=str(version.run_id) not in runs))
    runs |= {str(each.run_id) for each in going}
    models |= {_model_id(each) for each in going}
    for experiment_id in _experiments(model_names):
        own = _runs(experiment_id)
        removals += _of_runs([run for run in own if run.info.run_id not in runs], days)
        is_marked = {run.info.run_id: MARK in run.data.tags for run in own}
        removals += _of_models(experiment_id, models, is_marked)
    return held, removals


def locks_of_others(going: Collection[tuple[str, str]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the dvc.lock of every version but those that go, and the versions where it cannot be read."""
    locks, unread = [], []
    for version in store.every(store.client().search_model_versions):
        if FINGERPRINT not in version.tags or (version.name, str(version.version)) in going:
            continue
        lock = _lock_of(version)
        if lock is None:
            unread.append(f"{version.name}/{version.version}")
        else:
            locks.append(lock)
    return locks, unread


def finished(model_names: Sequence[str]) -> set[str]:
    """Return the fingerprints of trainings that ended well."""
    runs = (run for experiment_id in _experiments(model_names) for run in _runs(experiment_id))
    return {run.data.tags[FINGERPRINT] for run in runs if run.info.status == "FINISHED"}


def _reasons(model_name: str, versions: "Sequence[ModelVersion]", keep_last: int) -> dict[str, list[str]]:
    """Return the versions that stay, newest first, and why."""
    reasons: dict[str, list[str]] = {str(each.version): [] for each in versions}
    for alias, version in sorted(aliases.aliases(model_name).items()):
        reasons.setdefault(version, []).append(alias)
    for each in versions:
        if each.tags.get(KEEP, "").lower() == "true":
            reasons[str(each.version)].append(KEEP)
    for each in versions[:keep_last]:
        reasons[str(each.version)].append(f"of the last {keep_last}")
    return {version: why for version, why in reasons.items() if why}


def _of_version(version: "ModelVersion", *, is_run_free: bool) -> Removal:
    client, name, number = store.client(), version.name, str(version.version)
    model = _logged_model(_model_id(version))
    run = _training_of(version) if is_run_free else None

    def remove() -> None:
        if number in aliases.aliases(name).values():  # named by another machine meanwhile
            return
        if run is not None and run.info.lifecycle_stage == "active":
            client.set_tag(run.info.run_id, MARK, "true")
        client.delete_model_version(name, number)
        if model is not None:
            _remove_model(model)
        if run is not None:
            _remove_run(run)

    return Removal(
        what=f"{name}/{number}, with its model{' and its run' if run else ''}",
        why="neither an alias, nor one of the last, nor the tag captioning.keep",
        num_bytes=_add(
            _size(model.artifact_location if model else ""), _size(_artifacts(run) if run else "")
        ),
        remove=remove,
        model_name=name,
        version=number,
    )


def _of_runs(runs: "Sequence[Run]", days: float) -> Iterator[Removal]:
    """Yield those that no version needs: marked ones, old ones, and what was deleted long ago in a local database."""
    deleted = set(_backend()._get_deleted_runs(older_than=int(days * DAY * 1000))) if _is_local() else set()
    for run in runs:
        if run.info.lifecycle_stage == "deleted":
            is_left = _is_local() and MARK in run.data.tags
            if not (is_left or run.info.run_id in deleted):
                continue
            why = "its version is removed" if is_left else f"deleted more than {days:g} days ago"
        elif _is_at_work(run):
            continue
        elif MARK in run.data.tags:
            why = "its version is removed"
        elif _days_since(run) > days:
            why = f"never registered, and without news for {_days_since(run):.0f} days"
        else:
            continue
        yield Removal(
            what=f"run {run.info.run_id[:8]} of training {run.data.tags[FINGERPRINT][:8]}",
            why=why,
            num_bytes=_size(_artifacts(run)),
            remove=partial(_remove_run, run),
        )


def _of_models(experiment_id: str, held: Collection[str], is_marked: dict[str, bool]) -> Iterator[Removal]:
    """Yield logged models without a version: of a removed one, or of a registration that ended in between."""
    for model in store.every(store.client().search_logged_models, [experiment_id]):
        days_old = (time.time() - model.creation_timestamp / 1000) / DAY
        is_of_removed = is_marked.get(str(model.source_run_id), True)
        if model.model_id in held or not (is_of_removed or days_old > 1):
            continue
        yield Removal(
            what=f"model {model.model_id}",
            why="no version has it",
            num_bytes=_size(model.artifact_location),
            remove=partial(_remove_model, model),
        )


def _remove_model(model: "LoggedModel") -> None:
    _erase(model.artifact_location)
    if _is_local():
        _forget(lambda backend: backend._hard_delete_logged_model(model.model_id))
    else:
        store.client().delete_logged_model(model.model_id)


def _remove_run(run: "Run") -> None:
    _erase(_artifacts(run))
    if _is_local():
        _forget(lambda backend: backend._hard_delete_run(run.info.run_id))
    elif run.info.lifecycle_stage == "active":
        store.client().delete_run(run.info.run_id)


def _erase(location: str) -> None:
    """Delete files wherever they are, and the folder around them where that is empty then."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        with store.as_default_uri():
            get_artifact_repository(location).delete_artifacts()
    except Exception as error:  # of MLflow, or of whatever holds its artifacts
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{location} cannot be deleted: {said}; clean again when it can") from error
    folder = _path(location)
    if folder is not None and folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _forget(delete_rows: Callable[[Any], None]) -> None:
    delete_rows(_backend())


def _backend() -> Any:
    """Return MLflow's store of a local database, which `mlflow gc` uses: its command takes all that is deleted."""
    return store.client()._tracking_client.store


def _is_local() -> bool:
    return store.local_database() is not None


def _experiments(model_names: Sequence[str]) -> list[str]:
    found = [store.client().get_experiment_by_name(name) for name in model_names]
    return [str(each.experiment_id) for each in found if each is not None]


def _runs(experiment_id: str) -> "list[Run]":
    """Return the trainings of an experiment, deleted ones too."""
    from mlflow.entities import ViewType

    every = store.every(store.client().search_runs, [experiment_id], "", ViewType.ALL)
    return [run for run in every if FINGERPRINT in run.data.tags]


def _training_of(version: "ModelVersion") -> "Run | None":
    """Return the run of a version; None where it is gone, or at work again."""
    from mlflow.exceptions import MlflowException

    try:
        run: Run = store.client().get_run(version.run_id)
    except MlflowException:
        return None
    return None if _is_at_work(run) else run


def _is_at_work(run: "Run") -> bool:
    return run.info.status == "RUNNING" and _days_since(run) < 1


def _days_since(run: "Run") -> float:
    """Return for how long nothing was heard of a run."""
    times = [run.info.start_time or 0, run.info.end_time or 0]
    if run.info.status == "RUNNING":
        client = store.client()
        times += [
            point.timestamp
            for name in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, name)
        ]
    return (time.time() - max(times) / 1000) / DAY


def _lock_of(version: "ModelVersion") -> dict[str, Any] | None:
    """Return the dvc.lock of a version: from its lineage, or from its run where it is older than lineages.

    None where neither can be read, be it for the moment; nothing where there was none.
    """
    try:
        return lineage.read(version.name, str(version.version))[0].dvc_lock
    except ValueError:
        pass
    client, name = store.client(), str(DVC_LOCK)
    try:
        if name not in {each.path for each in client.list_artifacts(version.run_id)}:
            return {}
        return lineage.read_lock(Path(client.download_artifacts(version.run_id, name)))
    except Exception:  # of MLflow, or of whatever holds its artifacts
        return None


def _model_id(version: "ModelVersion") -> str:
    return str(version.model_id or version.source.rpartition("/")[2])


def _logged_model(model_id: str) -> "LoggedModel | None":
    from mlflow.exceptions import MlflowException

    try:
        return store.client().get_logged_model(model_id)
    except MlflowException:  # it was deleted by hand
        return None


def _artifacts(run: "Run") -> str:
    return str(run.info.artifact_uri)


def _path(location: str) -> Path | None:
    address = urlparse(location)
    return Path(unquote(address.path)) if address.scheme == "file" else None


def _size(location: str) -> int | None:
    folder = _path(location)
    if folder is None:
        return None if location else 0
    return num_bytes(folder) if folder.is_dir() else 0


def _add(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other

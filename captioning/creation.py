"""Experiments, runs and models in MLflow's records, each made once although a request for it may be made twice.

MLflow's client repeats a request whose answer was lost, and a server that had done it does it again: it refuses a name
that is taken, or makes a second row. A row is therefore made with a word of its own; of those that have it one is kept.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from captioning import store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities import LoggedModel, Run

WORD = "captioning.creation"
"""Tag of what was made by one call here."""


def create_experiment(name: str, artifact_location: str | None) -> str:
    """Return the id of a new experiment, or of the one that has the name by now."""
    client = store.client()
    with _unless_taken():
        return str(client.create_experiment(name, artifact_location=artifact_location))
    found = client.get_experiment_by_name(name)
    assert found is not None, f"its name {name!r} is taken"
    return str(found.experiment_id)


def create_registered_model(name: str) -> None:
    """Make a registered model, unless there is one by now."""
    with _unless_taken():
        store.client().create_registered_model(name)


def create_run(experiment_id: str, tags: Mapping[str, str], run_name: str) -> "Run":
    """Return a new run."""
    word = {WORD: uuid.uuid4().hex}
    store.client().create_run(experiment_id, tags={**tags, **word}, run_name=run_name)
    (run,) = find_runs(experiment_id, WORD, word[WORD])
    return run


def find_runs(experiment_id: str, tag: str, value: str) -> list["Run"]:
    """Return the runs that have a tag, the newest first; a row that was made twice is there once."""
    client = store.client()
    runs = store.every(client.search_runs, [experiment_id], f"tags.`{tag}` = '{value}'")
    return _without_twins(runs, lambda run: run.data.tags, lambda run: client.delete_run(run.info.run_id))


def create_logged_model(experiment_id: str, name: str, source_run_id: str) -> "LoggedModel":
    """Return a new model of a run, without files."""
    client, word = store.client(), uuid.uuid4().hex
    client.create_logged_model(experiment_id, name=name, source_run_id=source_run_id, tags={WORD: word})
    models = store.every(client.search_logged_models, [experiment_id], f"tags.`{WORD}` = '{word}'")
    (model,) = _without_twins(
        models, lambda own: own.tags, lambda own: client.delete_logged_model(own.model_id)
    )
    return model


def _without_twins(
    rows: Iterable[Any], tags: Callable[[Any], Mapping[str, str]], delete: Callable[[Any], object]
) -> list[Any]:
    """Return the rows, of those with one word the first; the others are deleted."""
    kept: list[Any] = []
    seen: set[str] = set()
    for row in rows:
        word = tags(row).get(WORD)
        if word in seen:
            delete(row)
            continue
        kept.append(row)
        seen |= {word} if word else set()
    return kept


@contextmanager
def _unless_taken() -> "Iterator[None]":
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise

"""Which version is `champion`, `previous` and `challenger`, and how it came to be: promotions that survive a kill.

An alias of MLflow moves by itself in one step, but a promotion moves several. It is therefore written down first, as a
tag of the registered model, then `previous` is moved, then `champion`, and then the tag says that it is done. A kill
anywhere in between leaves either the old champion or the new one; `history` tells which, and the next promotion puts
right what is left over. All of it happens under the lock `registry`, for an alias belongs to whoever writes last.
"""

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from captioning import store
from captioning.champion import present_folder

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
LOCK = "registry"
RECORD = "captioning.promotion."
"""What the tags of promotions begin with; their number follows."""
MOST_LETTERS = 2000
"""Of a reason: a tag of a registered model holds 5,000 letters."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A version became the champion."""

    version: str
    at: str
    """UTC, ISO 8601."""
    by: str
    """A person, or `register`."""
    why: str
    run_id: str
    """Of the training that made the version."""
    from_version: str | None
    """The champion before it."""
    is_rollback: bool = False


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A promotion as its tag has it."""

    key: str
    promotion: Promotion
    previous: str | None
    """What the alias `previous` was before."""
    is_done: bool

    def write(self, model_name: str, **changes: Any) -> None:
        values = asdict(self.promotion) | {"previous": self.previous, "is_done": self.is_done} | changes
        store.client().set_registered_model_tag(model_name, self.key, json.dumps(values, ensure_ascii=False))


def promote(model_name: str, version: str, *, by: str, why: str) -> None:
    """Make a version the champion; the champion before it becomes `previous`. Of the champion nothing changes.

    Raises:
        ValueError: there is no such version, or its files are gone.
    """
    with store.locked(LOCK):
        move_champion(model_name, version, by=by, why=why)


def rollback(model_name: str, *, by: str, why: str) -> str:
    """Make the version before the champion the champion again, and the champion `previous`; return the version.

    Raises:
        ValueError: there is no version before it, or its files are gone.
    """
    with store.locked(LOCK):
        mend(model_name)
        version = aliases(model_name).get(PREVIOUS)
        if version is None:
            raise ValueError(
                f"{model_name} has no previous champion to go back to; "
                "`captioning promote VERSION` makes any version the champion"
            )
        move_champion(model_name, version, by=by, why=why, is_rollback=True)
    return version


def history(model_name: str) -> list[Promotion]:
    """Return every promotion that took place, the earliest first.

    One that a kill cut off before the champion changed did not take place.
    """
    records = _records(model_name)
    if records and not _has_happened(records[-1], model_name):
        records.pop()
    return [record.promotion for record in records]


def aliases(model_name: str) -> dict[str, str]:
    """Return the version that each alias names."""
    model = _registered_model(model_name)
    return {} if model is None else {alias: str(version) for alias, version in model.aliases.items()}


def versions(model_name: str) -> "list[ModelVersion]":
    """Return every version of a registered model."""
    return list(store.every(store.client().search_model_versions, f"name = '{model_name}'"))


def has_files(version: "ModelVersion") -> bool:
    """Tell whether the model of a version is still there; a server is trusted."""
    location = store.client().get_model_version_download_uri(version.name, version.version)
    return store.local_database() is None or present_folder(location) is not None


def move_champion(model_name: str, version: str, *, by: str, why: str, is_rollback: bool = False) -> None:
    """Do what `promote` does; whoever calls it holds the lock."""
    mend(model_name)
    found = _usable_version(model_name, version)
    before = aliases(model_name)
    if before.get(CHAMPION) == version:
        return
    record = _Record(
        key=f"{RECORD}{len(_records(model_name)) + 1:06}",
        promotion=Promotion(
            version=version,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            by=by,
            why=why if len(why) <= MOST_LETTERS else why[: MOST_LETTERS - 4] + " ...",
            run_id=str(found.run_id or ""),
            from_version=before.get(CHAMPION),
            is_rollback=is_rollback,
        ),
        previous=before.get(PREVIOUS),
        is_done=False,
    )
    record.write(model_name)
    if record.promotion.from_version is not None:
        _set(model_name, PREVIOUS, record.promotion.from_version)
    _set(model_name, CHAMPION, version)
    _finish(model_name, record)


def name_challenger(model_name: str, version: str) -> None:
    """Give a version the alias `challenger`; whoever calls it holds the lock."""
    if aliases(model_name).get(CHALLENGER) != version:
        _set(model_name, CHALLENGER, version)


def mend(model_name: str) -> None:
    """Finish a promotion that a kill cut off, or undo it where the champion had not changed yet.

    Whoever calls it holds the lock.
    """
    records = _records(model_name)
    if not records or records[-1].is_done:
        return
    last = records[-1]
    if _has_happened(last, model_name):
        _finish(model_name, last)
        return
    _set(model_name, PREVIOUS, last.previous)
    store.client().delete_registered_model_tag(model_name, last.key)


def _finish(model_name: str, record: _Record) -> None:
    """Read the champion back, end the version's time as a challenger, and say in the record that it is done."""
    version, now = record.promotion.version, aliases(model_name)
    if now.get(CHAMPION) != version:
        raise ValueError(
            f"{model_name}: champion was set to version {version} but is {now.get(CHAMPION)}: something else moves "
            "the alias at the same time; promote again"
        )
    if now.get(CHALLENGER) == version:
        _set(model_name, CHALLENGER, None)
    record.write(model_name, is_done=True)


def _has_happened(record: _Record, model_name: str) -> bool:
    return record.is_done or aliases(model_name).get(CHAMPION) == record.promotion.version


def _records(model_name: str) -> list[_Record]:
    model = _registered_model(model_name)
    tags = {} if model is None else {key: text for key, text in model.tags.items() if key.startswith(RECORD)}
    names = {field.name for field in fields(Promotion)}
    records = []
    for key, text in sorted(tags.items()):
        values = json.loads(text)
        promotion = Promotion(**{name: value for name, value in values.items() if name in names})
        records.append(
            _Record(
                key=key, promotion=promotion, previous=values["previous"], is_done=bool(values["is_done"])
            )
        )
    return records


def _registered_model(model_name: str) -> "RegisteredModel | None":
    found: list[RegisteredModel] = store.client().search_registered_models(f"name = '{model_name}'")
    return found[0] if found else None


def _usable_version(model_name: str, version: str) -> "ModelVersion":
    found = {str(own.version): own for own in versions(model_name)}
    if version not in found:
        have = ", ".join(sorted(found, key=int)) or "none"
        raise ValueError(f"{model_name} has no version {version}; it has {have}")
    if not has_files(found[version]):
        raise ValueError(
            f"version {version} of {model_name} has lost its files, and no champion can do without; restore them "
            "from a backup, or name another version"
        )
    return found[version]


def _set(model_name: str, alias: str, version: str | None) -> None:
    if version is not None:
        store.client().set_registered_model_alias(model_name, alias, version)
    elif alias in aliases(model_name):
        store.client().delete_registered_model_alias(model_name, alias)

"""A finished training -> a version of the registered model with its lineage, and `champion` if it wins.

A version was scored on one test set with one tokenizer; its tags say which. The decision about it:

| word | when | champion |
|---|---|---|
| `no-champion` | there is no champion, or its files are gone | this version |
| `is-champion` | this very version is the champion | this version |
| `better` | same test set, same tokenizer, strictly better by `register.metric` | this version |
| `not-better` | same test set, same tokenizer, otherwise | stays |
| `different-test-set`, `different-tokenizer`, `metric-missing` | the scores cannot be compared | stays |

Where scores cannot be compared nothing wins by itself: the reason says how to promote it all the same.
One promotion at a time, under a file lock: an alias of MLflow belongs to whoever writes last.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import Field

from captioning import servable, store, tracking
from captioning.champion import PROFILE, champion_folder, check_receipt, present_folder
from captioning.metrics import higher_is_better
from captioning.params import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["Receipt", "RegisterSettings", "champion_folder", "check_receipt", "promote", "register"]

CHAMPION, PREVIOUS = "champion", "previous"
PROMOTING = frozenset({"no-champion", "better"})
INCOMPARABLE = frozenset({"different-test-set", "different-tokenizer", "metric-missing"})
REPORTS = (
    "metrics.json",
    "hypotheses.jsonl",
    "evaluation.html",
    "data_card.md",
    "model_card.md",
    "model.json",
    "training/history.csv",
    "validation/verdict.json",
    "inspection/verdict.json",
)
"""Files of the reports folder that are kept with a run, besides the figures."""


class RegisterSettings(Settings):
    """Section `register`."""

    model_name: str = Field(pattern=r"^[\w-]+$")
    """Registered model and experiment; one name a task."""
    metric: str
    """A score of reports/metrics.json: the champion is the best by it."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the registry holds after the register stage."""

    model_name: str
    version: str
    fingerprint: str
    metric: str
    value: float
    champion: str
    """Version that is the champion now."""
    promoted: bool
    """This registration made it the champion."""
    decision: str
    """A word of the module's table."""
    reason: str
    """The decision in a sentence, with the numbers."""

    def write(self, path: Path) -> None:
        """Write the receipt as JSON, whole or not at all."""
        aside = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(asdict(self), indent=2) + "\n")
        aside.replace(path)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a model and what they were measured on. Scores compare where both digests are equal."""

    version: str
    scores: dict[str, float]
    test_set: str
    """Digest of the image ids and their references."""
    tokenizer: str


def register(
    model_folder: Path, reports_folder: Path, settings: RegisterSettings, params: dict[str, Any]
) -> Receipt:
    """Record the evaluation in the training's run, create a model version, promote it if it wins.

    The same model with the same scores gets the version that it has already.

    Args:
        model_folder: `models/captioner`, which names its training's fingerprint.
        reports_folder: `reports`: metrics, hypotheses, figures, verdicts, the training's history.
        settings: section `register`.
        params: the whole params.yaml.

    Raises:
        ValueError: a file is missing or lacks the metric, or the registry does not hold what was written.
    """
    fingerprint = read_fingerprint(model_folder)
    challenger = read_scored(reports_folder)
    if settings.metric not in challenger.scores:
        raise ValueError(
            f"register.metric is {settings.metric!r}, but {reports_folder / 'metrics.json'} has "
            f"{', '.join(sorted(challenger.scores))}; name one of them, or add the metric to evaluate.metrics"
        )
    is_higher_better = higher_is_better(settings.metric)
    history = pd.read_csv(_existing(reports_folder / "training" / "history.csv"))
    run_id = tracking.log_training(fingerprint, history, params, settings.model_name)
    _log_evaluation(run_id, challenger, reports_folder, params)
    profile = _existing(reports_folder / "validation" / PROFILE)
    with store.locked("registry"):
        challenger = _scored(_version_of(run_id, model_folder, profile, challenger, settings, params))
        best = _champion(settings.model_name)
        decision, reason = decide(challenger, best, settings.metric, is_higher_better)
        if decision in PROMOTING:
            _move_champion(settings.model_name, challenger.version)
            best = challenger
    assert best is not None
    if decision in INCOMPARABLE:
        command = _promote_command(settings.model_name, challenger.version)
        reason += f" It stays; to replace it all the same: {command}"
    return Receipt(
        model_name=settings.model_name,
        version=challenger.version,
        fingerprint=fingerprint,
        metric=settings.metric,
        value=challenger.scores[settings.metric],
        champion=best.version,
        promoted=decision in PROMOTING,
        decision=decision,
        reason=reason,
    )


def decide(
    challenger: Scored, champion: Scored | None, metric: str, is_higher_better: bool
) -> tuple[str, str]:
    """Return the decision about a challenger, a word of the module's table, and the reason as a sentence."""
    new = f"Version {challenger.version}"
    if champion is None:
        return "no-champion", f"{new} is the champion: there was none."
    if champion.version == challenger.version:
        return "is-champion", f"{new} is the champion already."
    if obstacle := _obstacle(challenger, champion, metric):
        word, reason = obstacle
        return word, f"{new} is not compared with the champion, version {champion.version}: {reason}."
    value, best = challenger.scores[metric], champion.scores[metric]
    comparison = f"{metric} {value:.4f} against {best:.4f} of version {champion.version}"
    if value > best if is_higher_better else value < best:
        return "better", f"{new} is the new champion: {comparison} on the same test set."
    return "not-better", f"{new} does not win, the champion stays: {comparison} on the same test set."


def _obstacle(challenger: Scored, champion: Scored, metric: str) -> tuple[str, str] | None:
    """Return the word and the reason that keep two models from being compared, if any."""
    if champion.test_set != challenger.test_set:
        return "different-test-set", "they were scored on different test sets"
    if champion.tokenizer != challenger.tokenizer:
        names = f"{challenger.tokenizer} and {champion.tokenizer}"
        return "different-tokenizer", f"they were scored with different tokenizers, {names}"
    if metric not in champion.scores:
        return "metric-missing", f"the champion has no {metric}"
    return None


def promote(model_name: str, version: str) -> None:
    """Make a version the champion by hand; the champion before it becomes `previous`.

    Raises:
        ValueError: there is no such version.
    """
    with store.locked("registry"):
        versions = {str(each.version) for each in _versions(model_name)}
        if version not in versions:
            have = ", ".join(sorted(versions, key=int)) or "none"
            raise ValueError(f"{model_name} has no version {version}; it has {have}")
        _move_champion(model_name, version)


def read_fingerprint(model_folder: Path) -> str:
    """Return the fingerprint of the training that made a model folder."""
    path = _existing(model_folder / "captioner.json")
    fingerprint = json.loads(path.read_text()).get("fingerprint")
    if not isinstance(fingerprint, str) or not fingerprint.isalnum():
        raise ValueError(
            f"{path} names no training: fingerprint is {fingerprint!r}; train again (`dvc repro train`)"
        )
    return fingerprint


def read_scored(reports_folder: Path) -> Scored:
    """Return the test scores of a reports folder and the identity of the test set."""
    path = _existing(reports_folder / "metrics.json")
    metrics = json.loads(path.read_text())
    if "test" not in metrics:
        raise ValueError(
            f"{path} has no scores of the test split, only {sorted(metrics)}; set evaluate.split: test"
        )
    test_set = digest_of_test_set(_existing(reports_folder / "hypotheses.jsonl"))
    return Scored(version="", scores=metrics["test"], test_set=test_set, tokenizer=metrics["tokenizer"])


def digest_of_test_set(hypotheses: Path) -> str:
    """Return the SHA-256 of the image ids and references of hypotheses.jsonl, whatever their order."""
    digests = []
    with hypotheses.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            digests.append(hashlib.sha256(json.dumps([row["image_id"], row["references"]]).encode()).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _log_evaluation(run_id: str, challenger: Scored, reports_folder: Path, params: dict[str, Any]) -> None:
    """Put scores, reports, params and dvc.lock into the training's run, laid out as in the reports folder."""
    client = store.client()
    tracking.log_scores(run_id, {f"test_{name}": value for name, value in challenger.scores.items()})
    for name in REPORTS:
        path = _existing(reports_folder / name)
        client.log_artifact(run_id, str(path), (Path("reports") / name).parent.as_posix())
    client.log_artifacts(run_id, str(_existing(reports_folder / "figures")), "reports/figures")
    client.log_dict(run_id, params, "params.yaml")
    if tracking.DVC_LOCK.exists():
        client.log_artifact(run_id, str(tracking.DVC_LOCK))


def _version_of(
    run_id: str,
    model_folder: Path,
    profile: Path,
    challenger: Scored,
    settings: RegisterSettings,
    params: dict[str, Any],
) -> "ModelVersion":
    """Return the version of this model with these scores, created where there is none.

    It carries the profile of its training data, with which the gate compares later data.
    """
    model_digest = folder_digest(model_folder)
    facts = [model_digest, challenger.scores, challenger.test_set, challenger.tokenizer]
    registration = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    for version in _versions(settings.model_name):
        if version.tags.get("captioning.registration") == registration and _has_files(version):
            return version
    tags = tracking.identity() | {
        "captioning.registration": registration,
        "captioning.fingerprint": read_fingerprint(model_folder),
        "captioning.model_digest": model_digest,
        "captioning.metric": settings.metric,
        "captioning.value": repr(challenger.scores[settings.metric]),
        "captioning.scores": json.dumps(challenger.scores, sort_keys=True),
        "captioning.test_set": challenger.test_set,
        "captioning.tokenizer": challenger.tokenizer,
    }
    client = store.client()
    if not client.search_registered_models(f"name = '{settings.model_name}'"):
        client.create_registered_model(settings.model_name)
    model_id = servable.log_model(run_id, model_folder, params["evaluate"]["generation"])
    client.log_model_artifact(model_id, str(profile))
    with store.as_default_uri():
        return client.create_model_version(
            settings.model_name, f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id
        )


def _move_champion(model_name: str, version: str) -> None:
    """Set `previous`, then `champion`, so that a crash in between leaves the old champion; read it back."""
    client = store.client()
    before = client.get_registered_model(model_name).aliases.get(CHAMPION)
    if before is not None and str(before) != version:
        client.set_registered_model_alias(model_name, PREVIOUS, str(before))
    client.set_registered_model_alias(model_name, CHAMPION, version)
    after = client.get_registered_model(model_name).aliases.get(CHAMPION)
    if str(after) != version:
        raise ValueError(
            f"{model_name}: champion was set to version {version} but is {after}; register again"
        )


def _champion(model_name: str) -> Scored | None:
    client = store.client()
    version = client.get_registered_model(model_name).aliases.get(CHAMPION)
    if version is None:
        return None
    found = client.get_model_version(model_name, str(version))
    return _scored(found) if _has_files(found) else None


def _has_files(version: "ModelVersion") -> bool:
    """Tell whether the model of a version is still there; a server is trusted."""
    location = store.client().get_model_version_download_uri(version.name, version.version)
    return store.local_database() is None or present_folder(location) is not None


def _scored(version: "ModelVersion") -> Scored:
    tags = version.tags
    return Scored(
        version=str(version.version),
        scores=json.loads(tags.get("captioning.scores", "{}")),
        test_set=tags.get("captioning.test_set", ""),
        tokenizer=tags.get("captioning.tokenizer", ""),
    )


def _versions(model_name: str) -> "list[ModelVersion]":
    return list(store.every(store.client().search_model_versions, f"name = '{model_name}'"))


def _promote_command(model_name: str, version: str) -> str:
    return f"python -c \"from captioning import registry; registry.promote('{model_name}', '{version}')\""


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} does not exist; `dvc repro` makes it")
    return path

"""A finished training -> a version of the registered model with its lineage, and `champion` if it deserves to be.

The champion and the new version are compared on the same images with the same references and tokenizer. Where the test
set is the one that the champion was scored on, its captions are those that it was registered with; otherwise it
captions the test set of today, and both are scored without any image that either has seen. `promotion` decides.

What takes long is done before the lock is taken. If the champion is another one by then, the comparison is made again:
of two registrations at the same time the better one wins, whichever is first.
"""

import base64
import hashlib
import json
import tempfile
import zipfile
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from captioning import (
    creation,
    lineage,
    promotion,
    rescoring,
    seen_images,
    servability,
    servable,
    store,
    tracking,
)
from captioning.aliases import (
    CHAMPION,
    LOCK,
    Promotion,
    aliases,
    has_files,
    history,
    mend,
    move_champion,
    name_challenger,
    promote,
    rollback,
    versions,
)
from captioning.champion import (
    HYPOTHESES,
    PROFILE,
    captioner_folder,
    champion_folder,
    check_receipt,
    generation_of,
    version_folder,
)
from captioning.comparison import Captioned, read_captioned
from captioning.examples import Examples
from captioning.images import BadImage, ImageFolder
from captioning.metrics import metric_of
from captioning.promotion import Comparison, Decision, Evidence, RegisterSettings, is_of_captions
from captioning.seen_images import CleanImage
from captioning.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "DataFolders",
    "Promotion",
    "Receipt",
    "RegisterSettings",
    "champion_folder",
    "check_receipt",
    "history",
    "promote",
    "register",
    "rollback",
]

SPLIT = "test"
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


@dataclass(frozen=True, kw_only=True)
class DataFolders:
    """Where the data lie that the model was trained on and scored on."""

    raw: Path
    clean: Path
    splits: Path
    examples: Path


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the register stage did."""

    model_name: str
    version: str
    fingerprint: str
    metric: str
    value: float
    """Of the whole test set."""
    champion: str | None
    """The version that is the champion afterwards."""
    champion_before: str | None
    """The version that was the champion before."""
    promoted: bool
    """This registration made it the champion."""
    decision: str
    """A word of `promotion`'s table."""
    reason: str
    """The decision in a sentence or two, with the numbers."""
    reasons: list[str]
    """Each condition of a promotion that does not hold."""
    scores: dict[str, float]
    """On the images that both were compared on, or on the whole test set where they were not."""
    champion_scores: dict[str, float] | None
    """Of the champion before, on the same images with the same tokenizer; None where the two were not compared."""
    num_images: int
    """On which both were compared, or the version alone was scored."""
    gain: float | None
    """In `metric`: more than 0 is better, also where less is better of the score."""
    gain_interval: tuple[float, float] | None
    """95 %, by paired bootstrap."""
    seconds_per_caption: float | None
    """Median of single pictures in a process of its own, on this machine; None where that was not asked."""

    def write(self, path: Path) -> None:
        """Write the receipt as JSON, whole or not at all."""
        aside = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")
        aside.replace(path)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a version and what they were measured on."""

    version: str
    scores: dict[str, float]
    test_set: str
    """Digest of the pictures and their references."""
    tokenizer: str


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """The images that a version was scored on, and what it said about them."""

    __test__ = False  # no class of tests

    captioned: Captioned
    images: dict[str, CleanImage]
    digest: str


def register(
    model_folder: Path,
    reports_folder: Path,
    data: DataFolders,
    settings: RegisterSettings,
    params: dict[str, Any],
) -> Receipt:
    """Record the evaluation in the training's run, create a model version, promote it if it deserves to be.

    The same model with the same scores gets the version that it has already.

    Args:
        model_folder: `models/captioner`, which names its training's fingerprint.
        reports_folder: `reports`: metrics, hypotheses, figures, verdicts, the training's history.
        data: on which it was trained and scored.
        settings: section `register`.
        params: the whole params.yaml.

    Raises:
        ValueError: a file is missing or lacks a score, or the registry does not hold what was written.
    """
    fingerprint = read_fingerprint(model_folder)
    today = read_test_set(reports_folder / HYPOTHESES, data)
    new = replace(read_scored(reports_folder), test_set=today.digest)
    for name in (settings.metric, *settings.floors):
        _check_score(name, new, reports_folder)
    curves = pd.read_csv(_existing(reports_folder / "training" / "history.csv"))
    run_id = tracking.log_training(fingerprint, curves, params, settings.model_name)
    _log_evaluation(run_id, new, reports_folder, params)
    with store.locked(LOCK):
        new = _scored(_version_of(run_id, model_folder, reports_folder, new, data, settings, params))
    evidence, decision, before = _decide_and_act(new, today, data, settings)
    compared = evidence.comparison
    return Receipt(
        model_name=settings.model_name,
        version=new.version,
        fingerprint=fingerprint,
        metric=settings.metric,
        value=new.scores[settings.metric],
        champion=new.version if decision.promotes else before,
        champion_before=before,
        promoted=decision.promotes,
        decision=decision.word,
        reason=decision.reason,
        reasons=decision.reasons,
        scores=compared.scores if compared else new.scores,
        champion_scores=compared.champion_scores if compared else None,
        num_images=compared.num_images if compared else len(today.images),
        gain=compared.gain if compared else None,
        gain_interval=compared.interval if compared else None,
        seconds_per_caption=evidence.seconds_per_caption,
    )


def _decide_and_act(
    new: Scored, today: TestSet, data: DataFolders, settings: RegisterSettings
) -> tuple[Evidence, Decision, str | None]:
    """Return what was known, what was decided, and the champion before, which is another one now if so decided."""
    evidence: Evidence | None = None
    while True:
        with store.locked(LOCK):
            mend(settings.model_name)
        before, champion = _champion(settings.model_name)
        evidence = _gather(new, champion, today, data, settings, evidence)
        decision = promotion.decide(evidence, settings)
        with store.locked(LOCK):
            if aliases(settings.model_name).get(CHAMPION) != before:
                continue  # another registration, or a person, was faster: it is compared with that one
            if decision.promotes:
                move_champion(settings.model_name, new.version, by="register", why=decision.reason)
            elif decision.word != "is-champion":
                decision = _with_next_step(decision, new.version)
                tag = f"{decision.word}: {decision.reason}"
                store.client().set_model_version_tag(
                    settings.model_name, new.version, "captioning.decision", tag
                )
                name_challenger(settings.model_name, new.version)
            return evidence, decision, before


def _with_next_step(decision: Decision, version: str) -> Decision:
    command = f"`captioning promote {version}`"
    step = "approves" if decision.word == "awaiting-approval" else "promotes it all the same"
    return replace(decision, reason=f"{decision.reason} {command} {step}.")


def _gather(
    new: Scored,
    champion: Scored | None,
    today: TestSet,
    data: DataFolders,
    settings: RegisterSettings,
    earlier: Evidence | None,
) -> Evidence:
    """Return what is known of a version beside this champion; what `earlier` knows of it alone is not asked again."""
    known = Evidence(version=new.version, champion=champion.version if champion else None, scores=new.scores)
    if champion and champion.version == new.version:
        return known
    if earlier is None or earlier.seconds_per_caption is None:
        answer = servability.ask_alone(
            f"models:/{settings.model_name}/{new.version}", _pictures(today, data.raw)
        )
        known = replace(known, servability=answer.problem, seconds_per_caption=answer.seconds_per_caption)
    else:
        known = replace(
            known, servability=earlier.servability, seconds_per_caption=earlier.seconds_per_caption
        )
    known = replace(known, rolled_back=_rolled_back(settings.model_name, new.version))
    if champion is None:
        return known
    try:
        return replace(known, comparison=_compare(new, champion, today, data, settings))
    except ValueError as error:
        why = " ".join(str(error).split()).removesuffix(".")
        sentence = f"It cannot be compared with the champion, version {champion.version}: {why}."
        return replace(known, obstacle=sentence)


def _compare(
    new: Scored, champion: Scored, today: TestSet, data: DataFolders, settings: RegisterSettings
) -> Comparison:
    """Score the champion and a new version on the images of today's test set that neither has seen.

    Raises:
        ValueError: it cannot be done; the message says why.
    """
    model, name = version_folder(settings.model_name, champion.version), settings.metric
    own_captions = model / HYPOTHESES
    is_same = champion.test_set == new.test_set and own_captions.exists()
    captioned, note = today.captioned, "The test set is the same."
    if not is_same:
        captioned, note = _unseen(new, champion, today, settings)
    if len(captioned.hypotheses) < settings.min_images:
        raise ValueError(
            f"{len(captioned.hypotheses):,} images of the test set are seen by neither, fewer than "
            f"register.min_images, {settings.min_images:,}"
        )
    if is_same:
        captions = read_captioned(own_captions).hypotheses
    else:
        captions = rescoring.captions_of(
            rescoring.Rescored(
                name=f"{settings.model_name}/{champion.version}",
                captioner=captioner_folder(model),
                generation=generation_of(model),
            ),
            today.digest,
            Examples(data.examples, SPLIT),
            data.raw,
            today.images,
        )
    is_scored = is_same and champion.tokenizer == new.tokenizer and name in champion.scores
    scored = [name] if is_scored else [own for own in new.scores if is_of_captions(own)]
    compared = promotion.compare(
        captioned,
        champion.version,
        captions,
        settings,
        metrics=list(dict.fromkeys(metric for own in scored if (metric := metric_of(own)))),
        images=data.clean / "images.parquet",
        tokens=Vocabulary.load(data.examples / "vocabulary.json").tokens,
        note=note,
    )
    if is_scored:
        return replace(compared, scores=new.scores, champion_scores=champion.scores)
    return compared


def _unseen(
    new: Scored, champion: Scored, today: TestSet, settings: RegisterSettings
) -> tuple[Captioned, str]:
    """Return today's captions without the images that either version has seen, and a note that says so."""
    seen = []
    for version in (champion.version, new.version):
        path = version_folder(settings.model_name, version) / seen_images.FILE
        if not path.exists():
            raise ValueError(
                f"the test set is another one, and version {version}, of an older program, does not say which images "
                "it was trained on, some of which may be in this test set"
            )
        seen.append(seen_images.read_seen(path))
    left_out = seen_images.find_seen(today.images, *seen)
    own = today.captioned
    kept = [image_id for image_id in own.hypotheses if image_id not in left_out]
    note = f"The test set is another one, on which version {champion.version} was decoded again"
    if left_out:
        note += f"; {len(left_out):,} images that one of them was trained on are left out"
    captioned = Captioned(
        hypotheses={image_id: own.hypotheses[image_id] for image_id in kept},
        references={image_id: own.references[image_id] for image_id in kept},
    )
    return captioned, f"{note}."


def _rolled_back(model_name: str, version: str) -> str:
    """Say who took a version back since it was last promoted; a registration may not undo it."""
    for promoted in reversed(history(model_name)):
        if promoted.version == version:
            return ""
        if promoted.is_rollback and promoted.from_version == version:
            return f"by {promoted.by} at {promoted.at}, {promoted.why!r}"
    return ""


def _pictures(today: TestSet, raw: Path) -> list[bytes]:
    """Return some pictures of the test set, or the input example where the raw folder is not here."""
    folder = ImageFolder(raw)
    some = islice(today.images.values(), servability.NUM_PICTURES)
    try:
        return [folder.read(image.archive, image.member) for image in some]
    except (BadImage, OSError, KeyError, zipfile.BadZipFile):
        return [base64.b64decode(servable.RED_SQUARE)]


def _check_score(name: str, scored: Scored, reports_folder: Path) -> None:
    if name not in scored.scores:
        raise ValueError(
            f"section register names the score {name!r}, but {reports_folder / 'metrics.json'} has "
            f"{', '.join(sorted(scored.scores))}; name one of them, or add its metric to evaluate.metrics"
        )


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
    """Return the test scores of a reports folder."""
    path = _existing(reports_folder / "metrics.json")
    metrics = json.loads(path.read_text())
    if SPLIT not in metrics:
        raise ValueError(
            f"{path} has no scores of the test split, only {sorted(metrics)}; set evaluate.split: test"
        )
    return Scored(version="", scores=metrics[SPLIT], test_set="", tokenizer=metrics["tokenizer"])


def read_test_set(hypotheses: Path, data: DataFolders) -> TestSet:
    """Return the test set that a version was scored on.

    Raises:
        ValueError: the hypotheses are of other images than the test split.
    """
    captioned = read_captioned(_existing(hypotheses))
    images = seen_images.read_images(_existing(data.clean), _existing(data.splits), SPLIT)
    if odd := sorted(captioned.hypotheses.keys() - images.keys()):
        raise ValueError(
            f"{hypotheses} has images that are not in the test split of {data.splits}, such as {odd[:3]}; "
            "run `dvc repro evaluate`"
        )
    images = {image_id: images[image_id] for image_id in captioned.hypotheses}
    return TestSet(captioned=captioned, images=images, digest=digest_of_test_set(captioned, images))


def digest_of_test_set(captioned: Captioned, images: dict[str, CleanImage]) -> str:
    """Return the SHA-256 of the images' ids, files and references, whatever their order."""
    digests = [
        hashlib.sha256(json.dumps([image_id, images[image_id].sha256, references]).encode()).digest()
        for image_id, references in captioned.references.items()
    ]
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
    reports_folder: Path,
    challenger: Scored,
    data: DataFolders,
    settings: RegisterSettings,
    params: dict[str, Any],
) -> "ModelVersion":
    """Return the version of this model with these scores, created where there is none.

    It carries the profile of its training data, with which the gate compares later data, its captions of the test set,
    and which images it has seen, with which later versions are compared with it.
    """
    profile = _existing(reports_folder / "validation" / PROFILE)
    model_digest = folder_digest(model_folder)
    facts = [model_digest, challenger.scores, challenger.test_set, challenger.tokenizer]
    registration = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    for version in versions(settings.model_name):
        if version.tags.get("captioning.registration") == registration and has_files(version):
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
        creation.create_registered_model(settings.model_name)
    model_id = servable.log_model(run_id, model_folder, params["evaluate"]["generation"])
    client.log_model_artifact(model_id, str(profile))
    client.log_model_artifact(model_id, str(reports_folder / HYPOTHESES))
    with tempfile.TemporaryDirectory() as folder:
        seen_images.write_seen(data.clean, data.splits, Path(folder) / seen_images.FILE)
        made_by = lineage.write(
            Path(folder), params=params, reports=reports_folder, trained_on=tracking.machines(run_id)
        )
        client.log_model_artifacts(model_id, folder)
    tags |= made_by.tags
    with store.as_default_uri():
        created = client.create_model_version(
            settings.model_name, f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id
        )
    return _without_twins(created)


def _without_twins(created: "ModelVersion") -> "ModelVersion":
    """Return the first version of a model, and delete the others.

    MLflow's client repeats a request whose answer was lost, and the server then makes another version of the model.
    """
    twins = [version for version in versions(created.name) if version.source == created.source]
    first, *others = sorted(twins, key=lambda version: int(version.version))
    for version in others:
        store.client().delete_model_version(version.name, version.version)
    return first


def _champion(model_name: str) -> tuple[str | None, Scored | None]:
    """Return the version that the alias names, and its scores if its files are still there."""
    version = aliases(model_name).get(CHAMPION)
    if version is None:
        return None, None
    found = store.client().get_model_version(model_name, version)
    return version, _scored(found) if has_files(found) else None


def _scored(version: "ModelVersion") -> Scored:
    tags = version.tags
    return Scored(
        version=str(version.version),
        scores=json.loads(tags.get("captioning.scores", "{}")),
        test_set=tags.get("captioning.test_set", ""),
        tokenizer=tags.get("captioning.tokenizer", ""),
    )


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} does not exist; `dvc repro` makes it")
    return path

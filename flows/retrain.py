"""The whole pipeline as a deployment runs it: a clean checkout of a revision, on what the source has now.

    python -m flows.retrain [--recipe NAME] [--revision NAME] [--force STAGE] [--dry-run] [KEY=VALUE ...]

Takes some twenty seconds when nothing is new, most of them for Prefect's server where none runs. What the run ends with
is a commit on the branch captioning/retrain; the project's folder and branch stay as they are.
"""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows import approval, checkout, library, workspace
from flows.artifacts import RECEIPT_NAME
from flows.cancellation import watched
from flows.connection import connected
from flows.pipeline import changed_stages, run_stages
from flows.stage_graph import Stage, read_stages
from flows.workspace import Checkout, Workspace

Logger = logging.Logger | logging.LoggerAdapter[Any]


@flow
def retrain(
    recipe: str | None = None,
    overrides: list[str] | None = None,
    force: list[str] | None = None,
    dry_run: bool = False,
    revision: str | None = None,
) -> State[Any]:
    """Run every stage that changed, new data at the source included.

    Args:
        recipe: a file of recipes/ in place of params.yaml, for this run only.
        overrides: settings replaced for this run only, such as train.seed=1, one an item.
        force: stages to run although nothing changed.
        dry_run: only say which stages would run.
        revision: branch, tag or hash of what is run; empty is the commit that the project's folder is at.
    """
    logger = get_run_logger()
    with watched() as watch:
        try:
            return _retrain(recipe, overrides or [], force or [], dry_run, revision, logger)
        except (ValueError, checkout.BusyError) as error:
            return Failed(message=str(error))
        except TerminationSignal:
            if not watch.is_cancelled:
                raise
            return Cancelled(message="Cancelled; the run saw it itself.")


def _retrain(
    recipe: str | None,
    overrides: list[str],
    force: list[str],
    dry_run: bool,
    revision: str | None,
    logger: Logger,
) -> State[Any]:
    is_special = bool(recipe or overrides or dry_run)
    with workspace.opened(
        revision, say=logger.info, warn=logger.warning, keeps_changes=not is_special
    ) as place:
        if recipe or overrides:
            if isinstance(place, Checkout):
                place.link(override.partition("=")[2] for override in overrides)
            place.choose(library.choose(place.folder, [(recipe, overrides)])[0])
        _look(place, logger)
        settings = [*([f"recipe {recipe}"] if recipe else []), *overrides]
        place.begin(settings)
        _record_revision(place, logger)
        stages = read_stages()
        _refuse_unknown(force, stages)
        if dry_run:
            return Completed(name="Dry run", message=_plan(stages, force))
        ran = run_stages(stages, force)
        if commit := place.publish(_message(place, settings, ran, stages)):
            logger.info(
                f"committed to {workspace.results_branch()}: {commit[:12]}; reports are in {place.folder}"
            )
        return Completed(message=f"{ran}{approval.settle(stages)}")


def _refuse_unknown(names: Collection[str], stages: list[Stage]) -> None:
    known = [stage.name for stage in stages]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"force: no stage {unknown[0]!r} in dvc.yaml; expected some of {', '.join(known)}")


def _look(place: Workspace, logger: Logger) -> None:
    """Write what the source has now, so that the download stage sees it; without it the data stay as they are."""
    try:
        news = place.look()
    except OSError as error:
        logger.warning(f"the source cannot be looked at, so its data stay as they are: {error}")
        return
    for sentence in news:
        logger.info(f"new at the source: {sentence}")


def _record_revision(place: Workspace, logger: Logger) -> None:
    """Say which revision runs, and tag the run with it."""
    if place.revision:
        logger.info(f"revision {place.revision} in {place.folder}")
        with get_client(sync_client=True) as client:
            client.update_flow_run(
                flow_run.id, tags=[*(flow_run.tags or []), f"revision:{place.revision[:12]}"]
            )


def _plan(stages: list[Stage], forced: Collection[str]) -> str:
    changed = changed_stages()
    certain = [stage.name for stage in stages if stage.name in changed or stage.name in forced]
    possible: list[str] = []
    for stage in stages:
        if stage.name not in certain and any(name in certain + possible for name in stage.upstream):
            possible.append(stage.name)
    if not certain:
        return "nothing would run"
    follow = f"; these if what they read changes: {', '.join(possible)}" if possible else ""
    return f"would run: {', '.join(certain)}{follow}"


def _message(place: Workspace, settings: Sequence[str], ran: str, stages: list[Stage]) -> str:
    """Return the message of the commit: what ran with which settings, and what the registry said."""
    receipts = [out for stage in stages for out in stage.outs if out.name == RECEIPT_NAME and out.is_file()]
    registrations = [_registration(path) for path in receipts]
    title = next((line for line, _ in registrations if line), "the pipeline")
    lines = [
        f"Retrained {(place.revision or '')[:12]}: {title}",
        "",
        f"settings: {', '.join(settings) or 'of params.yaml'}",
        ran,
        *(reason for _, reason in registrations if reason),
        f"flow run: {flow_run.name} {flow_run.id}",
    ]
    return "\n".join(lines)


def _registration(path: Path) -> tuple[str, str]:
    """Return a receipt's version and score in a few words, and what became of the version."""
    try:
        receipt = json.loads(path.read_text())
        score = f"{receipt['metric']} {receipt['value']:.4f}"
        return (
            f"{receipt['model_name']} {receipt['version']}, {score}",
            f"{receipt['decision']}: {receipt.get('reason', '')}",
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it once; exit code 0 when every stage is up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.retrain", description="Run what changed in a clean checkout of a revision."
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as train.seed=1")
    parser.add_argument("--recipe", help="a file of recipes/ in place of params.yaml")
    parser.add_argument("--revision", help="branch, tag or hash (default: the commit that this folder is at)")
    parser.add_argument("--force", action="append", metavar="STAGE", help="run it although nothing changed")
    parser.add_argument("--dry-run", action="store_true", help="only say what would run")
    options = parser.parse_args(arguments)
    try:
        with connected():
            state = retrain(**vars(options), return_state=True)
    except ValueError as error:
        sys.exit(f"retrain: {error}")
    except KeyboardInterrupt:
        print("retrain: interrupted; the running stage was ended", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if not state.is_completed():
        sys.exit(f"retrain: {state.message}")
    print(state.message)


if __name__ == "__main__":
    main()

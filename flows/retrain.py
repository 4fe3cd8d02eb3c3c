"""The whole pipeline as a deployment runs it: with another recipe or settings if wanted, on what the source has now."""

import logging
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from captioning import recipes, source_state
from captioning.params import PARAMS_FILE
from captioning.source_state import SOURCE_FILE
from flows import checkout
from flows.pipeline import changed_stages, run_stages
from flows.probe import look
from flows.stage_graph import Stage, read_stages


@flow
def retrain(
    recipe: str | None = None,
    overrides: list[str] | None = None,
    force: list[str] | None = None,
    dry_run: bool = False,
) -> State[Any]:
    """Run every stage that changed, new data at the source included.

    Args:
        recipe: a file of recipes/ in place of params.yaml, for this run only.
        overrides: settings replaced for this run only, such as train.seed=1, one an item.
        force: stages to run although nothing changed.
        dry_run: only say which stages would run.
    """
    logger = get_run_logger()
    try:
        with checkout.alone(logger.info), ExitStack() as stack:
            for path in checkout.recover(PARAMS_FILE, SOURCE_FILE):
                logger.warning(f"{path} is put back: a run with other settings was killed")
            if recipe or overrides or dry_run:
                stack.enter_context(checkout.put_back(PARAMS_FILE, SOURCE_FILE))
            if recipe or overrides:
                recipes.use(recipe, overrides or [])
            stages = read_stages()
            _refuse_unknown(force or [], stages)
            _look(logger)
            if dry_run:
                return Completed(name="Dry run", message=_plan(stages, force or []))
            return Completed(message=run_stages(stages, force or []))
    except (ValueError, checkout.BusyError) as error:
        return Failed(message=str(error))


def _refuse_unknown(names: Collection[str], stages: list[Stage]) -> None:
    known = [stage.name for stage in stages]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"force: no stage {unknown[0]!r} in dvc.yaml; expected some of {', '.join(known)}")


def _look(logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """Write what the source has now, so that the download stage sees it; without it the data stay as they are."""
    try:
        seen, news = look()
    except OSError as error:
        logger.warning(f"the source cannot be looked at, so its data stay as they are: {error}")
        return
    for sentence in news:
        logger.info(f"new at the source: {sentence}")
    if news:
        with checkout.unread(SOURCE_FILE):
            source_state.write(seen)


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

"""Retraining by itself: serves `retrain` on a cron, and `probe`, which looks for new data and then starts a retrain.

`sweep`, which compares settings, is served beside them, to be started by hand.

    python -m flows.schedule --retrain '0 3 * * *' --probe '*/15 * * * *' --timezone Europe/Berlin

Ready after 20 to 60 s; serves until Ctrl-C or SIGTERM, which end what runs and leave the schedules as they are. All
deployments are seen, started and edited in Prefect's pages, at PREFECT_API_URL or at the address printed. Started with
none of the three options it keeps the schedules that the server has; the variables CAPTIONING_RETRAIN_CRON,
CAPTIONING_PROBE_CRON and CAPTIONING_TIMEZONE stand for them.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows import automations, library, pages
from flows.connection import connect
from flows.git import is_repository
from flows.probe import EVENT, probe, resource_id
from flows.retrain import retrain
from flows.sweep import sweep
from flows.ui import PREFECT_PORT
from flows.workspace import uncommitted_changes

DEFAULT_CRONS = {"retrain": "0 3 * * *", "probe": "*/15 * * * *"}
DEFAULT_TIMEZONE = "UTC"


@dataclass(frozen=True, kw_only=True)
class Crons:
    """When each flow runs."""

    schedules: dict[str, CronSchedule]
    """Name of a flow -> its cron and time zone."""
    are_stated: bool
    """By the user: otherwise they are for a server that has none yet."""


def read_crons(arguments: Sequence[str]) -> Crons:
    """Return what the command line or the environment states.

    Raises:
        ValueError: it is no cron, or no time zone.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.schedule",
        description="Retrain on a cron, and when there are new data; serves until Ctrl-C.",
    )
    for option, default, what in (
        ("retrain", DEFAULT_CRONS["retrain"], "cron of the retraining"),
        ("probe", DEFAULT_CRONS["probe"], "cron of the look for new data"),
        ("timezone", DEFAULT_TIMEZONE, "time zone of both, such as Europe/Berlin"),
    ):
        variable = f"CAPTIONING_{option.upper()}" + "_CRON" * (option != "timezone")
        parser.add_argument(
            f"--{option}",
            default=os.environ.get(variable) or None,
            help=f"{what} (default: {variable}, or {default})",
        )
    stated = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value}
    timezone = stated.get("timezone", DEFAULT_TIMEZONE)
    schedules = {
        name: _cron_schedule(name, stated.get(name, default), timezone)
        for name, default in DEFAULT_CRONS.items()
    }
    return Crons(schedules=schedules, are_stated=bool(stated))


def _cron_schedule(name: str, cron: str, timezone: str) -> CronSchedule:
    for field, option, value, example in (
        ("cron", name, cron, "'0 3 * * *', every night at three"),
        ("timezone", "timezone", timezone, "Europe/Berlin"),
    ):
        try:
            CronSchedule.model_validate({"cron": "0 3 * * *", field: value})
        except ValueError:
            raise ValueError(f"--{option} is {value!r}; expected such as {example}") from None
    return CronSchedule(cron=cron, timezone=timezone)


def deployments(model_name: str, crons: Crons) -> list[RunnerDeployment]:
    """Return the deployments of the pipeline that trains `model_name`, as the server is to have them.

    One retrain and one sweep run at a time, further ones wait; a probe is left out while another runs. What a person
    changed on the server (parameters, pause and, unless crons are stated, schedules) is kept.
    """
    on_new_data = DeploymentEventTrigger(
        name=f"retrain/{model_name} when the source has new data",
        expect={EVENT},
        match={"prefect.resource.id": resource_id(model_name)},
    )
    return [
        _deployment(retrain, model_name, crons, ConcurrencyLimitStrategy.ENQUEUE, triggers=[on_new_data]),
        _deployment(probe, model_name, crons, ConcurrencyLimitStrategy.CANCEL_NEW, triggers=[]),
        _deployment(sweep, model_name, crons, ConcurrencyLimitStrategy.ENQUEUE, triggers=[]),
    ]


def _deployment(
    flow: Flow[..., Any],
    name: str,
    crons: Crons,
    collision: ConcurrencyLimitStrategy,
    triggers: list[DeploymentEventTrigger],
) -> RunnerDeployment:
    cron = crons.schedules.get(flow.name)
    schedules = [DeploymentScheduleCreate(schedule=cron, active=True)] if cron else []
    known = _known_deployment(f"{flow.name}/{name}")
    if known and (not crons.are_stated or not cron):
        schedules = [
            DeploymentScheduleCreate(
                schedule=one.schedule, active=one.active, parameters=one.parameters, slug=one.slug
            )
            for one in known.schedules
        ]
    return RunnerDeployment.from_flow(
        flow,
        name=name,
        schedules=schedules,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=collision),
        triggers=list(triggers),
        paused=known.paused if known else False,
        parameters=known.parameters if known else {},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def _known_deployment(full_name: str) -> DeploymentResponse | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(full_name)
        except ObjectNotFound:
            return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    try:
        crons = read_crons(sys.argv[1:] if arguments is None else arguments)
        model_name = library.model_name(Path.cwd())
        address = connect(PREFECT_PORT)
        runner = Runner(pause_on_shutdown=False)  # the default pauses the deployments at SIGTERM
        for deployment in deployments(model_name, crons):
            runner.add_deployment(deployment)
            print(f"{deployment.full_name}: {_in_words(deployment)}")
        print("\n".join(automations.configure()))
        if is_repository(Path.cwd()) and (changed := uncommitted_changes(Path.cwd())):
            print(f"warning: {changed}", file=sys.stderr)
    except ValueError as error:
        sys.exit(f"schedule: {error}")
    with pages.served() as reports:
        print(f"Prefect: {address}\nreports of runs: {reports}")
        print("Ctrl-C ends what runs here; the schedules stay", flush=True)
        asyncio.run(_serve(runner))


async def _serve(runner: Runner) -> None:
    """Run what is due until a signal comes; then cancel what runs, and return once its processes have ended."""
    serving = asyncio.create_task(runner.start())
    await asyncio.sleep(0)  # in which it installs a handler that leaves its runs in the state Running
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if runner.started:
            stopping.append(loop.create_task(runner.astop()))
        else:
            serving.cancel()

    stopping: list[asyncio.Task[None]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with suppress(asyncio.CancelledError):
        await serving


def _in_words(deployment: RunnerDeployment) -> str:
    crons = [
        f"{getattr(one.schedule, 'cron', one.schedule)} ({getattr(one.schedule, 'timezone', None) or 'UTC'})"
        for one in deployment.schedules or []
        if one.active
    ]
    return f"{', '.join(crons) or 'no schedule'}{', paused' if deployment.paused else ''}"


if __name__ == "__main__":
    main()

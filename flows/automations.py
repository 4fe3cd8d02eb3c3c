"""What Prefect's server does by itself about our runs: it gives up those that fell silent, and tells a webhook.

    CAPTIONING_WEBHOOK_URL=https://... python -m flows.automations

Takes ten seconds; the schedule does the same as it starts, so that this is for the server of work pools, at
PREFECT_API_URL. Automations live on the server, are seen and switched off in its pages, and work when the process of a
run is gone. What a person switched off stays off.
"""

import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture, emit_event
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, get_current_settings
from prefect.types import SecretDict

from flows.artifacts import RECEIPT_NAME
from flows.connection import connect

WEBHOOK_VARIABLE = "CAPTIONING_WEBHOOK_URL"
BLOCK_VARIABLE = "CAPTIONING_NOTIFICATION_BLOCK"
OWN_BLOCK = "custom-webhook/captioning"
NUM_MISSED_HEARTBEATS = 3

FLOWS = ("pipeline", "retrain", "probe", "sweep", "approve")
PROMOTED = "captioning.champion.promoted"
STATES_TOLD = (StateType.FAILED, StateType.CRASHED, StateType.PAUSED)
"""A gate that refuses fails its run; a run that is paused asks for an approval."""
SUBJECT = "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message }}\n"
"""The address of the run follows; Prefect's own filter for it knows none on most servers."""


def configure(flow_names: Sequence[str] = FLOWS) -> list[str]:
    """Give the server the automations about runs of these flows; return what it will do, a sentence each.

    Raises:
        ValueError: the block that is to be told is not there.
    """
    heartbeat_seconds = get_current_settings().flows.heartbeat_frequency
    if heartbeat_seconds is None:
        told = ["runs whose machine died are not noticed: PREFECT_FLOWS_HEARTBEAT_FREQUENCY is none"]
    else:
        silence = timedelta(seconds=NUM_MISSED_HEARTBEATS * heartbeat_seconds)
        told = [f"a run that is silent for {in_minutes(silence)} has crashed"]
        give_up_silent_runs(flow_names, silence)
    if block := notification_block():
        told.append(f"failures, crashes, questions and promotions are told to {block}")
        tell(block, flow_names)
    return told


def give_up_silent_runs(
    flow_names: Sequence[str], silence: timedelta, name: str = "captioning: silent runs have crashed"
) -> None:
    """Have the server mark a run Crashed from which it heard nothing for so long, its heartbeat included.

    Any event of a run is a sign of life, for our final states have names of their own. After "Running" and "Cancelling"
    another one is waited for: the process may be gone when they come.
    """
    automation = AutomationCore(
        name=name,
        description="The process of a run is gone when its heartbeats are. The next run goes on where it was.",
        trigger=EventTrigger(
            after={f"prefect.flow-run.{event}" for event in ("heartbeat", "Running", "Cancelling")},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_flows(flow_names),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                force=False,
                message=f"Nothing was heard of this run for {in_minutes(silence)}: its process or its machine is "
                "gone, or cannot reach the server. The next run goes on where it was.",
            )
        ],
    )
    _put(automation)


def tell(block: str, flow_names: Sequence[str]) -> None:
    """Have a notification block told when runs of these flows fail, crash or ask, and when one moves the champion."""
    block_id = _block_id(block)
    _put(
        AutomationCore(
            name="captioning: tell of failures and questions",
            description=f"Tells {block} what happened, and what to do.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.*"},
                match={
                    "prefect.resource.id": "prefect.flow-run.*",
                    "prefect.state-type": [state.value for state in STATES_TOLD],
                },
                match_related=_of_flows(flow_names),
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[
                SendNotification(block_document_id=block_id, subject=SUBJECT, body=BODY + _address_of_run())
            ],
        )
    )
    _put(
        AutomationCore(
            name="captioning: tell of promotions",
            description=f"Tells {block} which version is the champion now, and why.",
            trigger=EventTrigger(expect={PROMOTED}, posture=Posture.Reactive, threshold=1),
            actions=[
                SendNotification(
                    block_document_id=block_id,
                    subject="{{ event.resource.name }} has a new champion",
                    body="{{ event.payload.message }}",
                )
            ],
        )
    )


def say_if_promoted(outs: Sequence[Path]) -> None:
    """Emit the event that this run moved the champion, where a receipt among a stage's outputs says so."""
    for out in outs:
        if out.name == RECEIPT_NAME:
            receipt = json.loads(out.read_text())
            if receipt.get("promoted"):
                say_promoted(receipt["model_name"], str(receipt.get("reason", "")))


def say_promoted(model_name: str, why: str) -> None:
    """Emit the event that this run moved the champion."""
    resource = {"prefect.resource.id": f"captioning.model.{model_name}", "prefect.resource.name": model_name}
    message = f"{why}\nRun {flow_run.name}. To take it back: captioning rollback"
    emit_event(PROMOTED, resource, payload={"message": message})


def notification_block() -> str | None:
    """Return the block to be told, as TYPE/NAME: the one that is named, or one made of CAPTIONING_WEBHOOK_URL, or none.

    Of that address nothing is shown: whoever knows it can write to where it leads.
    """
    if name := os.environ.get(BLOCK_VARIABLE):
        return name
    if url := os.environ.get(WEBHOOK_VARIABLE):
        webhook = CustomWebhookNotificationBlock(
            name="captioning",
            url="{{address}}",
            secrets=SecretDict({"address": url}),
            headers=None,
            cookies=None,
            json_data={"text": "{{subject}}\n{{body}}"},
        )
        webhook.save(OWN_BLOCK.partition("/")[2], overwrite=True)
        return OWN_BLOCK
    return None


def in_minutes(time: timedelta) -> str:
    """Return a time as a person says it."""
    minutes = time.total_seconds() / 60
    return f"{minutes:g} minutes" if minutes >= 1 else f"{time.total_seconds():g} seconds"


def _block_id(name: str) -> UUID:
    kind, _, own = name.partition("/")
    try:
        with get_client(sync_client=True) as client:
            return client.read_block_document_by_name(own, kind).id
    except ObjectNotFound as error:
        raise ValueError(
            f"{BLOCK_VARIABLE} is {name!r}, but Prefect has no such block; expected TYPE/NAME of a notification "
            "block, such as slack-webhook/team, as on the page Blocks"
        ) from error


def _address_of_run() -> str:
    """Return the template of the address of a run's page."""
    pages = PREFECT_UI_URL.value() or str(PREFECT_API_URL.value()).removesuffix("/api")
    return f"{pages.rstrip('/')}/runs/flow-run/{{{{ flow_run.id }}}}"


def _of_flows(names: Sequence[str]) -> dict[str, Any]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": list(names)}


def _put(automation: AutomationCore) -> None:
    """Create an automation, or bring the one of its name up to date.

    One that is as it should be is left alone: an update forgets which runs are being watched.
    """
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(automation.name)
        if not known:
            client.create_automation(automation)
            return
        automation.enabled = known[0].enabled
        if _facts(known[0]) != _facts(automation):
            client.update_automation(known[0].id, automation)


def _facts(automation: AutomationCore) -> dict[str, Any]:
    facts = automation.model_dump(include=set(AutomationCore.model_fields))
    return {**facts, "owner_resource": None, "trigger": {**facts["trigger"], "id": None}}


def main() -> None:
    """Configure the server at PREFECT_API_URL."""
    try:
        print(connect(), *configure(), sep="\n")
    except ValueError as error:
        sys.exit(f"automations: {error}")


if __name__ == "__main__":
    main()

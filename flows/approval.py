"""Asks a person whether a version may become the champion, in Prefect's pages, and does what the person says.

The question is a flow of its own, `approve`, below the run that trained the version: its page has the report, and its
button "Resume" the form. A run that itself paused would lose its place among the runs of its deployment, and Prefect
would end it four minutes later.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import State, flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.input import RunInput, keyset_from_paused_state
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed, Paused, Running
from pydantic import Field

from captioning import home
from captioning.outputs import whole_file
from flows import automations, connection, pages
from flows.artifacts import EVALUATION, RECEIPT_NAME, decision_markdown, linked, pictures_markdown
from flows.live import forgiving
from flows.stage_graph import Stage

AWAITING = "awaiting-approval"
"""Decision of a receipt."""
HOURS_VARIABLE = "CAPTIONING_APPROVAL_HOURS"
DEFAULT_HOURS = 12.0
"""From a nightly retrain until the end of a working day; the next retrain waits for the answer, too."""
SECONDS_BETWEEN_LOOKS = 2
NOBODY = "nobody"


class Answer(RunInput):
    """The form."""

    approve: bool = Field(
        default=False, title="Make it the champion", description="Otherwise it stays the challenger."
    )
    by: str = Field(title="Your name", min_length=1)
    why: str = Field(title="Why", description="Kept with the version: captioning history.", min_length=1)


def settle(stages: Sequence[Stage]) -> str:
    """Have a person decide about a registration that waits for it; return what came of it, for the end of a message.

    A version is asked about until a question about it was answered or its time was up, so that a run which died while
    it asked is made up for by the next. To be called in a flow that is done: an answer may take hours.
    """
    outs = [out for stage in stages for out in stage.outs]
    receipts = [json.loads(out.read_text()) for out in outs if out.name == RECEIPT_NAME and out.is_file()]
    return "".join(_settle(receipt, outs) for receipt in receipts if receipt.get("decision") == AWAITING)


def _settle(receipt: dict[str, Any], outs: Sequence[Path]) -> str:
    of_training = f"{receipt['version']}-{receipt.get('fingerprint', '')[:12]}"
    answered = home.work("approvals", receipt["model_name"]) / of_training
    if answered.exists() or _obstacle(receipt):
        return ""
    if connection.has_own_server:  # nobody could answer
        return f". {receipt.get('reason', '')}"
    read_at = {str(page): address for page, address in pages.addresses(outs, str(flow_run.name)).items()}
    try:
        state = approve.with_options(flow_run_name=_what(receipt))(receipt, read_at, return_state=True)
    except (httpx.HTTPError, PrefectException) as error:  # the server is away, and the training is done
        return f". {receipt.get('reason', '')} Nobody could be asked: {error}"
    if state.is_failed():
        return f". {_what(receipt)} stays the challenger: {state.message}. {_later(receipt)}"
    with whole_file(answered) as aside:
        aside.write_text(str(state.message))
    return f". {state.message}"


@flow(validate_parameters=False)
def approve(receipt: dict[str, Any], addresses: dict[str, str]) -> State[Any]:
    """Ask whether a version may become the champion.

    Args:
        receipt: what the register stage wrote.
        addresses: the HTML about the version, and where each file is read.
    """
    what = _what(receipt)
    try:
        hours = hours_to_wait()
        links = [linked(Path(page), address) for page, address in addresses.items()]
        question = "\n\n".join([decision_markdown(receipt), *links])
        pictures = [pictures_markdown(Path(page)) for page in addresses if Path(page).name == EVALUATION]
        with forgiving():
            create_markdown_artifact(
                "\n\n".join([question, *pictures]),
                key="approval",
                description=f"{what}: may it be the champion?",
            )
        asked = f"{receipt.get('reason', '')} Resume has the form, for {hours:g} h."
        get_run_logger().info(f"{asked} {flow_run.ui_url}")
        answer = _answer(asked, question, hours * 3600)
        if answer is None:
            return Cancelled(
                message=f"{what} stays the challenger: the question was cancelled. {_later(receipt)}"
            )
        if answer.by == NOBODY:
            return Completed(
                name="Unanswered", message=f"{what} stays the challenger: {answer.why}. {_later(receipt)}"
            )
        if not answer.approve:
            return Completed(
                name="Declined", message=f"{what} stays the challenger, says {answer.by}: {answer.why}"
            )
        if problem := _obstacle(receipt):
            return Failed(message=problem)
        _promote(receipt, by=answer.by, why=answer.why)
    except ValueError as error:
        return Failed(message=str(error))
    return Completed(name="Approved", message=f"{what} is the champion, says {answer.by}: {answer.why}")


def hours_to_wait() -> float:
    """Return CAPTIONING_APPROVAL_HOURS.

    Raises:
        ValueError: it is not a number of hours.
    """
    text = os.environ.get(HOURS_VARIABLE) or str(DEFAULT_HOURS)
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not hours > 0:
        raise ValueError(f"{HOURS_VARIABLE} is {text!r}; expected hours, such as {DEFAULT_HOURS:g}")
    return hours


def _answer(what_is_asked: str, question: str, seconds: float) -> Answer | None:
    """Return what a person answers, or after so many seconds that nobody did; None where the question was cancelled.

    Prefect's own `pause_flow_run` would go on waiting after a cancel, give up when the server is away for a moment, and
    have the run failed when nobody answers.
    """
    run_id = UUID(str(flow_run.id))
    paused: State[Any] = Paused(message=what_is_asked, pause_key="approval")
    keys = keyset_from_paused_state(paused)
    paused.state_details.run_input_keyset = {str(name): key for name, key in keys.items()}
    Answer.with_initial_data(description=question).save(keys)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, paused)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            with suppress(httpx.HTTPError):
                state = client.read_flow_run(run_id).state
                if state is not None and state.is_running():
                    answer = Answer.load(keys)
                    assert isinstance(answer, Answer)
                    return answer
                if state is None or not state.is_paused():
                    return None
        client.set_flow_run_state(run_id, Running())
    return Answer(by=NOBODY, why=f"nobody answered within {seconds / 3600:g} h")


def _obstacle(receipt: Mapping[str, Any]) -> str | None:
    """Say what keeps the version from being the next champion: another one, or that it is it already."""
    from captioning import aliases  # 4 s

    before, now = receipt.get("champion_before"), aliases.aliases(receipt["model_name"]).get(aliases.CHAMPION)
    if now == before:
        return None
    if now == receipt["version"]:
        return "it is the champion already"
    return f"it was compared with version {before}, but the champion is version {now} by now"


def _promote(receipt: Mapping[str, Any], *, by: str, why: str) -> None:
    from captioning import registry  # 4 s

    registry.promote(receipt["model_name"], receipt["version"], by=by, why=why)
    automations.say_promoted(receipt["model_name"], f"{_what(receipt)} is the champion, says {by}: {why}")


def _what(receipt: Mapping[str, Any]) -> str:
    return f"Version {receipt['version']} of {receipt['model_name']}"


def _later(receipt: Mapping[str, Any]) -> str:
    return f"To make it the champion: captioning promote {receipt['version']}"

"""Prefect's server gives up runs that fell silent, and tells a webhook what happened and what to do."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import chdir
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from scratch_project import make_project, one_stage, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FLOW = "told"
"""The name of the flows here, so that no other test's runs are given up or told of."""

SLEEPER = """
from prefect import flow
import time

@flow(name="told")
def sleeper():
    print("begun", flush=True)
    time.sleep(600)

sleeper()
"""


def automations_of_server() -> dict[str, dict[str, Any]]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {
            found["name"]: found for found in client.request("POST", "/automations/filter", json={}).json()
        }


@pytest.fixture(autouse=True)
def automations_are_removed(prefect: str) -> Iterator[None]:
    from prefect.client.orchestration import get_client

    before = set(automations_of_server())
    yield
    with get_client(sync_client=True) as client:
        for name, automation in automations_of_server().items():
            if name not in before:
                client.delete_automation(automation["id"])


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a webhook receives of failures, crashes and promotions of the flows here."""
    from flows import automations

    received: list[str] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("CAPTIONING_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/hook")
        automations.configure([FLOW])
        yield received
        server.shutdown()


def run_pipeline(folder: Path) -> Any:
    from flows.pipeline import pipeline

    with pytest.MonkeyPatch.context() as monkeypatch, chdir(folder):
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("CAPTIONING_HOME", str(folder))
        return pipeline.with_options(name=FLOW)(return_state=True)


def run_name(run_id: Any) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id).name


def test_the_webhook_is_told_of_a_failure_with_run_stage_and_what_to_do(
    messages: list[str], tmp_path: Path
) -> None:
    state = run_pipeline(make_project(tmp_path, one_stage("echo the reason; exit 3")))
    wait_until(lambda: len(messages) == 1)
    assert messages[0].startswith(f"told {run_name(state.state_details.flow_run_id)}: Failed\n")
    assert "stage 'only' failed; its last lines:\n" in messages[0]
    assert "\nthe reason\n" in messages[0]
    assert "\nNext: mend what they say and start it again." in messages[0]
    assert str(state.state_details.flow_run_id) in messages[0], "the address of its page"


def test_the_webhook_is_told_of_a_gate_that_refused(messages: list[str], tmp_path: Path) -> None:
    command = (
        """echo '{"accepted": false}' > verdict.json; echo "next: look at data/raw"; echo refused; exit 1"""
    )
    state = run_pipeline(make_project(tmp_path, one_stage(command, out="verdict.json")))
    assert state.message.startswith("stage 'only' refused what it looked at, so that nothing after it ran;")
    wait_until(lambda: len(messages) == 1)
    assert "stage 'only' refused" in messages[0]
    assert "next: look at data/raw" in messages[0]


def test_the_webhook_is_told_of_a_promotion(messages: list[str]) -> None:
    from prefect import flow

    from flows import automations

    @flow(name=FLOW, flow_run_name="nightly")
    def promote() -> None:
        automations.say_promoted("captioner", "Version 3 is the new champion: bleu_4 0.31 against 0.29.")

    promote()
    wait_until(lambda: len(messages) == 1)
    assert messages[0] == (
        "captioner has a new champion\nVersion 3 is the new champion: bleu_4 0.31 against 0.29.\n"
        "Run nightly. To take it back: captioning rollback"
    )


def test_a_run_that_was_killed_becomes_crashed_and_the_webhook_is_told(
    messages: list[str], prefect: str, tmp_path: Path
) -> None:
    from flows import automations

    automations.give_up_silent_runs([FLOW], timedelta(seconds=10), "silent runs of a test")
    environment = {**os.environ, "PREFECT_API_URL": prefect, "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: len(messages) == 1)
    first, *rest = messages[0].splitlines()
    assert first.startswith("told ")
    assert first.endswith(": Crashed")
    assert rest[0] == (
        "Nothing was heard of this run for 10 seconds: its process or its machine is gone, or cannot reach the "
        "server. The next run goes on where it was."
    )


def test_what_is_as_it_should_be_is_left_alone_and_what_was_switched_off_stays_off(
    messages: list[str],
) -> None:
    from prefect.client.orchestration import get_client

    from flows import automations

    before = automations_of_server()
    assert [name for name in sorted(before) if name.startswith("captioning: ")] == [
        "captioning: silent runs have crashed",
        "captioning: tell of failures and questions",
        "captioning: tell of promotions",
    ]
    automations.configure([FLOW])
    after = automations_of_server()
    assert {name: own["updated"] for name, own in after.items()} == {
        name: own["updated"] for name, own in before.items()
    }
    silent = "captioning: silent runs have crashed"
    with get_client(sync_client=True) as client:
        client.pause_automation(before[silent]["id"])
    automations.configure([FLOW, "another"])
    changed = automations_of_server()[silent]
    assert (changed["id"], changed["enabled"]) == (before[silent]["id"], False)
    assert changed["trigger"]["match_related"]["prefect.resource.name"] == [FLOW, "another"]


def test_a_block_can_be_named_and_one_that_is_not_there_is_refused(
    prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import automations

    told = automations.configure([FLOW])
    assert told == ["a run that is silent for 9 minutes has crashed"], "nobody is to be told"
    monkeypatch.setenv("CAPTIONING_NOTIFICATION_BLOCK", "slack-webhook/team")
    with pytest.raises(
        ValueError, match=r"CAPTIONING_NOTIFICATION_BLOCK is 'slack-webhook/team', but .* no such"
    ):
        automations.configure([FLOW])

"""A person decides in Prefect's pages whether a version may be the champion; silence leaves the champion."""

import json
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scratch_project import ask_server, wait_until

from flows.stage_graph import Stage

pytestmark = pytest.mark.slow

MODEL = "captioner"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str | None]]:
    """A registry of its own with seven versions, the first of them the champion; it tells who is the champion."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        home = tmp_path_factory.mktemp("home")
        monkeypatch.setenv("CAPTIONING_HOME", str(home))
        from captioning import aliases, store

        client = store.client()
        client.create_registered_model(MODEL)
        model = home / "model"
        model.mkdir()
        (model / "MLmodel").write_text("flavors: {}\n")
        for _ in range(7):
            client.create_model_version(MODEL, model.as_uri())
        client.set_registered_model_alias(MODEL, "champion", "1")
        yield lambda: aliases.aliases(MODEL).get("champion")


def registered(folder: Path, version: str, champion: str) -> list[Stage]:
    """Return a stage whose receipt says that a version waits for approval."""
    receipt = {
        "model_name": MODEL,
        "version": version,
        "metric": "bleu_4",
        "decision": "awaiting-approval",
        "reason": f"Version {version} would be the new champion. `captioning promote {version}` approves.",
        "champion_before": champion,
        "scores": {"bleu_4": 0.3},
        "champion_scores": {"bleu_4": 0.2},
    }
    (folder / "registration.json").write_text(json.dumps(receipt))
    (folder / "report.html").write_text("the report")
    return [
        Stage(
            name="register",
            desc="",
            upstream=(),
            outs=(folder / "registration.json", folder / "report.html"),
            metrics=(),
            retries=0,
            retry_delay_seconds=0.0,
            timeout_seconds=None,
        )
    ]


def settle(stages: list[Stage]) -> str:
    """Settle in a flow, as a run does when its stages are done; return what came of it."""
    from prefect import flow

    from flows import approval

    @flow
    def train() -> str:
        return approval.settle(stages)

    return train()


class Person:
    """Somebody who looks at Prefect's pages, and answers the question about a version in a thread."""

    def __init__(self, api_url: str, version: str, answer: Callable[["Person"], None]) -> None:
        self._api_url = api_url
        self._name = f"Version {version} of {MODEL}"
        self.run: dict[str, Any] = {}
        self._thread = threading.Thread(target=lambda: (wait_until(self._is_asked), answer(self)))

    def __enter__(self) -> "Person":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self.run = ask_server(f"{self._api_url}/flow_runs/{self.run['id']}")

    def answer(self, **form: Any) -> dict[str, Any]:
        """Press Resume with a form; return what the server says to that."""
        said: dict[str, Any] = ask_server(
            f"{self._api_url}/flow_runs/{self.run['id']}/resume", {"run_input": form}
        )
        return said

    def cancel(self) -> None:
        """Press Cancel."""
        ask_server(f"{self._api_url}/flow_runs/{self.run['id']}/set_state", {"state": {"type": "CANCELLING"}})

    def artifacts(self) -> dict[str, str]:
        of_run = {"flow_runs": {"id": {"any_": [self.run["id"]]}}}
        return {row["key"]: row["data"] for row in ask_server(f"{self._api_url}/artifacts/filter", of_run)}

    def form(self) -> dict[str, Any]:
        key = self.run["state"]["state_details"]["run_input_keyset"]["schema"]
        found: dict[str, Any] = ask_server(f"{self._api_url}/flow_runs/{self.run['id']}/input/{key}")
        return found

    def _is_asked(self) -> bool:
        paused = {"flow_runs": {"name": {"any_": [self._name]}, "state": {"type": {"any_": ["PAUSED"]}}}}
        runs = ask_server(f"{self._api_url}/flow_runs/filter", paused)
        if not runs:
            return False
        self.run = runs[0]
        try:
            self.form()
        except urllib.error.HTTPError:  # the form comes after the pause
            return False
        return True


def test_who_approves_makes_the_version_the_champion_with_name_and_reason(
    prefect: str, registry: Callable[[], str | None], tmp_path: Path
) -> None:
    from captioning import aliases

    refused, pages = [], {}

    def approve(person: Person) -> None:
        refused.append(person.answer(approve=True, by="", why="")["status"])
        pages.update(person.artifacts())
        assert set(person.form()["properties"]) == {"approve", "by", "why"}
        person.answer(approve=True, by="Ada", why="the captions of dogs are better")

    stages = registered(tmp_path, "2", champion="1")
    with Person(prefect, "2", approve) as person:
        said = settle(stages)
    message = "Version 2 of captioner is the champion, says Ada: the captions of dogs are better"
    assert said == f". {message}"
    assert person.run["state"]["name"] == "Approved"
    assert refused == ["REJECT"], "a form without a name is no answer"
    assert registry() == "2"
    last = aliases.history(MODEL)[-1]
    assert (last.version, last.from_version, last.by) == ("2", "1", "Ada")
    assert last.why == "the captions of dogs are better"
    assert "| bleu_4 | 0.3000 | 0.2000 |" in pages["approval"]
    assert f"`{tmp_path / 'report.html'}`" in pages["approval"]
    assert settle(stages) == "", "it is not asked about again"


def test_who_declines_leaves_the_champion(
    prefect: str, registry: Callable[[], str | None], tmp_path: Path
) -> None:
    before = str(registry())
    no = {"approve": False, "by": "Bo", "why": "it sees no cats"}
    with Person(prefect, "3", lambda person: person.answer(**no)) as person:
        said = settle(registered(tmp_path, "3", champion=before))
    assert said == ". Version 3 of captioner stays the challenger, says Bo: it sees no cats"
    assert person.run["state"]["name"] == "Declined"
    assert registry() == before


def test_when_nobody_answers_it_stays_the_challenger_and_the_command_is_said(
    prefect: str, registry: Callable[[], str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_APPROVAL_HOURS", "0.001")
    before = str(registry())
    stages = registered(tmp_path, "4", champion=before)
    said = settle(stages)
    assert said == (
        ". Version 4 of captioner stays the challenger: nobody answered within 0.001 h. "
        "To make it the champion: captioning promote 4"
    )
    named = {"flow_runs": {"name": {"any_": [f"Version 4 of {MODEL}"]}}}
    (run,) = ask_server(f"{prefect}/flow_runs/filter", named)
    assert run["state"]["name"] == "Unanswered"
    assert registry() == before
    assert settle(stages) == ""


def test_who_cancels_the_question_declines(
    prefect: str, registry: Callable[[], str | None], tmp_path: Path
) -> None:
    before = str(registry())
    with Person(prefect, "5", Person.cancel) as person:
        said = settle(registered(tmp_path, "5", champion=before))
    assert said == (
        ". Version 5 of captioner stays the challenger: the question was cancelled. "
        "To make it the champion: captioning promote 5"
    )
    assert person.run["state"]["type"] == "CANCELLED"
    assert registry() == before


def test_a_champion_that_came_meanwhile_is_not_replaced_by_an_approval(
    prefect: str, registry: Callable[[], str | None], tmp_path: Path
) -> None:
    from captioning import aliases

    before = str(registry())

    def approve(person: Person) -> None:
        aliases.promote(MODEL, "5", by="another run", why="better")
        person.answer(approve=True, by="Ada", why="late")

    with Person(prefect, "6", approve):
        said = settle(registered(tmp_path, "6", champion=before))
    assert said == (
        f". Version 6 of captioner stays the challenger: it was compared with version {before}, but the champion is "
        "version 5 by now. To make it the champion: captioning promote 6"
    )
    assert registry() == "5"


def test_without_a_server_to_ask_at_it_does_not_wait(
    prefect: str, registry: Callable[[], str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import connection

    monkeypatch.setattr(connection, "has_own_server", True)
    said = settle(registered(tmp_path, "7", champion=str(registry())))
    assert said == ". Version 7 would be the new champion. `captioning promote 7` approves."


def test_hours_that_are_no_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.approval import hours_to_wait

    monkeypatch.setenv("CAPTIONING_APPROVAL_HOURS", "a day")
    with pytest.raises(ValueError, match="CAPTIONING_APPROVAL_HOURS is 'a day'; expected hours, such as 12"):
        hours_to_wait()

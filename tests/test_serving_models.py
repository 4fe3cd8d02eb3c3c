"""Batches, takeover of a new champion, the shadow, and the end of the service: nothing accepted is lost."""

import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from registry_samples import PARAMS, python
from served import Served, serve
from test_serving import as_base64, post
from tiny_captioner import save_captioner

from captioning import aliases, servable, store
from captioning.serving import logs
from captioning.serving.app import create_app
from captioning.serving.batching import Batches, WaitingPicture
from captioning.serving.measures import Measures
from captioning.serving.model_names import ModelName, parse
from captioning.serving.models import LoadedModel, Models, load
from captioning.serving.places import Places
from captioning.serving.problems import Problem
from captioning.serving.service import Service
from captioning.serving.settings import ServiceSettings
from captioning.serving.shadowing import Shadow
from captioning.serving.takeover import Takeover
from captioning.serving.turns import TURNS

NAME = "captioner"
LIMIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save_captioner(tmp_path_factory.mktemp("tiny") / "tiny", seed=1)
    return load(ModelName(name="tiny", folder=folder), None, "champion")


def waiting(model: LoadedModel, seed: int = 0, *, top: int = 1) -> WaitingPicture:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return WaitingPicture(
        model=model, inputs=model.inputs(pixels), number=seed, top=top, with_attention=False
    )


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another thread or process is about to do."""
    end = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextmanager
def batches(measures: Measures, size: int = 4, num_threads: int = 1) -> Iterator[Batches]:
    with Batches(batch_size=size, wait_seconds=0.0, num_threads=num_threads, measures=measures) as running:
        yield running


# --- batches


def test_what_waits_while_a_batch_is_captioned_is_the_next_batch(tiny: LoadedModel) -> None:
    measures = Measures()
    with batches(measures) as running:
        with TURNS.alone():  # the first batch, of one picture, is stopped here
            pictures = [waiting(tiny, seed) for seed in range(7)]
            running.put(pictures[0])
            until(lambda: running.num_waiting == 0)
            for own in pictures[1:]:
                running.put(own)
            assert running.num_waiting == 6
        made = [own.hypotheses.result(LIMIT_SECONDS)[0].text for own in pictures]
    assert made == [
        tiny.caption([own.inputs], [0], top=1, with_attention=False)[0][0].text for own in pictures
    ]
    lines = measures.text().decode().splitlines()
    assert 'captioning_batch_pictures_bucket{le="1.0"} 1.0' in lines
    assert 'captioning_batch_pictures_bucket{le="2.0"} 2.0' in lines
    assert "captioning_batch_pictures_count 3.0" in lines
    assert "captioning_batch_pictures_sum 7.0" in lines


def test_pictures_of_other_wishes_are_in_other_batches_and_keep_their_turn(tiny: LoadedModel) -> None:
    measures = Measures()
    with batches(measures) as running:
        with TURNS.alone():
            first = waiting(tiny)
            running.put(first)
            until(lambda: running.num_waiting == 0)
            tops = [1, 3, 1, 3]
            pictures = [waiting(tiny, seed, top=top) for seed, top in enumerate(tops)]
            for own in pictures:
                running.put(own)
        assert [len(own.hypotheses.result(LIMIT_SECONDS)) for own in pictures] == tops
    assert "captioning_batch_pictures_count 3.0" in measures.text().decode()


def test_a_picture_that_nobody_waits_for_leaves_the_queue(tiny: LoadedModel) -> None:
    measures = Measures()
    with batches(measures) as running:
        with TURNS.alone():
            running.put(waiting(tiny))
            until(lambda: running.num_waiting == 0)
            left, kept = waiting(tiny, 1), waiting(tiny, 2)
            running.put(left)
            running.put(kept)
            assert left.hypotheses.cancel()
        kept.hypotheses.result(LIMIT_SECONDS)
    assert "captioning_batch_pictures_sum 2.0" in measures.text().decode()


def test_a_picture_that_fails_spoils_no_other_of_its_batch(
    tiny: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    with batches(Measures()) as running:
        with TURNS.alone():
            running.put(waiting(tiny))
            until(lambda: running.num_waiting == 0)
            good, odd = waiting(tiny, 1), waiting(tiny, 2)
            object.__setattr__(odd, "inputs", odd.inputs[:, :, :31])  # of another size
            running.put(good)
            running.put(odd)
        assert good.hypotheses.result(LIMIT_SECONDS)
        assert odd.hypotheses.result(LIMIT_SECONDS)  # alone it is captioned, too
    assert not caplog.records


def test_a_model_that_fails_is_logged_and_the_next_picture_is_captioned(
    tiny: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    with batches(Measures()) as running:
        bad = waiting(tiny)
        object.__setattr__(bad, "inputs", bad.inputs[:, :2])  # two colours
        running.put(bad)
        assert bad.hypotheses.exception(LIMIT_SECONDS)
        good = waiting(tiny)
        running.put(good)
        assert good.hypotheses.result(LIMIT_SECONDS)
    assert [own.message for own in caplog.records] == ["a picture could not be captioned"]


@pytest.mark.parametrize(
    ("owner", "name", "detail"),
    [
        (LoadedModel, "caption", "champion cannot caption this picture; the service's log says why"),
        (Service, "caption", "the service failed; its log says how, under the id in X-Request-ID"),
    ],
    ids=["of a model", "of ours"],
)
def test_a_defect_is_a_problem_and_the_log_says_which(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: type,
    name: str,
    detail: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a defect")

    settings = ServiceSettings(model=str(save_captioner(tmp_path / "tiny", seed=1)))
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        monkeypatch.setattr(owner, name, fail)
        answer = client.post("/captions", json={"images": [as_base64(1)]})
    assert answer.status_code == 500 and answer.json()["detail"] == detail
    assert answer.headers["content-type"] == "application/problem+json" and answer.headers["x-request-id"]
    assert sum("KeyError: 'a defect'" in str(own.exc_text) for own in caplog.records) == 1


def test_what_waits_at_the_end_is_captioned_before_it(tiny: LoadedModel) -> None:
    with batches(Measures(), num_threads=2) as running:
        pictures = [waiting(tiny, seed) for seed in range(9)]
        for own in pictures:
            running.put(own)
    assert all(own.hypotheses.done() for own in pictures)


def test_too_many_pictures_are_refused_with_the_time_to_come_again() -> None:
    places = Places(4, "pictures are being captioned", lambda: 3.1)
    places.take(3)
    with pytest.raises(
        Problem,
        match=r"the service is busy: 3 pictures are being captioned, at most 4, and this request needs 2; "
        r"send it again in 10 s",
    ) as refused:
        places.take(2)
    assert refused.value.status == 503 and refused.value.headers == {"Retry-After": "10"}
    places.give_back(1)
    places.take(2)


def test_pictures_that_would_come_too_late_are_refused_at_once() -> None:
    places = Places(100, "pictures are being captioned", lambda: 1.0, max_seconds=5)
    places.take(4)
    with pytest.raises(
        Problem, match="4 pictures are being captioned, at most 100, and this request needs 2"
    ):
        places.take(2)
    places.give_back(4)
    places.take(16)  # alone it is always tried


# --- shadow


def test_the_shadow_is_compared_counted_and_logged_without_captions(
    tiny: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_captioner(tmp_path / "other", seed=2)
    other = load(ModelName(name="other", folder=folder), None, "challenger")
    measures = Measures()
    caplog.set_level(logging.INFO)
    with batches(measures) as running:
        shadow = Shadow(share=0.5, batches=running, max_waiting=4, measures=measures)
        assert shadow.takes(0) and shadow.takes(2**31 - 1) and not shadow.takes(2**31)
        picture = waiting(tiny)
        shown = tiny.caption([picture.inputs], [0], top=1, with_attention=False)[0]
        shadow.follow(tiny, picture.inputs, 0, shown, by=tiny)
        shadow.follow(other, picture.inputs, 0, shown, by=tiny)
    lines = measures.text().decode().splitlines()
    assert 'captioning_shadow_pictures_total{outcome="same"} 1.0' in lines
    assert 'captioning_shadow_pictures_total{outcome="different"} 1.0' in lines
    assert "captioning_shadow_agreement 0.5" in lines
    assert sorted(own.same for own in caplog.records) == [False, True]
    assert shown[0].text not in "".join(logs.JsonLines().format(own) for own in caplog.records)


def test_a_busy_service_drops_the_shadow_first(tiny: LoadedModel) -> None:
    measures = Measures()
    with batches(measures, size=1) as running, TURNS.alone():
        running.put(waiting(tiny))
        until(lambda: running.num_waiting == 0)
        running.put(waiting(tiny))
        shadow = Shadow(share=1, batches=running, max_waiting=1, measures=measures)
        shadow.follow(tiny, waiting(tiny).inputs, 0, [], by=tiny)
    assert 'captioning_shadow_pictures_total{outcome="dropped"} 1.0' in measures.text().decode()


# --- which model


def test_a_model_is_a_folder_a_name_an_alias_or_a_version(tmp_path: Path) -> None:
    folder = save_captioner(tmp_path / "tiny", seed=1)
    assert parse(str(folder)) == ModelName(name="tiny", folder=folder)
    assert parse("captioner") == ModelName(name="captioner", alias="champion")
    assert parse("captioner@challenger") == ModelName(name="captioner", alias="challenger")
    assert parse("captioner/3") == ModelName(name="captioner", fixed_version="3")
    assert parse(None) == ModelName(name="captioner", alias="champion"), "of params.yaml"


# --- takeover


def register(folder: Path) -> str:
    """Register a captioner as the next version; return its number."""
    client = store.client()
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
        client.create_experiment(NAME, artifact_location=(folder.parent / "mlruns" / NAME).as_uri())
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id)
    model_id = servable.log_model(run.info.run_id, folder, PARAMS["evaluate"]["generation"])
    with store.as_default_uri():
        created = client.create_model_version(
            NAME, f"models:/{model_id}", model_id=model_id, tags={"captioning.scores": '{"bleu_4": 0.25}'}
        )
    return str(created.version)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with three versions, of which the first is the champion."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for seed in (1, 2, 3):
            register(save_captioner(home / f"folder-{seed}", seed=seed))
        aliases.promote(NAME, "1", by="test", why="it is the first")
        yield home


def weights(home: Path, version: str) -> Path:
    from captioning import champion

    return champion.captioner_folder(champion.version_folder(NAME, version)) / "weights.safetensors"


def served_version(service: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{service.url}/models").json()["models"][0]
    return found


def test_a_new_champion_takes_over_under_load_without_a_failed_request(registry: Path) -> None:
    with serve("--model", NAME, "--poll-seconds", "0.2", home=registry) as service:
        assert served_version(service)["version"] == "1"
        assert served_version(service)["scores"] == {"bleu_4": 0.25}
        answers: list[httpx.Response] = []
        has_ended = threading.Event()

        def ask() -> None:
            while not has_ended.is_set():
                answers.append(post(service, images=[as_base64(len(answers) % 5)]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 8)
        aliases.promote(NAME, "2", by="test", why="it is better")
        until(lambda: _version(answers[-1]) == "2")
        num_answers = len(answers)
        until(lambda: len(answers) > num_answers + 8)
        has_ended.set()
        for thread in threads:
            thread.join()
        assert {own.status_code for own in answers} == {200}
        assert {_version(own) for own in answers} == {"1", "2"}
        assert service.metric('captioning_takeovers_total{model="champion",outcome="done"}') == 1
        assert service.metric('captioning_model_info{model="champion",name="captioner",version="2"}') == 1
        assert service.metric('captioning_model_info{model="champion",name="captioner",version="1"}') == 0
        _a_damaged_champion_changes_nothing(service, registry)
        _sigterm_ends_it_once_what_it_accepted_is_answered(service)


def _version(answer: httpx.Response) -> str:
    found: str = answer.json()["images"][0]["answers"][0]["version"]
    return found


def _a_damaged_champion_changes_nothing(service: Served, home: Path) -> None:
    whole = weights(home, "3").read_bytes()
    weights(home, "3").write_bytes(whole[:100])
    aliases.promote(NAME, "3", by="test", why="nobody looked")
    failed = 'captioning_takeovers_total{model="champion",outcome="failed"}'
    until(lambda: service.metric(failed) == 1)
    assert (
        served_version(service)["version"] == "2" and served_version(service)["newer_version_failed"] is True
    )
    assert _version(post(service, images=[as_base64(0)])) == "2"
    until(lambda: any(own["level"] == "error" for own in service.log()))
    (line,) = [own for own in service.log() if own["level"] == "error"]
    assert line["event"] == "the version before goes on, for a new one could not be loaded"
    assert "is not a captioner's folder" in line["reason"] and line["model"] == "captioner@champion"
    mended = weights(home, "3").with_name("mended")
    mended.write_bytes(whole)
    mended.replace(weights(home, "3"))  # at once: half of them would be another failure
    until(lambda: served_version(service)["version"] == "3")
    assert served_version(service)["newer_version_failed"] is False
    assert service.metric(failed) == 1, "the same failure counts once"


def _sigterm_ends_it_once_what_it_accepted_is_answered(service: Served) -> None:
    body = json.dumps({"images": [as_base64(0)]}).encode()
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT_SECONDS) as accepted:
        head = f"POST /captions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        accepted.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        until(lambda: service.metric("captioning_requests_in_flight") == 2)  # it, and the look at the metrics
        service.process.send_signal(signal.SIGTERM)
        until(lambda: not _takes_connections(host, int(port)))
        assert service.process.poll() is None
        accepted.sendall(body[10:])
        assert accepted.recv(100).startswith(b"HTTP/1.1 200")
    assert service.process.wait(LIMIT_SECONDS) == 0


def _takes_connections(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_challenger_comes_and_leaves_with_its_alias(registry: Path) -> None:
    served, measures = Models(), Measures()
    names = {"champion": parse(NAME), "challenger": parse(f"{NAME}@challenger")}
    takeover = Takeover(served, names, seconds=60, measures=measures)
    takeover.begin()
    assert [own.role for own in served.all()] == ["champion"]
    with store.locked(aliases.LOCK):
        aliases.name_challenger(NAME, "2")
    takeover.look()
    challenger = served.get("challenger")
    assert challenger is not None and challenger.version == "2"
    store.client().delete_registered_model_alias(NAME, "challenger")
    takeover.look()
    assert served.get("challenger") is None and takeover.failures == {}
    assert 'model="challenger",name' not in measures.text().decode()


def test_a_champion_that_disappears_leaves_the_one_in_service(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Models()
    takeover = Takeover(served, {"champion": parse(NAME)}, seconds=60, measures=Measures())
    takeover.begin()
    before = served.get("champion")
    monkeypatch.setenv("CAPTIONING_HOME", str(registry / "elsewhere"))
    takeover.look()
    assert served.get("champion") is before
    assert takeover.failures == {"champion": "captioner@champion is gone from the registry"}


def test_serving_imports_neither_mlflow_nor_what_is_slow_and_not_needed(registry: Path) -> None:
    program = (
        "import sys; from captioning.serving.settings import ServiceSettings; "
        "from captioning.serving.app import create_app; create_app(ServiceSettings(model='captioner')); "
        "assert not {'mlflow', 'pandas', 'sympy', 'torch._dynamo'} & {*sys.modules}"
    )
    process = python("-c", program, home=registry)
    _, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, errors

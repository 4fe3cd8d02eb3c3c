"""`mlflow models serve`: the registered model answers from the registry alone, as MLflow's own page shows."""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from absent_packages import ONLY_THESE
from local_site import Site, serve
from registry_samples import Project, python, split_data, write_model
from scratch_project import LIMIT_SECONDS

from captioning import champion, servability, servable, store
from captioning.servability import Answer
from flows.servers import HOST, free_port

PLACES = {"train": range(16), "val": range(16, 20), "test": range(20, 48)}
PICTURE = base64.b64decode(servable.RED_SQUARE)


@pytest.fixture(scope="module")
def project(tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A registry with one champion."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONING_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(servability, "ask_alone", lambda *_: Answer(problem="", seconds_per_caption=0.5))
        write_model(home / "models" / "captioner", "abc123")
        data = split_data(tiny_tables, tmp_path_factory.mktemp("data") / "data", PLACES)
        found = Project(home, "captioner", data)
        found.register(0.5)
        yield found


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve() as found:
        found.files["square.png"] = PICTURE
        yield found


def start(project: Project, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start MLflow's server in a folder of its own, without this checkout on its path; return it and its address."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": store.uri(), "PYTHONSAFEPATH": "1"}
    uri = f"models:/{project.model_name}@champion"
    arguments = ["models", "serve", "-m", uri, "--env-manager", "local", "-h", HOST, "-p", str(port)]
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    return process, f"http://{HOST}:{port}"


def wait_for(process: subprocess.Popen[bytes], address: str, folder: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        assert process.poll() is None and time.monotonic() < deadline, (folder / "said.txt").read_text()
        with (
            suppress(OSError, http.client.HTTPException),
            urllib.request.urlopen(f"{address}/ping", timeout=5),
        ):
            return
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's server of the champion."""
    folder = tmp_path_factory.mktemp("server")
    process, address = start(project, folder)
    try:
        wait_for(process, address, folder)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(address: str, body: str) -> Any:
    request = urllib.request.Request(
        f"{address}/invocations", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
        return json.load(answer)["predictions"]


@pytest.mark.slow
def test_the_champion_answers_what_mlflows_page_shows_from_the_registry_alone(
    server: str, project: Project
) -> None:
    folder = champion.champion_folder(project.model_name).parents[1]
    shown = (folder / "serving_input_example.json").read_text()
    assert json.loads(shown) == {"inputs": [servable.RED_SQUARE]}
    (row,) = ask(server, shown)
    assert row["error"] is None
    best, second = row["captions"]
    assert best["text"] and 1 >= best["probability"] >= second["probability"] > 0


@pytest.mark.slow
def test_an_address_that_is_not_public_is_not_asked(server: str, site: Site) -> None:
    refused = [f"{site.url}/file/secret", f"http://2130706433:{site.url.rpartition(':')[2]}/file/secret"]
    no_addresses = ["file:///etc/passwd", "s3://bucket/photo.jpg", "/etc/passwd"]
    rows = ask(server, json.dumps({"inputs": refused + no_addresses}))
    assert rows[0]["error"] == "the address does not lead to the public internet; send the picture itself"
    assert [row["captions"] for row in rows] == [[]] * 5
    assert all(row["error"].startswith("not base64: ") for row in rows[2:])
    assert site.requests["/file/secret"] == 0


ALONE = """
import json
import mlflow.pyfunc
rows = mlflow.pyfunc.load_model(sys.argv[2]).predict(json.loads(sys.argv[3]))
print(json.dumps([row.model_dump() for row in rows]))
"""
"""Asks a model."""


@pytest.mark.slow
def test_addresses_are_captioned_beside_base64_with_no_package_that_the_model_does_not_name(
    project: Project, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_ALLOW_PRIVATE_ADDRESSES", "true")
    folder = champion.champion_folder(project.model_name).parents[1]
    named = [
        line.split("==")[0] for line in (folder / "requirements.txt").read_text().splitlines() if "==" in line
    ]
    inputs = [
        f"{site.url}/file/square.png",
        servable.RED_SQUARE,
        f"data:image/png;base64,{servable.RED_SQUARE}",
        f"{site.url}/gone/photo.jpg",
    ]
    out, err = python(
        "-P",
        "-c",
        ONLY_THESE + ALONE,
        " ".join(named),
        str(folder),
        json.dumps(inputs),
        home=tmp_path,
        cwd=tmp_path,
    ).communicate()
    assert out, err
    rows = json.loads(out)
    assert [row["error"] for row in rows] == [None] * 3 + [
        f"{site.url}/gone/photo.jpg answered 404 Not Found"
    ]
    assert rows[0]["captions"] == rows[1]["captions"] == rows[2]["captions"] != []

"""The container and the manifest of the service: what they name is there, and fits together."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from absent_packages import ONLY_THESE
from ruamel.yaml import YAML
from tiny_captioner import save_captioner

from captioning.serving.settings import ServiceSettings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def instructions(name: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE)
    return [line.removeprefix(f"{name} ") for line in joined.splitlines() if line.startswith(f"{name} ")]


def manifests() -> dict[str, Any]:
    text = (ROOT / "deploy" / "kubernetes.yaml").read_text()
    return {own["kind"]: own for own in YAML(typ="safe", pure=True).load_all(text)}


def container() -> dict[str, Any]:
    (found,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def packages() -> list[str]:
    lines = (ROOT / "deploy" / "service.txt").read_text().splitlines()
    return [own for line in lines if (own := line.partition("#")[0].strip())]


def test_the_container_copies_what_is_there_and_git_keeps_nothing_else_from_it() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert sorted(copied) == sorted(sent)
    assert [own for own in copied if not (ROOT / own).exists()] == []


def test_container_and_manifest_run_a_command_that_exists_as_the_same_unprivileged_user() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["captioning"]
    for arguments in (json.loads(instructions("CMD")[0]), container()["args"]):
        command, *options = arguments
        assert command == "serve"
        names = [own.removeprefix("--").replace("-", "_") for own in options[::2]]
        assert set(names) <= set(ServiceSettings.model_fields)
        values = dict(zip(names, map(str, options[1::2]), strict=True))
        assert ServiceSettings.model_validate_strings(values).host == "0.0.0.0"
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    own = pod["securityContext"]
    assert instructions("USER") == [f"{own['runAsUser']}:{own['runAsGroup']}"]
    assert own["runAsNonRoot"] and f"--uid {own['runAsUser']}" in DOCKERFILE
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {own["mountPath"] for own in container()["volumeMounts"]} == {"/models", "/tmp"}


def test_the_manifest_asks_routes_and_ports_that_exist_and_waits_for_a_clean_stop() -> None:
    routes = (ROOT / "captioning" / "serving" / "app.py").read_text()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container()[probe]["httpGet"]
        assert f'"{asked["path"]}"' in routes and asked["port"] == "http"
    assert container()["ports"] == [{"name": "http", "containerPort": ServiceSettings().port}]
    arguments = container()["args"]
    stop_seconds = float(arguments[arguments.index("--stop-seconds") + 1])
    pause = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    pod = manifests()["Deployment"]["spec"]["template"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > stop_seconds + pause
    labels = pod["metadata"]["labels"]
    assert manifests()["Service"]["spec"]["selector"] == labels


def test_every_package_of_the_container_is_one_of_the_projects() -> None:
    locked = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    known = {*locked, *(re.split(r"[^A-Za-z0-9._-]", own)[0] for own in stated)}
    assert [own for own in packages() if own not in known] == []


ALONE = """
import asyncio, base64, json
from captioning.cli.serve import _settings
from captioning.servable import RED_SQUARE
from captioning.serving import server
from captioning.serving.app import create_app

async def ask(app):
    sent, body = [], json.dumps({"images": [{"base64": RED_SQUARE}]}).encode()
    head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/captions", "raw_path": b"/captions", "query_string": b"",
             "headers": head, "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
             "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"}}
    asked = iter([{"type": "http.request", "body": body, "more_body": False}])
    async def receive():
        return next(asked, None) or await asyncio.Event().wait()
    async def send(message):
        sent.append(message)
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    print(sent[0]["status"])

asyncio.run(ask(create_app(_settings({"model": sys.argv[2]}))))
"""
"""Answers one request."""


READ_ONLY = ["unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]
"""Runs a command that can write nowhere."""


def can_be_read_only() -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*READ_ONLY, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_be_read_only(), reason="needs root's right to mount a file system read-only")
def test_the_service_captions_with_these_packages_alone_and_nothing_to_write_to(tmp_path: Path) -> None:
    save_captioner(tmp_path / "model", seed=1)
    program = [sys.executable, "-P", "-c", ONLY_THESE + ALONE, " ".join(packages()), str(tmp_path / "model")]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment |= {"CAPTIONING_HOME": "/nowhere", "HOME": "/nowhere"}
    found = subprocess.run(
        [*READ_ONLY, *program], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert found.stdout.strip().endswith("200"), found.stdout + found.stderr

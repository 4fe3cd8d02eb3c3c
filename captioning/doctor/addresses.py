"""Addresses that are set in the environment and in DVC's settings, and whether something answers there."""

import base64
import importlib.metadata
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version

from captioning.doctor import dvc_settings
from captioning.doctor.findings import Finding, ok, problem, warning

ANSWER_SECONDS = 3.0
UNSURE_SECONDS, WRONG_SECONDS = 30.0, 300.0
"""By how much clocks may differ: beyond it schedules look odd, or signed requests to S3 are refused (at 900 s)."""

S3_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
USUAL_PORTS = {"postgresql": 5432, "https": 443, "http": 80}


def prefect() -> Iterator[Finding]:
    """Ask the Prefect server that is set for its health and version."""
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        yield ok("PREFECT_API_URL is not set: a run starts a server of its own")
        return
    mend = "start it there (`python -m flows.ui prefect`, docs/servers.md), or unset PREFECT_API_URL"
    if refusal := _refusal(f"{address}/health"):
        yield problem(f"no Prefect server answers at PREFECT_API_URL={address}: {refusal}", mend)
        return
    login = os.environ.get("PREFECT_API_AUTH_STRING", "")
    if refusal := _refusal(f"{address}/admin/version", login):
        yield problem(
            f"the Prefect server at {address} refuses requests: {refusal}",
            "401: export PREFECT_API_AUTH_STRING=USER:PASSWORD, as the server has it",
        )
        return
    server = _read(f"{address}/admin/version", login).strip('"')
    client = importlib.metadata.version("prefect")
    if Version(server) < Version(client):
        yield warning(
            f"the Prefect server at {address} is {server}, older than the {client} here",
            "update the server first",
        )
    else:
        yield ok(f"Prefect {server} answers at {address}")


def mlflow() -> Iterator[Finding]:
    """Ask the MLflow server that is set for its health and version, and whether it takes requests."""
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address or address.startswith("sqlite:"):
        yield ok("MLFLOW_TRACKING_URI names no server: the records are embedded")
        return
    mend = "start it there (`python -m flows.ui mlflow`, docs/servers.md), or unset MLFLOW_TRACKING_URI"
    if not address.startswith("http"):
        yield _connected(address, "MLFLOW_TRACKING_URI", mend)
        return
    if refusal := _refusal(f"{address}/health"):
        yield problem(f"no MLflow server answers at MLFLOW_TRACKING_URI={address}: {refusal}", mend)
        return
    if refusal := _refusal(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", _mlflow_login()):
        name = urlsplit(address).hostname
        yield problem(
            f"the MLflow server at {address} refuses requests: {refusal}",
            f"403: start it with --host {name}; 401: export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
        return
    server, client = _read(f"{address}/version", _mlflow_login()), importlib.metadata.version("mlflow")
    if Version(server).release[:2] < Version(client).release[:2]:
        yield warning(
            f"the MLflow server at {address} is {server}, older than the {client} here",
            "update the server first",
        )
    else:
        yield ok(f"MLflow {server} answers at {address}")


def s3() -> Iterator[Finding]:
    """Look whether something answers where S3 is said to be."""
    stated = {name: os.environ[name] for name in S3_VARIABLES if os.environ.get(name)}
    for name, address in stated.items():
        if refusal := _silence(address):
            yield problem(f"nothing answers at {name}={address}: {refusal}", f"correct or unset {name}")
        else:
            yield ok(f"{name}={address} answers")
    if not stated:
        yield ok("no address of another S3 than Amazon's is set")


def dvc_remotes() -> Iterator[Finding]:
    """List each of DVC's remotes, with the credentials that DVC would use."""
    remotes = dvc_settings.settings()["remote"]
    for name, remote in remotes.items():
        yield from _remote(name, dict(remote))
    if not remotes:
        yield ok("none: outputs stay on this machine (docs/large-data.md)")


def cluster() -> Iterator[Finding]:
    """Look whether the scheduler of a Dask cluster answers, where one is set."""
    if address := os.environ.get("CAPTIONING_CLUSTER"):
        yield _connected(
            address, "CAPTIONING_CLUSTER", "start `dask scheduler` there, or unset CAPTIONING_CLUSTER"
        )


def clock() -> Iterator[Finding]:
    """Compare this machine's clock with those of the servers that are set."""
    variables = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", *S3_VARIABLES)
    stated = {address for name in variables if (address := os.environ.get(name, "")).startswith("http")}
    for address in sorted(stated):
        date = _date(address)
        if date is None:
            continue
        seconds = time.time() - date
        direction = "ahead of" if seconds > 0 else "behind"
        what = f"this clock is {abs(seconds):.0f} s {direction} the one of {address}"
        if abs(seconds) > WRONG_SECONDS:
            yield problem(what, "timedatectl set-ntp true, on the machine that is wrong")
        elif abs(seconds) > UNSURE_SECONDS:
            yield warning(what, "timedatectl set-ntp true, on the machine that is wrong")
        else:
            yield ok(f"agrees with that of {address}")


def _remote(name: str, remote: dict[str, Any]) -> Iterator[Finding]:
    address = str(remote["url"])
    what, mend = (
        f"remote {name} at {address}",
        f"correct it with `dvc remote modify {name}`, or its credentials",
    )
    scheme = urlsplit(address).scheme
    if not scheme:
        exists = Path(address).is_dir() or not Path(address).is_absolute()
        yield ok(what) if exists else problem(f"{what} does not exist", f"mount or make it, or {mend}")
        return
    if (endpoint := remote.get("endpointurl")) and (refusal := _silence(str(endpoint))):
        yield problem(f"{what}: nothing answers at {endpoint}: {refusal}", mend)
        return
    try:
        _list_remote(remote)
    except FileNotFoundError:
        yield problem(f"{what}: there is no such bucket", f"create it, or {mend}")
    except Exception as error:  # of each kind of store its own
        yield problem(f"{what}: {type(error).__name__}: {error}", mend)
    else:
        yield ok(what)


def _list_remote(remote: dict[str, Any]) -> None:
    """List what is there, or the bucket where nothing was pushed yet."""
    from dvc.fs import get_cloud_fs

    kind, settings, path = get_cloud_fs(None, **remote)
    if remote["url"].startswith("s3:"):
        settings |= {"connect_timeout": ANSWER_SECONDS, "read_timeout": ANSWER_SECONDS}
    files = kind(**settings)
    try:
        files.ls(path)
    except FileNotFoundError:
        files.ls(path.partition("/")[0])


def _connected(address: str, variable: str, mend: str) -> Finding:
    """Look whether the port of an address is open; its credentials are not shown."""
    parts = urlsplit(address)
    kind = parts.scheme.partition("+")[0]
    shown = f"{variable}={parts.scheme}://{parts.hostname}:{parts.port or USUAL_PORTS.get(kind)}"
    try:
        socket.create_connection((parts.hostname, parts.port or USUAL_PORTS[kind]), ANSWER_SECONDS).close()
    except (OSError, KeyError, ValueError) as error:
        return problem(f"nothing answers at {shown}: {error}", mend)
    return ok(f"{shown} answers")


def _mlflow_login() -> str:
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    return ":".join(os.environ.get(name, "") for name in names).removesuffix(":")


def _refusal(url: str, login: str = "") -> str:
    """Return in words why a page cannot be had; empty where it can."""
    try:
        _open(url, login).close()
    except (OSError, HTTPException, ValueError) as error:
        return str(error)
    return ""


def _silence(url: str) -> str:
    """Return in words why nothing answers; empty where anything does, a refusal too."""
    try:
        _open(url).close()
    except urllib.error.HTTPError:
        return ""
    except (OSError, HTTPException, ValueError) as error:
        return str(error)
    return ""


def _read(url: str, login: str) -> str:
    with _open(url, login) as answer:
        return str(answer.read().decode()).strip()


def _date(url: str) -> float | None:
    """Return the time in seconds that a server states in its answer, whatever the answer is."""
    try:
        with _open(url) as answer:
            stated = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        stated = error.headers["Date"]
    except (OSError, HTTPException, ValueError):
        return None
    return parsedate_to_datetime(stated).timestamp() if stated else None


def _open(url: str, login: str = "") -> HTTPResponse:
    """Ask for a page, with `USER:PASSWORD` where one is given."""
    request = urllib.request.Request(url)
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=ANSWER_SECONDS)
    return answer

"""A server that speaks S3, for tests."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scratch_project import LIMIT_SECONDS

from flows.servers import HOST, free_port

BUCKET = "captioning"


@contextmanager
def serving_s3() -> Iterator[str]:
    """Run a server with an empty bucket during the block, name it and its key in the environment; yield its address."""
    port = free_port()
    address = f"http://{HOST}:{port}"
    variables = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
    ):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        try:
            _wait_for(address)
            request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
            urllib.request.urlopen(request, timeout=10).close()
            yield address
        finally:
            server.kill()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.2)
        else:
            return


def keys(address: str) -> list[str]:
    """Return the names of what lies in the bucket."""
    import boto3

    pages = boto3.client("s3", endpoint_url=address).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]

"""Requests made up from the OpenAPI document, valid ones and others, against a real service."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, serve
from tiny_captioner import save_captioner

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
"""Left out are those that know only the document: a text that may be base64 need not be a picture."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that fetches nothing: the addresses of these requests are somebody's."""
    home = tmp_path_factory.mktemp("home")
    save_captioner(home / "model", seed=1)
    with serve("--model", str(home / "model"), "--fetch-urls", "false", home=home) as running:
        yield running


def run(service: Served, folder: Path, *options: str) -> None:
    program = str(Path(sys.executable).with_name("st"))
    command = [program, "run", f"{service.url}/openapi.json", "--checks", ",".join(CHECKS), "--no-color"]
    limits = ["--request-timeout", "60", "--continue-on-failure", *options]
    found = subprocess.run([*command, *limits], cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "Tested: 7" in found.stdout, found.stdout


@pytest.mark.slow
def test_no_request_that_the_document_allows_or_forbids_breaks_the_service(
    service: Served, tmp_path: Path
) -> None:
    run(service, tmp_path, "--max-examples", "5", "--generation-deterministic")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nor_do_many_random_ones(service: Served, tmp_path: Path) -> None:
    run(service, tmp_path, "--max-examples", "1000")

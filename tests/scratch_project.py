"""A small DVC project to run flows in, and what tests need to watch its processes."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from dvc.repo import Repo

LIMIT_SECONDS = 120.0

THREE_STAGES = """
stages:
  third:
    cmd: echo third >> order.log; cp second.txt third.txt; echo '{"test":{"bleu_4":0.25}}' > metrics.json
    deps: [second.txt]
    outs: [third.txt]
    metrics: [metrics.json]
  first:
    desc: Copies the source
    cmd: echo first >> order.log; echo a line of the first; echo a warning >&2; cp source.txt first.txt
    deps: [source.txt]
    outs: [first.txt]
    meta: {retries: 2, retry_delay_seconds: 0.5}
  second:
    cmd: echo second >> order.log; cp first.txt second.txt
    deps: [first.txt]
    outs: [second.txt]
"""


def make_project(folder: Path, dvc_yaml: str) -> Path:
    folder.mkdir(exist_ok=True)
    Repo.init(str(folder), no_scm=True).close()
    (folder / "dvc.yaml").write_text(dvc_yaml)
    (folder / "source.txt").write_text("the source")
    return folder


def one_stage(command: str, *, out: str = "out.txt", meta: str = "{}") -> str:
    stage = {"cmd": command, "deps": ["source.txt"], "outs": [{out: {"cache": False}}]}
    return f"stages:\n  only: {json.dumps(stage)[:-1]}, meta: {meta}}}\n"


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not claim():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_with(text: str) -> list[int]:
    """Return the ids of the processes in whose command line `text` stands, without this one."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid != os.getpid() and any(text in word for word in process.info["cmdline"] or []):
            found.append(process.pid)
    return found

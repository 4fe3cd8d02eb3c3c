"""A small DVC project to run flows in, and what tests need to watch its processes."""

import json
import os
import subprocess
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
from dvc.repo import Repo

LIMIT_SECONDS = 240.0

THREE_STAGES = """
stages:
  third:
    cmd: echo third >> order.log; cp second.txt third.txt; echo '{"test":{"bleu_4":0.25}}' > metrics.json
    deps: [second.txt]
    outs: [third.txt]
    metrics: [metrics.json]
  first:
    desc: Copies the source
    cmd: >-
      echo first >> order.log; echo a line of the first; echo a warning >&2;
      echo "copying: 1 of 2 files, 1.0/s, 1 s left"; cp source.txt first.txt
    deps: [source.txt]
    outs: [first.txt]
    meta: {retries: 2, retry_delay_seconds: 0.5, timeout_seconds: 3600}
  second:
    cmd: echo second >> order.log; cp first.txt second.txt
    deps: [first.txt]
    outs: [second.txt]
"""

RANKS = """
import os, signal, time
from pathlib import Path
from torch import distributed

signal.signal(signal.SIGTERM, lambda *_: None if distributed.get_rank() else exit(143))
distributed.init_process_group("gloo")
state = Path("../state.txt")
begun_at = int(state.read_text()) if state.exists() else 0
os.write(1, f"rank {distributed.get_rank()} begins at {begun_at}\\n".encode())  # whole lines, of two processes
for step in range(begun_at, 10):
    distributed.barrier()
    if distributed.get_rank() == 0:
        state.write_text(str(step + 1))
    if begun_at == 0 and step == 4:
        time.sleep(600)
"""
"""Two processes that learn together, and stand still at the fifth step of ten unless they resume there."""


def make_project(folder: Path, dvc_yaml: str) -> Path:
    folder.mkdir(exist_ok=True)
    Repo.init(str(folder), no_scm=True).close()
    (folder / "dvc.yaml").write_text(dvc_yaml)
    (folder / "source.txt").write_text("the source")
    return folder


def make_repository(folder: Path, dvc_yaml: str, *ignored: str) -> Path:
    """Make a project in a git repository of one commit, which ignores the outputs `ignored`."""
    make_project(folder, dvc_yaml)
    unseen = ["/.work/", "/.dvc/tmp", "/.dvc/cache", "/.dvc/config.local", *ignored]
    (folder / ".gitignore").write_text("".join(f"{path}\n" for path in unseen))
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    run_git(folder, "config", "user.name", "A person")
    run_git(folder, "config", "user.email", "person@example.org")
    return commit_all(folder)


def commit_all(folder: Path, message: str = "A change") -> Path:
    """Commit whatever a repository has that is not ignored."""
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message", message)
    return folder


def run_git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def one_stage(command: str, *, out: str = "out.txt", meta: str = "{}") -> str:
    stage = {"cmd": command, "deps": ["source.txt"], "outs": [{out: {"cache": False}}]}
    return f"stages:\n  only: {json.dumps(stage)[:-1]}, meta: {meta}}}\n"


def make_project_of_ranks(folder: Path) -> Path:
    """Make a project whose stage is two processes started by torchrun, each with a session of its own."""
    command = "cd work && python -m torch.distributed.run --standalone --nproc-per-node 2 ranks.py && touch ../out.txt"
    make_project(folder, one_stage(command))
    (folder / "work").mkdir()
    (folder / "work" / "ranks.py").write_text(RANKS)
    return folder


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not claim():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def ask_server(address: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """Return what Prefect's server answers; one whose database is busy (503) is asked again."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(address, data, {"Content-Type": "application/json"}, method=method)
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            with urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_with(text: str) -> list[int]:
    """Return the ids of the processes in whose command line `text` stands, without this one."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid != os.getpid() and any(text in word for word in process.info["cmdline"] or []):
            found.append(process.pid)
    return found

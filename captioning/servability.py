"""Does a registered model answer by itself? It is loaded from the registry in a process that has nothing else.

The process starts in an empty folder with no PYTHONPATH, so that the library it captions with is the one that the model
carries, which is looked at, and ends with all that it started when it takes too long or when this process ends.
"""

import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from captioning import store

TIMEOUT_SECONDS = 600.0
"""From the start of the process; to import torch and MLflow takes 10 s."""
NUM_PICTURES = 16
"""Asked about one by one."""
MAX_SECONDS = 60.0
"""After which no further picture is asked about."""
MAX_SECONDS_TO_DIE = 5.0
"""For the children of a process that was killed."""
NUM_LINES = 3
"""Of what a failed process said last."""

PROGRAM = """
import json, os, sys, threading, time

def end_with_parent():
    os.read(0, 1)  # sys.stdin would hold a lock that the interpreter wants when it ends
    os._exit(1)

threading.Thread(target=end_with_parent, daemon=True).start()
asked = json.load(open("asked.json"))
import mlflow.pyfunc

model = mlflow.pyfunc.load_model(asked["model_uri"])
seconds, problem, began = [], "", time.perf_counter()
for picture in [asked["pictures"][0], *asked["pictures"]]:
    start = time.perf_counter()
    (row,) = model.predict([picture])
    seconds.append(time.perf_counter() - start)
    problem = row.error or ("" if row.captions else "no caption")
    if problem or time.perf_counter() - began > asked["max_seconds"]:
        break
files = sorted(
    module.__file__
    for name, module in sys.modules.items()
    if name.partition(".")[0] in ("captioning", "stages", "flows") and getattr(module, "__file__", None)
)
with open("answer.json", "w") as file:
    json.dump({"seconds": seconds[1:] or seconds, "problem": problem, "files": files}, file)
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model did when it was asked alone."""

    problem: str
    """Why it does not serve, as a sentence; empty where it does."""
    seconds_per_caption: float | None
    """Median of single pictures, after a first one; None where it did not answer."""


def ask_alone(model_uri: str, pictures: Sequence[bytes], timeout_seconds: float = TIMEOUT_SECONDS) -> Answer:
    """Load a model from the registry in a fresh process and have it caption pictures, one at a time.

    Args:
        model_uri: such as `models:/captioner/3`.
        pictures: files, one at least.
        timeout_seconds: after which the process and its children are killed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoded = [base64.b64encode(picture).decode() for picture in pictures]
        asked = {"model_uri": model_uri, "pictures": encoded, "max_seconds": MAX_SECONDS}
        (folder / "asked.json").write_text(json.dumps(asked))
        with (folder / "said.txt").open("w") as said:
            # -P keeps the working directory off the path
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM],
                cwd=folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                return _failed(f"it had not answered after {timeout_seconds:g} s")
            finally:
                _kill(process)
        if code != 0 or not (folder / "answer.json").exists():
            last = " ".join((folder / "said.txt").read_text(errors="replace").split("\n")[-NUM_LINES - 1 :])
            return _failed(f"the process ended with code {code}: {last.strip()}")
        return _read(json.loads((folder / "answer.json").read_text()))


def _read(answer: dict[str, list[float] | list[str] | str]) -> Answer:
    files = [str(file) for file in answer["files"]]
    if answer["problem"]:
        return _failed(f"it answered {answer['problem']!r}")
    if strange := [file for file in files if Path(file).is_relative_to(Path(__file__).parent)]:
        return _failed(f"it captions with code that it does not carry: {strange[0]}")
    return Answer(problem="", seconds_per_caption=statistics.median(map(float, answer["seconds"])))


def _failed(why: str) -> Answer:
    sentence = f"Loaded from the registry in a process of its own, the model does not caption: {why}."
    return Answer(problem=sentence, seconds_per_caption=None)


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return environment | {"MLFLOW_TRACKING_URI": store.uri(), "MLFLOW_REGISTRY_URI": store.uri()}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that may have ended already; if it has not, also all that it started."""
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()
        # whose child dies is another's to reap: where nobody does, it stays as a zombie
        psutil.wait_procs(children, timeout=MAX_SECONDS_TO_DIE)
    if process.stdin:
        process.stdin.close()

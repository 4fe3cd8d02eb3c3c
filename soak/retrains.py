"""Retrain by a served schedule again and again while something dies, and see that nothing wears out.

    python -m soak.retrains [--runs 20] [--seed 0]

Half an hour on two idle cores: small runs of drawn scenes, each with another seed, every fourth with more pictures, so
that stages really run. A fault comes at a random moment of a random stage of each. A run that does not end well is
started again, undisturbed, and must complete. What lives long (schedule, server) is killed in the first half only: in
the second it has the time to show what it keeps.

Prints a row a run. Ends with code 1 unless

- scores, captions and weights are those of an undisturbed `dvc repro` with the same settings (of two of the runs),
- each run has one version and one commit, and the champion's history is true,
- no process is left over, after each run and at the end,
- in the last quarter nothing is larger than it was in the second (`judge`).
"""

import argparse
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any
from uuid import uuid4

import psutil
from ruamel.yaml import YAML

from flows.servers import HOST, free_port
from soak.project import environment, make_project, run

SETTINGS = [
    "download.num_images=240",
    "validate.min_images.train=50",
    "validate.min_images.val=10",
    "validate.min_images.test=10",
    "validate.min_images_of_source=10",
    "preprocess.images_per_shard=64",
    "preprocess.image={height: 32, width: 32}",
    "inspect.min_vocabulary_words=10",
    "inspect.max_pixel_distance=60",
    "train.encoder.layer=layer1",
    "train.phases.0.encoder.train_from=null",
    "train.phases.0.epochs=3",
    "evaluate.metrics=[bleu]",
    "evaluate.bootstrap_samples=100",
    "evaluate.generation.min_words=6",
    "register.metric=bleu_1",
    "register.must_be_sure=false",
    "register.min_images=8",
]
NUM_IMAGES, MORE_IMAGES, MORE_EVERY = 240, 20, 4
AFTER_NEW_DATA = ["download", "clean", "split", "validate", "preprocess", "inspect"]
ALWAYS = ["train", "evaluate", "register"]
COMPARED = ("models/captioner", "reports/metrics.json", "reports/hypotheses.jsonl")

MARK = "CAPTIONING_SOAK"
"""A variable that every process of the campaign inherits."""
START_SECONDS, RUN_SECONDS, SETTLE_SECONDS, LONGEST_DELAY_SECONDS = 240.0, 1200.0, 120.0, 8.0
LOCKED_SECONDS, AWAY_SECONDS = 8.0, 5.0

MOST_MORE_MEMORY_BYTES = 40e6
MOST_MORE_HANDLES = 8
MOST_TIMES_GROWTH, SPARE_GROWTH_BYTES = 1.5, 5e5


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run and what there was after it."""

    settings: str
    fault: str
    attempts: int
    seconds: float
    decision: str
    version: str
    score: float
    outputs: dict[str, str]
    """Path -> DVC's hash."""
    server_bytes: int
    """Memory (RSS) of Prefect's server."""
    schedule_bytes: int
    handles: int
    """Open files and sockets of both."""
    processes: int
    prefect_bytes: int
    """Size of its database."""
    mlflow_bytes: int
    disk_bytes: int
    """Of the whole project: cache, artifacts, `.work`. What is linked counts once."""


class Campaign:
    """A project, Prefect's server, and the schedule that serves it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.project = make_project(folder / "project", SETTINGS)
        self._port = free_port()
        self._environment = {
            **environment(self.project),
            MARK: str(folder),
            "PREFECT_HOME": str(self.project / ".work" / "prefect"),
            "PREFECT_API_URL": f"http://{HOST}:{self._port}/api",
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "CAPTIONING_GRACE_SECONDS": "10",
        }
        Path(self._environment["PREFECT_HOME"]).mkdir(parents=True)
        self.server = self._start_server()
        self.schedule = self._start_schedule()
        self._deployment = self.ask("/deployments/name/retrain/captioner")["id"]

    def _start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.project,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_server(self) -> "subprocess.Popen[bytes]":
        server = self._start("server", "prefect", "server", "start", f"--host={HOST}", f"--port={self._port}")
        wait_until(lambda: self.ask("/health"), START_SECONDS, "Prefect's server answers")
        return server

    def _start_schedule(self) -> "subprocess.Popen[bytes]":
        """Start it with crons that are far away: the campaign is the clock."""
        far = "0 0 29 2 *"
        schedule = self._start("schedule", "flows.schedule", "--retrain", far, "--probe", far)
        log = self._folder / "schedule.log"
        wait_until(lambda: "Ctrl-C" in log.read_text(), START_SECONDS, "the schedule serves")
        return schedule

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the server's answer; None where it is away."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._environment["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"}
        )
        with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")
        return None

    def begin(self, overrides: list[str]) -> str:
        """Start a run as a person does, asking a busy server again; return its id."""
        wanted = {"parameters": {"overrides": overrides}, "idempotency_key": str(uuid4())}
        begun: list[dict[str, Any]] = []

        def is_begun() -> bool:
            begun[:] = [found] if (found := self.ask(path, wanted)) else []
            return bool(begun)

        path = f"/deployments/{self._deployment}/create_flow_run"
        wait_until(is_begun, START_SECONDS, "the server begins a run")
        return str(begun[0]["id"])

    def state(self, run_id: str) -> dict[str, Any]:
        """Return the state of a run; an empty one where the server is away."""
        found: dict[str, Any] = (self.ask(f"/flow_runs/{run_id}") or {}).get("state") or {}
        return found

    def is_over(self, run_id: str) -> bool:
        """Tell whether a run has ended, in whatever way."""
        return self.state(run_id).get("type") in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def end(self, run_id: str) -> dict[str, Any]:
        """Wait until a run is over and nothing of it is left; return its state."""
        wait_until(lambda: self.is_over(run_id), RUN_SECONDS, f"run {run_id} is over")
        wait_until(lambda: not self._of_runs(), SETTLE_SECONDS, "no process of a run is left over")
        return self.state(run_id)

    def stop(self) -> None:
        """End schedule and server; nothing may be left."""
        for process in (self.schedule, self.server):
            process.send_signal(signal.SIGTERM)
            process.wait(SETTLE_SECONDS)
        wait_until(lambda: not self.processes(), SETTLE_SECONDS, "no process is left over at the end")

    def processes(self) -> list[psutil.Process]:
        """Return every process of the campaign, wherever it hangs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self._folder):
                    found.append(process)
        return found

    def _of_runs(self) -> list[psutil.Process]:
        lasting = {process.pid for own in (self.server, self.schedule) for process in family(own.pid)}
        return [
            process for process in self.processes() if process.pid not in lasting or self._is_flow(process)
        ]

    def _is_flow(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return "PREFECT__FLOW_RUN_ID" in process.environ()
        return False

    def find(self, word: str) -> list[psutil.Process]:
        """Return the processes with this module, or one of this package, in their command line."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if any(part == word or part.startswith(f"{word}.") for part in process.cmdline()):
                    found.append(process)
        return found

    # what goes wrong

    def kill_flow(self, run_id: str) -> None:
        """Kill the process of the run."""
        flows = {process.pid for process in self.processes() if self._is_flow(process)}
        for process in psutil.Process(self.schedule.pid).children():
            if process.pid in flows:
                kill(process)

    def kill_stage(self, run_id: str) -> None:
        """Kill the process of the stage."""
        for process in self.find("stages"):
            kill(process)

    def kill_dvc(self, run_id: str) -> None:
        """Kill DVC, which leaves the stage without a parent."""
        for process in self.find("dvc"):
            if "flows.supervisor" not in process.cmdline():
                kill(process)

    def kill_supervisor(self, run_id: str) -> None:
        """Kill what watches over DVC, which leaves DVC and the stage without a parent."""
        for process in self.find("flows.supervisor"):
            kill(process)

    def cancel(self, run_id: str) -> None:
        """Cancel the run, as in the pages."""
        self.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})

    def lock_records(self, run_id: str) -> None:
        """Lock MLflow's database for a while."""
        with closing(
            sqlite3.connect(self.project / "mlruns" / "mlflow.db", isolation_level=None)
        ) as database:
            database.execute("PRAGMA busy_timeout = 20000")
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(LOCKED_SECONDS)

    def kill_server(self, run_id: str) -> None:
        """Kill Prefect's server; it is back a while later."""
        for process in reversed(family(self.server.pid)):
            kill(process)
        self.server.wait()
        time.sleep(AWAY_SECONDS)
        self.server = self._start_server()

    def kill_schedule(self, run_id: str) -> None:
        """Kill the schedule alone, and start it again."""
        self.schedule.kill()
        self.schedule.wait()
        self.schedule = self._start_schedule()


def family(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def held(processes: list[psutil.Process]) -> tuple[int, int]:
    """Return the bytes of memory and the number of handles of those that still live."""
    num_bytes = num_handles = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            handles = process.num_fds()
            num_bytes += process.memory_info().rss
            num_handles += handles
    return num_bytes, num_handles


def kill(process: psutil.Process) -> None:
    """Send SIGKILL to what may just have ended."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


def wait_until(claim: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `claim` holds; the campaign ends where it does not."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.5)


def disturb(campaign: Campaign, run_id: str, stage: str, seconds: float, fault: str) -> bool:
    """Do `fault` so many seconds after a stage has begun; return whether the run still went on then."""
    begun = f"stages.{stage}"
    wait_until(lambda: campaign.find(begun) or campaign.is_over(run_id), RUN_SECONDS, f"stage {stage} begins")
    time.sleep(seconds)
    if campaign.is_over(run_id):
        return False
    getattr(campaign, fault)(run_id)
    return True


def retrain(campaign: Campaign, number: int, num_runs: int, chance: random.Random) -> Row:
    """Make a run with a fault, and once more where that has ended it."""
    images = NUM_IMAGES + MORE_IMAGES * (number // MORE_EVERY)
    overrides = [f"train.seed={number}", f"download.num_images={images}"]
    stages = ALWAYS if number % MORE_EVERY else AFTER_NEW_DATA + ALWAYS
    faults = ["kill_flow", "kill_stage", "kill_dvc", "kill_supervisor", "cancel", "lock_records"]
    if number < num_runs / 2:
        faults += ["kill_server", "kill_schedule"]
    fault, stage = chance.choice(faults), chance.choice(stages)
    delay = chance.uniform(0, LONGEST_DELAY_SECONDS)
    began, attempts = time.monotonic(), 1
    run_id = campaign.begin(overrides)
    has_happened = disturb(campaign, run_id, stage, delay, fault)
    state = campaign.end(run_id)
    if state["type"] != "COMPLETED":
        attempts += 1
        run_id = campaign.begin(overrides)
        after, state = state, campaign.end(run_id)
        if state["type"] != "COMPLETED":
            sys.exit(f"after {fault} in {stage} ({after}) the next run ended so: {state}")
    checkout = campaign.project / ".work" / "checkouts" / "retrain"
    receipt = json.loads((checkout / "reports" / "registration.json").read_text())
    (server_bytes, server_handles), (schedule_bytes, schedule_handles) = (
        held(family(own.pid)) for own in (campaign.server, campaign.schedule)
    )
    return Row(
        settings=" ".join(overrides),
        fault=f"{fault} {stage}+{delay:.0f}s" + " (too late)" * (not has_happened),
        attempts=attempts,
        seconds=time.monotonic() - began,
        decision=receipt["decision"],
        version=receipt["version"],
        score=receipt["value"],
        outputs=outputs(checkout),
        server_bytes=server_bytes,
        schedule_bytes=schedule_bytes,
        handles=server_handles + schedule_handles,
        processes=len(campaign.processes()),
        prefect_bytes=sum(
            path.stat().st_size for path in (campaign.project / ".work" / "prefect").glob("prefect.db*")
        ),
        mlflow_bytes=(campaign.project / "mlruns" / "mlflow.db").stat().st_size,
        disk_bytes=int(run(campaign.project, "du", "--summarize", "--bytes", ".").split()[0]),
    )


def outputs(folder: Path) -> dict[str, str]:
    """Return the hash of each compared output as dvc.lock has it."""
    stages = YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]
    found = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    return {path: found[path] for path in COMPARED}


def compare(project: Path, row: Row) -> list[str]:
    """Run the same settings undisturbed in a project of its own; return what differs."""
    run(project, sys.executable, "-m", "captioning", "use", "scenes", *SETTINGS, *row.settings.split())
    run(project, sys.executable, "-m", "dvc", "repro", "--quiet")
    alone = outputs(project)
    return [f"{path} of {row.settings} differs" for path in COMPARED if alone[path] != row.outputs[path]]


TELL = """
import json
from dataclasses import asdict
from captioning import aliases
print(json.dumps([
    sorted(str(version.version) for version in aliases.versions("captioner") if aliases.has_files(version)),
    aliases.aliases("captioner"),
    [asdict(row) for row in aliases.history("captioner")],
]))
"""


def check_registry(project: Path, rows: list[Row]) -> list[str]:
    """Return what is wrong with versions, champion, history and commits."""
    versions, aliases, history = json.loads(run(project, sys.executable, "-c", TELL).splitlines()[-1])
    found = []
    if sorted(row.version for row in rows) != versions:
        found.append(
            f"the runs made versions {sorted(row.version for row in rows)}, the registry has {versions}"
        )
    promoted = [row.version for row in rows if row.decision in {"no-champion", "better", "is-champion"}]
    told = [promotion["version"] for promotion in history]
    if promoted != told or told[-1] != aliases["champion"]:
        found.append(f"promoted {promoted}, history {told}, champion {aliases.get('champion')}")
    if [promotion["from_version"] for promotion in history] != [None, *told[:-1]]:
        found.append(f"the history does not follow upon itself: {history}")
    subjects = run(project, "git", "log", "--format=%s", "captioning/retrain").splitlines()
    committed = [subject.split()[3].rstrip(",") for subject in subjects if subject.startswith("Retrained")]
    if sorted(committed) != versions:
        found.append(f"commits of versions {sorted(committed)}, versions {versions}")
    return found


def judge(rows: list[Row]) -> list[str]:
    """Return what grew from the second quarter of the runs to the last.

    Between their middles lies half of the runs. Memory may be larger by 40 MB: with 20 runs a leak of 4 MB a run shows,
    and an interpreter's heap, which is not given back, does not. Handles may be more by 8, connections kept open;
    processes not at all. Databases and the disk grow by what each run leaves (versions, artifacts, logs), so it is
    their growth by a run that may not be more than half as large again.
    """
    size = len(rows) // 4
    if size < 2:
        return []
    second, last = rows[size : 2 * size], rows[-size:]
    found = []
    for name, spare in (
        ("server_bytes", MOST_MORE_MEMORY_BYTES),
        ("schedule_bytes", MOST_MORE_MEMORY_BYTES),
        ("handles", MOST_MORE_HANDLES),
        ("processes", 0),
    ):
        before, after = (mean(getattr(row, name) for row in quarter) for quarter in (second, last))
        if after > before + spare:
            found.append(
                f"{name} grew from {before:,.0f} to {after:,.0f}; at most {spare:,.0f} more is expected"
            )
    for name in ("prefect_bytes", "mlflow_bytes", "disk_bytes"):
        before, after = (
            (getattr(quarter[-1], name) - getattr(quarter[0], name)) / (size - 1)
            for quarter in (second, last)
        )
        if after > MOST_TIMES_GROWTH * before + SPARE_GROWTH_BYTES:
            found.append(f"{name} grew by {before:,.0f} a run, and by {after:,.0f} at the end")
    return found


def print_row(row: Row) -> None:
    """Print a run as a line of the table, sizes in MB."""
    cells = []
    for column in fields(Row):
        value = getattr(row, column.name)
        match value:
            case dict():
                continue
            case float():
                cells.append(f"{value:.3g}")
            case int() if column.name.endswith("_bytes"):
                cells.append(f"{value / 1e6:.1f}")
            case _:
                cells.append(str(value))
    print(" | ".join(cells), flush=True)


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # so that nothing is left then, too
    chance = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="captioning-soak-"))
    print(f"in {folder}", flush=True)
    alone = make_project(folder / "undisturbed", SETTINGS)  # now, of the same code
    campaign = Campaign(folder)
    rows: list[Row] = []
    try:
        print(
            " | ".join(c.name.replace("_bytes", " MB") for c in fields(Row) if c.name != "outputs"),
            flush=True,
        )
        for number in range(options.runs):
            rows.append(retrain(campaign, number, options.runs, chance))
            print_row(rows[-1])
        campaign.stop()
    finally:
        for process in campaign.processes():
            kill(process)
    wrong = [*check_registry(campaign.project, rows), *judge(rows)]
    for row in (rows[-1], chance.choice(rows)):
        wrong += compare(alone, row)
    if wrong:
        sys.exit("\n".join([*wrong, f"see {folder}"]))
    shutil.rmtree(folder)
    print(f"{len(rows)} runs: scores, registry, processes and sizes are right; seed {options.seed}")


if __name__ == "__main__":
    main()

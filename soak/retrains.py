"""Retrain by a served schedule again and again while something dies, and see that nothing wears out.

    python -m soak.retrains [--runs 20] [--seed 0]

Half an hour on two idle cores: small runs of drawn scenes, each with another seed, every fourth with more pictures, so
that stages really run. A fault comes at a random moment of a random stage of each; of 16 runs and more every kind
comes. A run that does not end well is started again, undisturbed, and must complete. What lives long (schedule,
server) is killed in the first half only: in the second it has the time to show what it keeps.

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
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean

from ruamel.yaml import YAML

from soak.campaign import (
    FAULTS_OF_RUNS,
    FAULTS_OF_SERVERS,
    RUN_SECONDS,
    Campaign,
    family,
    held,
    kill,
    wait_until,
)
from soak.project import make_project, run

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

LONGEST_DELAY_SECONDS = 8.0

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


def disturb(campaign: Campaign, run_id: str, stage: str, seconds: float, fault: str) -> bool:
    """Do `fault` so many seconds after a stage has begun; return whether the run still went on then."""
    begun = f"stages.{stage}"
    wait_until(lambda: campaign.find(begun) or campaign.is_over(run_id), RUN_SECONDS, f"stage {stage} begins")
    time.sleep(seconds)
    if campaign.is_over(run_id):
        return False
    getattr(campaign, fault)(run_id)
    return True


def deal(num_runs: int, chance: random.Random) -> list[str]:
    """Return the fault of each run: every kind in random order, and again; in the second half none of a server."""
    half, dealt = num_runs // 2, []
    for number, kinds in ((half, FAULTS_OF_RUNS + FAULTS_OF_SERVERS), (num_runs - half, FAULTS_OF_RUNS)):
        shuffled: list[str] = []
        while len(shuffled) < number:
            shuffled += chance.sample(kinds, len(kinds))
        dealt += shuffled[:number]
    return dealt


def retrain(campaign: Campaign, number: int, fault: str, chance: random.Random) -> Row:
    """Make a run with a fault, and once more where that has ended it."""
    images = NUM_IMAGES + MORE_IMAGES * (number // MORE_EVERY)
    overrides = [f"train.seed={number}", f"download.num_images={images}"]
    stages = ALWAYS if number % MORE_EVERY else AFTER_NEW_DATA + ALWAYS
    stage = chance.choice(stages)
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
    campaign = Campaign(folder, SETTINGS)
    rows: list[Row] = []
    try:
        print(
            " | ".join(c.name.replace("_bytes", " MB") for c in fields(Row) if c.name != "outputs"),
            flush=True,
        )
        for number, fault in enumerate(deal(options.runs, chance)):
            rows.append(retrain(campaign, number, fault, chance))
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

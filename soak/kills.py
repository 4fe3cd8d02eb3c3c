"""Kill the pipeline at random moments, run it again until it ends, and compare every output with an undisturbed run.

    python -m soak.kills [--kills 25] [--seed 0]

Takes ten minutes on two cores: a small run of drawn scenes, once undisturbed, once killed (`kill -9` of every
process) after a random time, again and again. Ends with code 1 where an output differs by one byte.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from soak.project import environment, make_project

SETTINGS = [
    "download.num_images=1500",
    "train.phases.0.epochs=2",
    "validate.min_images.train=500",
    "preprocess.images_per_shard=64",
]
NOT_COMPARED = {"register"}
"""Its receipt names a version of the registry."""


def start(project: Path) -> "subprocess.Popen[bytes]":
    """Run the pipeline in a session of its own."""
    with (project / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
        return subprocess.Popen(
            command, cwd=project, env=environment(project), stdout=log, stderr=log, start_new_session=True
        )


def outputs(project: Path) -> dict[str, str]:
    """Return the hash of every output as dvc.lock has it."""
    stages = YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]
    return {
        out["path"]: out["md5"]
        for name, stage in stages.items()
        if name not in NOT_COMPARED
        for out in stage["outs"]
    }


def run_killed(project: Path, *, num_kills: int, longest_seconds: float, chance: random.Random) -> None:
    """Run until it ends by itself, killed up to `num_kills` times."""
    for number in range(num_kills):
        pipeline = start(project)
        seconds = chance.uniform(2, longest_seconds)
        try:
            code = pipeline.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(pipeline.pid, signal.SIGKILL)
            pipeline.wait()
            print(f"kill {number + 1} of {num_kills} after {seconds:.0f} s", flush=True)
            continue
        if code == 0:
            return
        sys.exit(f"the pipeline failed with code {code}; see {project}/log.txt")
    if code := start(project).wait():
        sys.exit(f"the pipeline failed with code {code}; see {project}/log.txt")


def main() -> None:
    """Compare both runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="captioning-soak-"))
    undisturbed, killed = (make_project(folder / name, SETTINGS) for name in ("undisturbed", "killed"))
    began = time.monotonic()
    if code := start(undisturbed).wait():
        sys.exit(f"the undisturbed run failed with code {code}; see {undisturbed}/log.txt")
    seconds = time.monotonic() - began
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    run_killed(
        killed, num_kills=options.kills, longest_seconds=seconds / 10, chance=random.Random(options.seed)
    )
    expected, found = outputs(undisturbed), outputs(killed)
    different = [path for path in expected | found if expected.get(path) != found.get(path)]
    if different:
        sys.exit(f"{', '.join(different)} differ; compare {undisturbed} with {killed}")
    shutil.rmtree(folder)
    print(f"{len(expected)} outputs are the same after being killed; seed {options.seed}")


if __name__ == "__main__":
    main()

"""What keeps this machine and this project from working, or soon will: each finding in a line, with its mend.

A check is a function without arguments that yields findings; `CHECKS` lists them. All run at once, and none may hold
the others up: one that fails, or has not ended after `LIMIT_SECONDS`, is itself a finding. Nothing is changed; to try
links, a file of a few bytes is written and removed.
"""

import threading
import time
from collections.abc import Callable, Iterable

from captioning.doctor import addresses, disks, locations, locks, machine, revisions, versions
from captioning.doctor.findings import Finding, problem

Check = Callable[[], Iterable[Finding]]

LIMIT_SECONDS = 9.0

CHECKS: dict[str, Check] = {
    "python": versions.python,
    "packages": versions.packages,
    "lock file": versions.lock_file,
    "java": machine.java,
    "spice": machine.spice,
    "gpus": machine.gpus,
    "links": disks.links,
    "disk": disks.free_space,
    "network disk": disks.network_disks,
    "prefect": addresses.prefect,
    "mlflow": addresses.mlflow,
    "s3": addresses.s3,
    "dvc remotes": addresses.dvc_remotes,
    "cluster": addresses.cluster,
    "clock": addresses.clock,
    "dvc lock": locks.dvc,
    "locks": locks.held,
    "processes": locks.orphans,
    "artifacts": locations.artifacts,
    "paths": locations.absolute_paths,
    "git": revisions.git,
}


def examine(checks: dict[str, Check] | None = None) -> dict[str, list[Finding]]:
    """Run all checks at the same time; return what each found, in their order."""
    checks = CHECKS if checks is None else checks
    found: dict[str, list[Finding]] = {}
    threads = [
        threading.Thread(target=_run, args=(name, check, found), daemon=True)
        for name, check in checks.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LIMIT_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = problem(f"no answer within {LIMIT_SECONDS:.0f} s", "see whether a disk or the network hangs")
    return {name: found.get(name, [late]) for name in checks}


def _run(name: str, check: Check, found: dict[str, list[Finding]]) -> None:
    try:
        found[name] = list(check())
    except Exception as error:  # whatever a broken machine raises; the other checks are still worth having
        found[name] = [problem(f"could not be checked: {type(error).__name__}: {error}", "mend that first")]

"""The whole pipeline under Prefect: what `dvc repro` does, one task a stage, with logs, artifacts and cancel.

    python -m flows.pipeline

Where PREFECT_API_URL names no server, one is started for the run (10 to 30 s). Prints the lines of each
stage as they come, and what ran at the end; a stage that did not change takes a second. Exit code 1 and one
message when a stage fails; a retry is made only where `meta` in dvc.yaml says so.
"""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import approval, automations, checkout, orphans, pages
from flows.artifacts import RECEIPT_NAME, artifact_key, is_refusal, stage_markdown
from flows.connection import connected
from flows.live import Graph, Progress, forgiving
from flows.stage_graph import Stage, read_stages
from flows.stage_run import StageRun, dvc_command, run_stage, stage_environment

ENDINGS = {
    "failed": "failed",
    "refused": "refused what it looked at, so that nothing after it ran",
    "timed out": "was ended after {timeout:g} s, its meta.timeout_seconds in dvc.yaml",
}
"""Outcome without a success -> what is said of the stage."""

NEXT = "Next: mend what they say and start it again. What is done stays done, and what was begun goes on."


@flow(validate_parameters=False)
def pipeline() -> State[Any]:
    """Run every stage that changed, then check that nothing is left to do."""
    try:
        with checkout.alone(get_run_logger().info):
            orphans.clear(Path.cwd())
            stages = read_stages()
            ran = run_stages(stages)
            return Completed(message=f"{ran}{approval.settle(stages)}")
    except (ValueError, checkout.BusyError) as error:
        return Failed(message=str(error))


def run_stages(stages: list[Stage], forced: Collection[str] = ()) -> str:
    """Run every stage that changed and those `forced`, check that nothing is left to do, say what ran.

    Raises:
        ValueError: a stage failed, or something is left; the message is for the user.
    """
    graph = Graph(stages)
    runs = {stage.name: _run(stage, graph, force=stage.name in forced) for stage in stages}
    runs.update(_register_again(stages, graph))
    for stage in stages:
        if runs[stage.name].outcome == "ran":
            automations.say_if_promoted(stage.outs)
    check_clean()
    return summary(runs)


@task(cache_policy=NO_CACHE)  # DVC alone decides what need not run
def stage_task(stage: Stage, force: bool, run_name: str) -> State[StageRun]:
    """Run one stage: its lines are log records, its page an artifact, its outcome the name of the state."""
    log = get_run_logger().info
    progress = Progress(f"{artifact_key(stage.name)}-progress")

    def emit(line: str) -> None:
        log(line)
        progress.read(line)

    run = run_stage(stage.name, emit, force=force, timeout_seconds=stage.timeout_seconds)
    if run.outcome == "ran":
        progress.end()
    if run.outcome == "failed" and run.has_begun and is_refusal(stage):
        run = replace(run, outcome="refused")
    page = stage_markdown(stage, run, pages.keep(stage.outs, run_name))
    with forgiving():
        create_markdown_artifact(key=artifact_key(stage.name), markdown=page, description=stage.desc)
    if run.outcome in ENDINGS:
        ending = ENDINGS[run.outcome].format(timeout=stage.timeout_seconds or 0)
        name = run.outcome.title().replace(" ", "")  # Prefect's own name of one is TimedOut
        return Failed(name=name, message=f"stage {stage.name!r} {ending}", data=run)
    return Completed(name=run.outcome.capitalize(), message=f"{run.seconds:.1f} s", data=run)


def _run(stage: Stage, graph: Graph, *, force: bool = False) -> StageRun:
    """Run one stage as a task of its name, here in the main thread: a worker thread would not see a cancel.

    Raises:
        ValueError: the stage failed; the message has its last lines, and what to do.
    """
    graph.begins(stage.name)
    named_task = stage_task.with_options(
        name=stage.name,
        task_run_name=stage.name,
        description=stage.desc,
        retries=stage.retries,
        retry_delay_seconds=stage.retry_delay_seconds,
    )
    state = named_task(stage, force, str(flow_run.name), return_state=True)
    run = state.result(raise_on_failure=False)
    assert isinstance(run, StageRun), f"the task ended in {state}"
    graph.ended(stage.name, run)
    if state.is_failed():
        raise ValueError("\n".join([f"{state.message}; its last lines:", *run.last_lines, NEXT]))
    return run


def _register_again(stages: list[Stage], graph: Graph) -> dict[str, StageRun]:
    """Force each stage whose receipt the registry does not know, as after a restored cache or a new registry.

    Raises:
        ValueError: the receipt is wrong even then.
    """
    runs = {}
    receipts = [(stage, out) for stage in stages for out in stage.outs if out.name == RECEIPT_NAME]
    for stage, receipt in receipts:
        if problem := _receipt_problem(receipt):
            get_run_logger().warning(f"{problem}; running stage {stage.name!r} again")
            runs[stage.name] = _run(stage, graph, force=True)
            if problem := _receipt_problem(receipt):
                raise ValueError(f"stage {stage.name!r} ran, but its receipt is still wrong: {problem}")
    return runs


def _receipt_problem(receipt: Path) -> str | None:
    from captioning.champion import check_receipt

    return check_receipt(receipt)


def check_clean() -> None:
    """Check that DVC sees nothing left to run: a stage run by itself does not look at what it reads from.

    Raises:
        ValueError: it does, or cannot tell; the message names the stages and what changed.
    """
    if changed := changed_stages():
        stages = "; ".join(f"{name}: {json.dumps(changes)}" for name, changes in changed.items())
        raise ValueError(
            f"every stage ran, but `dvc status` is not clean: {stages}. A file changed meanwhile; run again"
        )


def changed_stages() -> dict[str, Any]:
    """Return what DVC sees changed, by stage; not the stages that follow from it.

    Raises:
        ValueError: it cannot tell.
    """
    status = subprocess.run(
        dvc_command("--wait-for-lock", "status", "--json"),
        env=stage_environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    if status.returncode != 0:
        raise ValueError(f"`dvc status` failed:\n{status.stderr.strip()}")
    changed: dict[str, Any] = json.loads(status.stdout)
    return changed


def summary(runs: dict[str, StageRun]) -> str:
    """Say in one line which stages ran, were restored or were left as they are."""
    outcomes = dict.fromkeys(run.outcome for run in runs.values())
    return "; ".join(
        f"{what}: {', '.join(n for n, run in runs.items() if run.outcome == what)}" for what in outcomes
    )


def _has_traceback(record: logging.LogRecord) -> bool:
    """Tell whether a record that announces a traceback has one.

    Prefect logs a task that returned a failed state a second time, with `NoneType: None` for a traceback.
    """
    return record.exc_info != (None, None, None)


logging.getLogger("prefect.task_runs").addFilter(_has_traceback)


def main() -> None:
    """Run the pipeline; exit code 0 when every stage is up to date."""
    try:
        with connected():
            state = pipeline(return_state=True)
    except ValueError as error:
        sys.exit(f"pipeline: {error}")
    except KeyboardInterrupt:
        print("pipeline: interrupted; the running stage was ended", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if not state.is_completed():
        sys.exit(f"pipeline: {state.message}")
    print(state.message)


if __name__ == "__main__":
    main()

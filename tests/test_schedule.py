"""Retraining by itself: what is deployed, what new data start, what runs at the same time, what is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dataset_samples import folder_settings, write_pictures
from ruamel.yaml import YAML
from scratch_project import LIMIT_SECONDS, ask_server, make_repository, processes_with, run_git, wait_until

from captioning import params, source_state
from flows import workspace
from flows.schedule import deployments, main, read_crons

ROOT = Path(__file__).parents[1]

DOWNLOAD = """
stages:
  download:
    cmd: python -m stages.download data/raw
    deps: [source.json]
    params: [download]
    outs: [data/raw]
"""
TWO_QUICK_STAGES = """
stages:
  download:
    cmd: cp source.json raw.json
    deps: [source.json]
    params: [download]
    outs: [raw.json]
  clean:
    cmd: cp params.yaml used.yaml
    deps: [raw.json]
    outs: [used.yaml]
"""
CRONS = ["--retrain", "0 3 * * 1", "--probe", "0 0 1 1 *", "--timezone", "Europe/Berlin"]


def project_with_pictures(folder: Path, dvc_yaml: str) -> Path:
    """Make a repository of a project whose few pictures, on disk, were looked at once."""
    make_repository(folder, dvc_yaml, "/raw.json", "/used.yaml", "/data/", "/schedule.log", "/never.txt")
    settings = folder_settings(folder, images="pictures", captions="captions.csv")
    values = params.read(ROOT / "params.yaml") | {"download": settings.model_dump()}
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(values, file)
    with chdir(folder):
        source_state.write(source_state.observe(params.load("download")))
    run_git(folder, "add", "params.yaml", "source.json")
    run_git(folder, "commit", "--quiet", "--message", "Settings")
    return folder


def checkout_of(folder: Path) -> Path:
    return folder / ".work" / "checkouts" / "retrain"


def seen_source(folder: Path) -> str:
    """Return source.json as the last run or probe left it."""
    return run_git(folder, "show", "captioning/retrain:source.json")


def add_picture(folder: Path) -> None:
    write_pictures(folder / "pictures", "new.jpg")
    with (folder / "captions.csv").open("a") as file:
        file.write("new.jpg,A new picture.,train,\n")


def run_flow(folder: Path, name: str, **parameters: Any) -> Any:
    """Run a flow in this process; return its final state."""
    from flows.probe import probe
    from flows.retrain import retrain

    with chdir(folder):
        return {"probe": probe, "retrain": retrain}[name](**parameters, return_state=True)


def ask(api_url: str, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    return ask_server(f"{api_url}{path}", body, method)


class Schedule:
    """`python -m flows.schedule` in a project, and what the server knows of it."""

    def __init__(self, folder: Path, api_url: str, *options: str) -> None:
        self.folder = folder
        self.api_url = api_url
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAPTIONING_"))}
        settings = {"PREFECT_API_URL": api_url, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        with (folder / "schedule.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.schedule", *options],
                cwd=folder,
                env={**inherited, **settings, "PYTHONPATH": str(ROOT), "CAPTIONING_GRACE_SECONDS": "0.5"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return (self.folder / "schedule.log").read_text()

    def wait_until_it_serves(self) -> None:
        wait_until(lambda: "Ctrl-C" in self.said or self.process.poll() is not None)
        assert self.process.poll() is None, self.said

    def deployment(self, flow: str) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.api_url, f"/deployments/name/{flow}/captioner")
        return found

    def start(self, flow: str) -> str:
        """Start a run of a deployment; return its id."""
        run = ask(self.api_url, f"/deployments/{self.deployment(flow)['id']}/create_flow_run", {})
        return str(run["id"])

    def state(self, run_id: str) -> str:
        return str(ask(self.api_url, f"/flow_runs/{run_id}")["state_name"])

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the runs of a deployment that are no plans for its cron, in the order in which they began."""
        of_this = {"deployments": {"id": {"any_": [self.deployment(flow)["id"]]}}}
        found = ask(self.api_url, "/flow_runs/filter", {**of_this, "sort": "START_TIME_ASC"})
        return [run for run in found if not run["auto_scheduled"]]

    def wait_for_runs(self, flow: str, number: int) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = []

        def ended() -> bool:
            runs[:] = self.runs(flow)
            assert self.process.poll() is None, self.said
            return len([run for run in runs if run["end_time"]]) >= number

        wait_until(ended)
        return runs

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_SECONDS)


@pytest.fixture(scope="module", autouse=True)
def flows_can_be_imported_from_a_scratch_project() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def schedule(prefect: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schedule]:
    """A schedule that serves a project; it has run nothing yet."""
    schedule = Schedule(project_with_pictures(tmp_path_factory.mktemp("schedule"), DOWNLOAD), prefect, *CRONS)
    try:
        schedule.wait_until_it_serves()
        yield schedule
    finally:
        if schedule.process.poll() is None:
            schedule.stop()


@pytest.fixture(scope="module")
def trained(prefect: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A project of two quick stages after a retrain, and how that ended."""
    folder = project_with_pictures(tmp_path_factory.mktemp("trained"), TWO_QUICK_STAGES)
    return folder, run_flow(folder, "retrain")


@pytest.fixture
def project(trained: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the project after a retrain."""
    return shutil.copytree(trained[0], tmp_path / "project", symlinks=True)


# what is deployed


@pytest.mark.slow
@pytest.mark.parametrize(("flow", "cron"), [("retrain", "0 3 * * 1"), ("probe", "0 0 1 1 *")])
def test_a_flow_is_deployed_with_its_cron_and_time_zone(schedule: Schedule, flow: str, cron: str) -> None:
    (stated,) = schedule.deployment(flow)["schedules"]
    assert stated["schedule"] == {"cron": cron, "timezone": "Europe/Berlin", "day_or": True}
    assert stated["active"]
    assert f"{flow}/captioner: {cron} (Europe/Berlin)\n" in schedule.said


@pytest.mark.slow
def test_what_was_edited_on_the_server_is_kept_unless_crons_are_stated(prefect: str) -> None:
    for deployment in deployments("edited", read_crons(CRONS)):
        deployment.apply()
    known = ask(prefect, "/deployments/name/retrain/edited")
    edited = {"cron": "30 5 * * *", "timezone": "Asia/Tokyo", "day_or": True}
    one = f"/deployments/{known['id']}/schedules/{known['schedules'][0]['id']}"
    ask(prefect, one, {"schedule": edited, "active": False}, method="PATCH")
    parameters = {"overrides": ["train.seed=1"]}
    ask(prefect, f"/deployments/{known['id']}", {"paused": True, "parameters": parameters}, method="PATCH")

    for options, cron, is_active in (([], "30 5 * * *", False), (CRONS, "0 3 * * 1", True)):
        deployments("edited", read_crons(options))[0].apply()
        found = ask(prefect, "/deployments/name/retrain/edited")
        (schedule,) = found["schedules"]
        assert (schedule["schedule"]["cron"], schedule["active"]) == (cron, is_active)
        assert (found["paused"], found["parameters"]) == (True, parameters)


@pytest.mark.slow
def test_the_parameters_of_a_retrain_are_described_for_its_form(schedule: Schedule) -> None:
    form = schedule.deployment("retrain")["parameter_openapi_schema"]["properties"]
    assert list(form) == ["recipe", "overrides", "force", "dry_run", "revision"]
    assert all(field["description"] for field in form.values())


@pytest.mark.slow
def test_nothing_new_starts_nothing_and_new_data_start_one_retrain_that_brings_them(
    schedule: Schedule,
) -> None:
    before = (schedule.folder / "source.json").read_text().strip()
    unchanged = run_flow(schedule.folder, "probe")
    assert (unchanged.name, seen_source(schedule.folder)) == ("Unchanged", before)
    add_picture(schedule.folder)
    changed = run_flow(schedule.folder, "probe")
    assert changed.name == "Changed"
    assert re.fullmatch(
        r"captions\.csv: lines 5 -> 6, another sha256; pictures: bytes .*, another digest, files 4 -> 5",
        changed.message,
    )
    assert json.loads(seen_source(schedule.folder))["captions.csv"]["lines"] == 6
    assert run_flow(schedule.folder, "probe").name in {"Unchanged", "Skipped"}  # or the retrain has begun

    (run,) = schedule.wait_for_runs("retrain", 1)
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["state"]["message"] == "ran: download"
    rows = pq.read_table(checkout_of(schedule.folder) / "data" / "raw" / "rows.parquet")
    assert "new" in rows["image_id"].to_pylist()
    revision = run_git(schedule.folder, "rev-parse", "HEAD")
    assert f"revision:{revision[:12]}" in run["tags"]
    message = run_git(schedule.folder, "show", "-s", "--format=%B", "captioning/retrain")
    assert message.startswith(
        f"Retrained {revision[:12]}: the pipeline\n\nsettings: of params.yaml\nran: download"
    )
    assert run["id"] in message
    changed = run_git(schedule.folder, "status", "--porcelain").splitlines()
    assert changed == ["?? captions.csv", "?? pictures/"], "which were never committed"


# what one run is told


@pytest.mark.slow
def test_what_is_wrong_is_refused_before_any_work(project: Path) -> None:
    add_picture(project)  # for the download stage to run
    before = run_git(project, "rev-parse", "captioning/retrain")
    for parameters, message in (
        ({"overrides": ["train.epoch=3"]}, "params.yaml has no key 'train.epoch'; keys there: decoder, "),
        ({"recipe": "scene"}, "no recipe 'scene' in recipes/; available:"),
        ({"force": ["trian"]}, "force: no stage 'trian' in dvc.yaml; expected some of download, clean"),
        (
            {"revision": "main~9"},
            f"revision 'main~9' names no commit of {project}; expected a branch, tag or ",
        ),
    ):
        state = run_flow(project, "retrain", **parameters)
        assert state.is_failed()
        assert state.message.startswith(message)
    assert run_git(project, "rev-parse", "captioning/retrain") == before, "nothing ran"


@pytest.mark.slow
def test_settings_hold_for_one_run_and_a_forced_stage_runs_unchanged(project: Path) -> None:
    state = run_flow(project, "retrain", overrides=["split.key=another"], force=["clean"])
    assert state.message == "unchanged: download; ran: clean"
    assert params.read(checkout_of(project) / "used.yaml")["split"]["key"] == "another"
    assert run_git(project, "diff", "--name-only") == ""
    assert "another" in run_git(project, "show", "captioning/retrain:params.yaml")


@pytest.mark.slow
def test_a_dry_run_says_what_would_run_on_what_the_source_has_now_and_leaves_it_to_the_next(
    trained: tuple[Path, Any], project: Path
) -> None:
    assert trained[1].message == "ran: download, clean"
    before = run_git(project, "rev-parse", "captioning/retrain")
    add_picture(project)
    after = run_flow(project, "retrain", dry_run=True)
    assert after.message == "would run: download; these if what they read changes: clean"
    assert run_git(project, "rev-parse", "captioning/retrain") == before


@pytest.mark.slow
def test_a_source_that_is_away_fails_the_probe_and_leaves_a_retrain_its_data(project: Path) -> None:
    (project / "pictures").rename(project / "away")
    before = run_git(project, "rev-parse", "captioning/retrain")
    state = run_flow(project, "probe")
    assert state.is_failed()
    assert state.message == "'pictures' is no folder that is there; correct the section download"
    assert run_flow(project, "retrain", dry_run=True, force=["clean"]).message == "would run: clean"
    assert run_git(project, "rev-parse", "captioning/retrain") == before


@pytest.mark.slow
def test_a_probe_is_left_out_while_another_flow_works(project: Path) -> None:
    add_picture(project)
    with workspace.alone(project):
        state = run_flow(project, "probe")
    assert state.name == "Skipped"
    assert state.message == f"another flow works for {project}; the next look sees what is new"


# the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--retrain", "at three"], "--retrain is 'at three'; expected such as '0 3 * * *', every night"),
        (["--probe", "61 * * * *"], "--probe is '61 * * * *'; expected such as '0 3 * * *', every night"),
        (["--timezone", "Mars"], "--timezone is 'Mars'; expected such as Europe/Berlin"),
    ],
)
def test_what_is_no_cron_or_time_zone_is_one_message(options: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(f"schedule: {message}")):
        main(options)


def test_the_environment_states_crons_where_the_command_line_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not read_crons([]).are_stated
    monkeypatch.setenv("CAPTIONING_RETRAIN_CRON", "0 4 * * *")
    monkeypatch.setenv("CAPTIONING_PROBE_CRON", "0 5 * * *")
    monkeypatch.setenv("CAPTIONING_TIMEZONE", "Asia/Tokyo")
    crons = read_crons(["--probe", "0 6 * * *"])
    assert crons.are_stated
    assert [(one.cron, one.timezone) for one in crons.schedules.values()] == [
        ("0 4 * * *", "Asia/Tokyo"),
        ("0 6 * * *", "Asia/Tokyo"),
    ]


# work pools


@pytest.mark.slow
def test_prefect_deploys_what_prefect_yaml_says(prefect: str) -> None:
    from prefect.server import api
    from prefect.testing.cli import invoke_and_assert

    templates = Path(api.__file__).parent / "collections_data" / "views" / "aggregate-worker-metadata.json"
    kinds = {
        kind: one for package in json.loads(templates.read_text()).values() for kind, one in package.items()
    }
    for kind in ("process", "docker", "kubernetes"):
        pool = {"name": f"captioning-{kind}", "type": kind}
        ask(
            prefect,
            "/work_pools/",
            {**pool, "base_job_template": kinds[kind]["default_base_job_configuration"]},
        )
    with chdir(ROOT):
        invoke_and_assert(["--no-prompt", "deploy", "--all"], expected_code=0)
    for kind in ("process", "docker", "kubernetes"):
        for flow, queue in (("retrain", "gpu"), ("probe", "cpu"), ("sweep", "gpu")):
            found = ask(prefect, f"/deployments/name/{flow}/captioner-{kind}")
            assert (found["work_pool_name"], found["work_queue_name"]) == (f"captioning-{kind}", queue)
            assert found["global_concurrency_limit"]["limit"] == 1
            (step,) = found["pull_steps"]
            assert step["prefect.deployments.steps.set_working_directory"]["directory"]


# the end of the schedule; last, for it ends the one that the tests above share


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the supervisor adopts orphans on Linux only")
def test_a_second_retrain_waits_and_sigterm_ends_the_first_without_pausing_anything(
    schedule: Schedule,
) -> None:
    seconds = "319.25"
    stage = f"stages:\n  long:\n    cmd: (setsid sleep {seconds} &); sleep {seconds}\n    outs: [never.txt]\n"
    (schedule.folder / "dvc.yaml").write_text(stage)
    run_git(schedule.folder, "commit", "--quiet", "--message", "A long stage", "dvc.yaml")
    before = schedule.deployment("retrain")["schedules"]
    first, second = schedule.start("retrain"), schedule.start("retrain")
    wait_until(lambda: len(processes_with(seconds)) >= 2)
    states = {schedule.state(first), schedule.state(second)}
    assert states == {"Running", "AwaitingConcurrencySlot"}

    assert schedule.stop() == 0, schedule.said
    assert processes_with(seconds) == []
    assert {schedule.state(first), schedule.state(second)} == {"Cancelled", "AwaitingConcurrencySlot"}
    assert not schedule.deployment("retrain")["paused"]
    assert not schedule.deployment("probe")["paused"]
    assert schedule.deployment("retrain")["schedules"] == before

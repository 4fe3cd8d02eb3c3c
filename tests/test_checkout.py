"""A run works in a clean checkout of a revision and commits what it ends with; the project's folder stays as it is.

Without git it has the folder for itself, and leaves the files that it replaced for one run as they were.
"""

import os
import shutil
import subprocess
import sys
import threading
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.rwlock import rwlock
from scratch_project import commit_all, make_project, make_repository, one_stage, run_git, wait_until

from captioning import tracking
from flows import checkout, orphans, workspace
from flows.checkout import BusyError
from flows.supervisor import supervised
from flows.workspace import Checkout

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_project(tmp_path, one_stage("touch begun; sleep 60")))
    return tmp_path


COPY = """
stages:
  copy:
    cmd: mkdir -p data && cp source.txt data/copy.txt
    deps: [source.txt]
    outs: [data]
"""


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository for which a run was made, and then the folder of its checkout was left."""
    folder = make_repository(tmp_path_factory.mktemp("repository") / "project", COPY, "/data/")
    (folder / "params.yaml").write_text("download: {source: pictures/list.csv, dataset: folder}\n")
    (folder / "source.json").write_text("{}\n")
    with (folder / ".dvc" / "config").open("a") as config:
        config.write("[cache]\n    type = hardlink\n")
    commit_all(folder)
    place = Checkout(folder, "retrain")
    place.prepare(*workspace.resolve(folder, None))
    place.begin([])
    run_dvc(place, "repro")
    place.publish("A run")
    return folder


@pytest.fixture
def repository(run_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository after a run; it is the working directory."""
    folder = shutil.copytree(run_once, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def run_dvc(place: Checkout, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command,
        cwd=place.folder,
        env={**os.environ, **place.environment()},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def prepared(folder: Path, revision: str | None = None) -> Checkout:
    place = Checkout(folder, "retrain")
    place.prepare(*workspace.resolve(folder, revision))
    return place


# a checkout of a revision


def test_a_run_sees_what_is_committed_and_is_told_what_is_not(repository: Path) -> None:
    (repository / "source.txt").write_text("not committed")
    (repository / "new.txt").write_text("nor this")
    place = prepared(repository)
    assert (place.folder / "source.txt").read_text() == "the source"
    assert not (place.folder / "new.txt").exists()
    assert workspace.uncommitted_changes(repository) == (
        "not committed, and so not in the run: source.txt, new.txt; `git commit` brings them into the next one"
    )


def test_a_revision_is_a_branch_a_tag_or_a_hash(repository: Path) -> None:
    run_git(repository, "tag", "before")
    (repository / "source.txt").write_text("later")
    commit_all(repository)
    assert (prepared(repository, "before").folder / "source.txt").read_text() == "the source"
    assert (prepared(repository, "main").folder / "source.txt").read_text() == "later"
    message = f"revision 'after' names no commit of {repository}; expected a branch, tag or hash"
    with pytest.raises(ValueError, match=message):
        workspace.resolve(repository, "after")


@pytest.mark.slow
def test_what_a_run_ends_with_is_a_commit_and_the_folder_of_the_project_is_as_before(run_once: Path) -> None:
    assert run_git(run_once, "show", "captioning/retrain", "--format=%s", "--name-only").split("\n") == [
        "A run",
        "",
        "dvc.lock",
    ]
    assert run_git(run_once, "rev-parse", "captioning/retrain^") == run_git(run_once, "rev-parse", "main")
    assert run_git(run_once, "status", "--porcelain") == ""
    assert run_git(run_once, "branch", "--show-current") == "main"


@pytest.mark.slow
def test_the_next_run_goes_on_from_the_last_one_with_data_linked_from_the_cache(repository: Path) -> None:
    place = prepared(repository)
    assert place.begin([]) == run_git(repository, "rev-parse", "captioning/retrain")
    assert "up to date" in run_dvc(place, "status")
    copy = place.folder / "data" / "copy.txt"
    cached = {path.stat().st_ino for path in (repository / ".dvc" / "cache").rglob("*") if path.is_file()}
    assert copy.stat().st_ino in cached, "not copied"
    assert place.publish("Nothing was new") is None


@pytest.mark.slow
def test_the_results_come_over_into_the_folder_of_the_project(repository: Path) -> None:
    run_git(repository, "checkout", "captioning/retrain", "--", "dvc.lock", "params.yaml", "source.json")
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet"], check=True)
    assert (repository / "data" / "copy.txt").read_text() == "the source"
    status = [sys.executable, "-m", "dvc", "status"]
    assert "up to date" in subprocess.run(status, check=True, capture_output=True, text=True).stdout


def test_a_run_that_is_tried_again_works_on_the_same_commit(repository: Path) -> None:
    (repository / "source.txt").write_text("later")
    commit_all(repository)
    commits = []
    for _ in range(2):
        place = prepared(repository)
        place.choose("download: {dataset: scenes}\n")
        commits.append(place.begin(["download.dataset=scenes"]))
    assert commits[0] == commits[1]
    parents = run_git(repository, "rev-parse", f"{commits[0]}^@").split()
    assert parents == [run_git(repository, "rev-parse", name) for name in ("captioning/retrain", "main")]
    subject = run_git(repository, "show", "-s", "--format=%s", commits[0])
    assert subject == f"Run of {parents[1][:12]}: download.dataset=scenes"


def test_what_a_killed_run_left_is_cleaned_away(repository: Path) -> None:
    place = prepared(repository)
    (place.folder / "source.txt").write_text("half")
    (place.folder / "left.txt").write_text("half")
    lock = Path(run_git(place.folder, "rev-parse", "--git-path", "index.lock"))
    lock.touch()
    assert (prepared(repository).folder / "source.txt").read_text() == "the source"
    assert not (place.folder / "left.txt").exists()
    assert not lock.exists()


@pytest.mark.parametrize("what", ["nothing", "empty folder", "no index", "copied project"])
def test_a_checkout_that_is_none_is_made_anew_and_the_project_is_not_touched(
    repository: Path, what: str
) -> None:
    place = Checkout(repository, "retrain")
    match what:
        case "nothing":
            shutil.rmtree(place.folder)
        case "empty folder":  # of a git that was killed while it made one
            shutil.rmtree(place.folder)
            place.folder.mkdir()
        case "no index":
            prepared(repository)
            (repository / ".git" / "worktrees" / "retrain" / "index").write_text("half")
        case "copied project":
            pass  # its work tree belongs to the repository that it was copied from
    (repository / "source.txt").write_text("being edited")
    assert (prepared(repository).folder / "source.txt").read_text() == "the source"
    assert (repository / "source.txt").read_text() == "being edited"


@pytest.mark.slow
def test_processes_of_a_killed_run_are_waited_for(repository: Path) -> None:
    place = prepared(repository)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = "import time; print('on', flush=True); time.sleep(1)"
    sleep = supervised([sys.executable, "-c", program, "dvc"])  # which is known by this word
    with subprocess.Popen(sleep, cwd=place.folder, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        waiter = threading.Thread(target=process.wait)  # or it stays among the processes
        waiter.start()
        orphans.clear(place.folder)
        waiter.join()
        assert process.returncode == 0


# inputs that git does not have


def test_files_that_settings_name_are_linked_and_make_the_checkout_no_other_revision(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "pictures").mkdir()
    (repository / "pictures" / "list.csv").write_text("a,b")
    (repository / "weights").mkdir()
    (repository / "weights" / "own.pth").write_text("weights")
    place = prepared(repository)
    place.begin([])
    assert (place.folder / "pictures" / "list.csv").read_text() == "a,b"
    assert (place.folder / "weights" / "own.pth").resolve() == repository / "weights" / "own.pth"
    with workspace.in_environment(place.environment()), chdir(place.folder):
        assert run_git(place.folder, "status", "--porcelain") == ""
        identity = tracking.identity()
    assert identity["captioning.git_revision"] == run_git(repository, "rev-parse", "captioning/retrain")
    assert identity["captioning.git_dirty"] == "false"
    assert workspace.uncommitted_changes(repository) is None


def test_a_path_out_of_the_project_is_refused(repository: Path) -> None:
    (repository.parent / "list.csv").write_text("a,b")
    place = prepared(repository)
    absolute = repository.parent / "list.csv"
    message = f"'../list.csv' leads out of the project's folder; state an absolute path, '{absolute}'"
    with pytest.raises(ValueError, match=message):
        place.link(["../list.csv"])


# the results branch


def test_the_results_branch_is_not_moved_under_someone_who_has_it_checked_out(repository: Path) -> None:
    run_git(repository, "switch", "--quiet", "captioning/retrain")
    message = f"runs commit to the branch captioning/retrain, but {repository} has it checked out: switch to"
    with pytest.raises(ValueError, match=message):
        workspace.resolve(repository, None)


def test_a_branch_that_git_cannot_make_is_refused_before_any_work(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_RESULTS_BRANCH", "main/results")
    with pytest.raises(ValueError, match=r"`git branch .* failed in .*main/results"):
        workspace.resolve(repository, None)


def test_what_someone_commits_to_the_branch_meanwhile_is_merged(repository: Path) -> None:
    place = prepared(repository)
    place.begin([])
    other = run_git(repository, "commit-tree", "-p", "captioning/retrain", "-m", "Theirs", "main^{tree}")
    run_git(repository, "update-ref", "refs/heads/captioning/retrain", other)
    (place.folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    place.publish("Ours")
    assert run_git(repository, "merge-base", other, "captioning/retrain") == other
    assert run_git(repository, "show", "captioning/retrain:dvc.lock") == "schema: '2.0'\nstages: {}"


def test_a_commit_needs_no_configured_author(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_git(repository, "config", "--unset", "user.name")
    run_git(repository, "config", "--unset", "user.email")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    place = prepared(repository)
    place.choose("download: {dataset: scenes}\n")
    author = run_git(repository, "show", "-s", "--format=%an <%ae>", place.begin([]))
    assert author == "captioning <captioning@localhost>"


# where a run works


def test_a_second_run_of_a_project_is_told_that_it_is_busy(repository: Path) -> None:
    said: list[str] = []
    busy = pytest.raises(BusyError, match=f"another flow works for {repository}")
    with (
        workspace.alone(repository),
        busy,
        workspace.opened(None, say=said.append, warn=said.append, wait=False),
    ):
        pass


def test_without_git_a_run_works_in_the_folder_and_says_so(project: Path) -> None:
    said: list[str] = []
    with workspace.opened(None, say=said.append, warn=said.append, keeps_changes=False) as place:
        assert place.folder == project
        Path("params.yaml").write_text("for this run")
    assert said == [
        f"{project} is no git repository: the run works in it, and is recorded without a revision"
    ]
    message = f"revision is 'main', but {project} is in no git repository with a commit"
    with (
        pytest.raises(ValueError, match=message),
        workspace.opened("main", say=said.append, warn=said.append),
    ):
        pass


def test_a_project_in_a_folder_of_its_repository_is_found_in_the_checkout(tmp_path: Path) -> None:
    make_repository(tmp_path / "all", COPY)
    inner = make_project(tmp_path / "all" / "inner", COPY)
    (inner / "source.txt").write_text("of the inner one")
    (inner / ".dvc" / ".gitignore").write_text("/tmp\n/cache\n/config.local\n")
    commit_all(tmp_path / "all")
    place = prepared(inner)
    assert (place.folder / "source.txt").read_text() == "of the inner one"
    assert place.folder.name == "inner"


# without git


def test_a_second_flow_is_told_that_the_checkout_is_busy(project: Path) -> None:
    busy = pytest.raises(checkout.BusyError, match=f"another flow works in {project}")
    with checkout.alone(), busy, checkout.alone():
        pass
    with checkout.alone():
        pass


@pytest.mark.slow
def test_a_flow_that_waits_says_so_and_begins_when_the_first_is_killed(project: Path) -> None:
    hold = "from flows import checkout; import time\nwith checkout.alone(): open('held', 'w'); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", hold], env=environment) as first:
        wait_until((project / "held").exists)
        said = []

        def say(sentence: str) -> None:
            said.append(sentence)
            first.kill()

        with checkout.alone(say):
            pass
    assert said == [f"another flow works in {project}; waiting until it has ended"]


def test_a_folder_without_dvc_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = pytest.raises(
        ValueError, match=f"{tmp_path} is no DVC project; start the flow in the project's"
    )
    with refused, checkout.alone():
        pass


@pytest.mark.slow
def test_a_file_is_in_use_while_a_stage_that_depends_on_it_runs(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q"], start_new_session=True) as repro:
        wait_until((project / "begun").exists)
        busy = pytest.raises(checkout.BusyError, match=r"source\.txt is in use: .*being blocked by")
        with busy, checkout.unread(Path("source.txt")):
            pass
        os.killpg(repro.pid, 9)
    with checkout.unread(Path("source.txt")):
        pass


def test_dvc_does_not_read_a_file_while_it_is_written(project: Path) -> None:
    path = str(project / "source.txt")
    busy = pytest.raises(LockError, match="is busy, it is being blocked by")
    lock = ("a stage", [path], [], False)
    with checkout.unread(Path("source.txt")), Repo() as repo, busy, rwlock(repo.tmp_dir, repo.fs, *lock):
        pass


def test_files_are_put_back_also_after_a_failure(project: Path) -> None:
    source, absent = Path("source.txt"), Path("absent.txt")
    with pytest.raises(ValueError, match="stage failed"), checkout.put_back(source, absent):
        source.write_text("for this run")
        raise ValueError("stage failed")
    assert source.read_text() == "the source"
    assert sorted(path.name for path in project.iterdir()) == [".dvc", ".dvcignore", "dvc.yaml", "source.txt"]


def test_what_a_killed_run_left_is_put_back_by_the_next(project: Path) -> None:
    source = Path("source.txt")
    kill = (
        "import os; from pathlib import Path; from flows import checkout\n"
        "with checkout.put_back(Path('source.txt')): "
        "Path('source.txt').write_text('for this run'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", kill], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert source.read_text() == "for this run"
    assert checkout.recover(source) == [source]
    assert source.read_text() == "the source"
    assert checkout.recover(source) == []

"""Where a run works: a clean checkout of a revision, beside the project's folder and with its DVC cache.

A checkout is a work tree of git in `.work/checkouts` of the project. It has the files of the revision, `dvc.lock` and
`source.json` of the last run (the tip of the results branch), the settings of this run, and data linked from the cache.
It stays after the run: the next one changes only what differs. What it ends with is committed to the results branch;
the project's own folder and branch stay as they are.

Without git a run works in the project's folder itself, and puts settings back that were for this run only.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from captioning import home, params
from captioning.outputs import alone_in, whole_file
from captioning.params import PARAMS_FILE
from captioning.recipes import WEIGHTS
from captioning.reproduction.checkout import share_dvc_settings
from captioning.source_state import SOURCE_FILE
from flows import checkout, library, orphans
from flows.checkout import BusyError
from flows.git import (
    commit_file,
    commit_index,
    find_commit,
    git,
    is_repository,
    read_file,
    tree_of,
    uncommitted,
)
from flows.stage_run import dvc_command, stage_environment

DEFAULT_BRANCH = "captioning/retrain"
BRANCH_VARIABLE = "CAPTIONING_RESULTS_BRANCH"

DVC_LOCK = Path("dvc.lock")
WORK = Path(".work")
OF_LAST_RUN = (DVC_LOCK, SOURCE_FILE)
"""Files that a checkout takes from the tip of the results branch; DVC decides by their content what has to run."""
NUM_NAMED = 8
"""Of the files that differ from the revision."""


def results_branch() -> str:
    """Return the branch that runs commit to: CAPTIONING_RESULTS_BRANCH, by default captioning/retrain."""
    return os.environ.get(BRANCH_VARIABLE) or DEFAULT_BRANCH


class InPlace:
    """The project's own folder, without git: settings for one run are put back after it."""

    revision: str | None = None

    def __init__(self, project: Path) -> None:
        self.folder = project

    def choose(self, params_text: str) -> None:
        """Take other settings."""
        PARAMS_FILE.write_text(params_text)

    def look(self) -> list[str]:
        """Write source.json, and say what is new."""
        with checkout.unread(SOURCE_FILE):
            return library.look(self.folder)

    def begin(self, settings: Sequence[str]) -> None:
        """Do nothing: the folder is as it is."""

    def publish(self, message: str) -> str | None:
        """Do nothing: what was made lies in the folder."""
        return None

    def announce(self, message: str) -> None:
        """Do nothing: source.json lies in the folder."""


class Checkout:
    """A work tree of the project's repository. Nothing here depends on the working directory."""

    def __init__(self, project: Path, name: str) -> None:
        """Take the one called `name`, which need not exist yet."""
        self._project = project
        self._root = checkouts(project) / name
        self._excludes = checkouts(project) / f"{name}.excludes"
        self.folder = self._root / git(project, "rev-parse", "--show-prefix")
        self.revision = self._tip = ""

    def prepare(self, revision: str, tip: str) -> None:
        """Make it the clean checkout of `revision` with the state that the last run left at `tip`.

        Whatever a run that was killed left here is cleaned away, processes of it too.

        Raises:
            ValueError: git refuses, or the revision has no DVC project.
        """
        self.revision, self._tip = revision, tip
        orphans.clear(self.folder)
        try:
            self._switch()
        except ValueError:  # there is none yet, or it was killed while it was made
            self.remove()
            git(self._project, "worktree", "add", "--quiet", "--force", "--detach", str(self._root), revision)
        if not (self.folder / checkout.DVC_FOLDER).is_dir():
            raise ValueError(
                f"revision {revision[:12]} has no folder .dvc; commit it, dvc.yaml and params.yaml: "
                "`git add .dvc dvc.yaml params.yaml && git commit`"
            )
        for path in OF_LAST_RUN:
            if (content := read_file(self.folder, tip, str(path))) is not None:
                _write_if_other(self.folder / path, content)
        share_dvc_settings(self._project, self.folder)
        (self.folder / checkout.DVC_FOLDER / "tmp" / "rwlock").unlink(missing_ok=True)  # of killed processes
        self._linked: list[str] = []
        self.link(str(path) for path in _files(self._project / WEIGHTS, WEIGHTS))

    def _switch(self) -> None:
        if not (self._root / ".git").is_file() or _repository(self._root) != _repository(self._project):
            raise ValueError(
                f"{self._root} is no work tree of this repository, perhaps after the project was copied"
            )
        for name in ("index.lock", "HEAD.lock"):  # of a git that was killed; no other one works here
            (self._root / git(self._root, "rev-parse", "--git-path", name)).unlink(missing_ok=True)
        git(self._root, "checkout", "--quiet", "--force", "--detach", self.revision)
        git(self._root, "clean", "--quiet", "-d", "--force")

    def link(self, paths: Iterable[str]) -> None:
        """Make files of the project that git does not have, which the settings name, reachable here as well.

        Raises:
            ValueError: a path leads out of the project, where it would mean something else.
        """
        for text in paths:
            source = self._project / text
            if not text or Path(text).is_absolute() or not os.path.exists(source):  # noqa: PTH110, too long a text is none
                continue
            target = Path(os.path.normpath(self.folder / text))
            if not target.is_relative_to(self.folder):
                raise ValueError(
                    f"{text!r} leads out of the project's folder; state an absolute path, {str(source.resolve())!r}"
                )
            if not target.exists():
                target.unlink(missing_ok=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source.resolve())
                self._linked.append(os.path.relpath(target, self._root))

    def choose(self, params_text: str) -> None:
        """Take other settings than those of the revision."""
        _write_if_other(self.folder / PARAMS_FILE, params_text.encode())

    def link_source(self) -> None:
        """Make the files and folders reachable that the section download names."""
        values = params.read(self.folder / PARAMS_FILE)
        self.link(_texts(values.get("download", {})))

    def look(self) -> list[str]:
        """Write source.json, and say what is new.

        Raises:
            ValueError: params.yaml or source.json is not right.
            OSError: the source is not there, or does not answer.
        """
        self.link_source()
        return library.look(self.folder)

    def begin(self, settings: Sequence[str]) -> str:
        """Commit what the run works on, unless that is the revision or the tip itself, and bring the data of dvc.lock.

        The commit is on no branch. Its time is that of its parents, so that a run that is tried again works on the
        same commit. Returns its hash, which stages see as their revision.

        Args:
            settings: in words, for the message.
        """
        self.link_source()
        _write_lines(
            self._excludes, [*_global_excludes(self._project), *(f"/{path}" for path in self._linked)]
        )
        self._stage()
        tree = git(self.folder, "write-tree")
        for known in (self._tip, self.revision):
            if tree == tree_of(self.folder, known):
                commit = known
                break
        else:
            at = max(
                git(self.folder, "show", "-s", "--format=%ct", own) for own in (self._tip, self.revision)
            )
            message = f"Run of {self.revision[:12]}: {', '.join(settings) or 'the settings of params.yaml'}"
            commit = commit_index(self.folder, message, self._tip, self.revision, at=f"{at} +0000")
        git(self.folder, "update-ref", "--no-deref", "HEAD", commit)
        self._bring_data()
        return commit

    def _bring_data(self) -> None:
        """Link what dvc.lock names from the cache; what the cache lacks is made again by its stage."""
        if (self.folder / DVC_LOCK).exists():
            subprocess.run(
                dvc_command("checkout", "--quiet", "--force", "--allow-missing"),
                cwd=self.folder,
                env={**stage_environment(), **self.environment()},
                check=False,
                capture_output=True,
            )

    def publish(self, message: str) -> str | None:
        """Commit what the run ended with to the results branch.

        Returns:
            The commit; None where the run changed nothing.

        Raises:
            ValueError: git refuses.
        """
        self._stage()
        if git(self.folder, "write-tree") == tree_of(self.folder, "HEAD"):
            return None
        commit = commit_index(self.folder, message, self._tip, git(self.folder, "rev-parse", "HEAD"))
        git(self.folder, "update-ref", "--no-deref", "HEAD", commit)
        _move_branch(self.folder, results_branch(), commit, message)
        return commit

    def announce(self, message: str) -> None:
        """Commit source.json alone to the results branch."""
        commit = commit_file(self.folder, self._tip, self.folder / SOURCE_FILE, message)
        _move_branch(self.folder, results_branch(), commit, message)

    def _stage(self) -> None:
        kept = [str(path) for path in (PARAMS_FILE, *OF_LAST_RUN) if (self.folder / path).exists()]
        git(self._root, "add", "--update")
        if kept:
            git(self.folder, "add", "--force", "--", *kept)

    def environment(self) -> dict[str, str]:
        """Return the variables of processes that work here: the project's home, and no word of what was linked."""
        number = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
        return {
            "CAPTIONING_HOME": str(home.home() if os.environ.get("CAPTIONING_HOME") else self._project),
            "GIT_CONFIG_COUNT": str(number + 1),
            f"GIT_CONFIG_KEY_{number}": "core.excludesFile",
            f"GIT_CONFIG_VALUE_{number}": str(self._excludes),
        }

    def remove(self) -> None:
        """Delete it; what it made is in the cache."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._excludes.unlink(missing_ok=True)
        git(self._project, "worktree", "prune")


Workspace = InPlace | Checkout


def checkouts(project: Path) -> Path:
    """Return the folder of a project's checkouts, made if absent.

    It is the project's own, not of CAPTIONING_HOME: on the disk of its cache, and apart from those of other clones.
    """
    folder = project / WORK / "checkouts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone(project: Path, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Be the only run of the project that works in a checkout: wait for another one after a word to `say`.

    Raises:
        BusyError: another one works, and there is no `say`.
    """

    def when_busy() -> None:
        if say is None:
            raise BusyError(f"another flow works for {project}")
        say(f"another flow works for {project}; waiting until it has ended")

    with alone_in(checkouts(project), when_busy):
        yield


@contextmanager
def opened(
    revision: str | None,
    *,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    wait: bool = True,
    keeps_changes: bool = True,
) -> Iterator[Workspace]:
    """Yield the place where a run of the project in the working directory works, alone; it is the working directory.

    Args:
        revision: what git knows; None is the commit that the project's folder is at.
        say: is told of a wait.
        warn: is told of what the run does not see.
        wait: for another flow; BusyError otherwise.
        keeps_changes: of params.yaml and source.json, where there is no git.

    Raises:
        BusyError: another flow works here.
        ValueError: there is no DVC project, or no such revision; the message is for the user.
    """
    project = Path.cwd()
    if not is_repository(project):
        if revision is not None:
            raise ValueError(f"revision is {revision!r}, but {project} is in no git repository with a commit")
        with checkout.alone(say if wait else None):
            orphans.clear(project)
            for path in checkout.recover(PARAMS_FILE, SOURCE_FILE):
                warn(f"{path} is put back: a run with other settings was killed")
            warn(f"{project} is no git repository: the run works in it, and is recorded without a revision")
            if keeps_changes:
                yield InPlace(project)
            else:
                with checkout.put_back(PARAMS_FILE, SOURCE_FILE):
                    yield InPlace(project)
        return
    with alone(project, say if wait else None):
        commit, tip = resolve(project, revision)
        if revision is None and (changed := uncommitted_changes(project)):
            warn(changed)
        place = Checkout(project, "retrain")
        place.prepare(commit, tip)
        with in_environment(place.environment()), chdir(place.folder):
            yield place


def resolve(project: Path, revision: str | None) -> tuple[str, str]:
    """Return the hashes of the revision and of the tip of the results branch, which begins at the revision.

    Raises:
        ValueError: there is no such revision, or the branch cannot be used.
    """
    commit = find_commit(project, revision or "HEAD")
    if commit is None:
        raise ValueError(
            f"revision {revision!r} names no commit of {project}; expected a branch, tag or hash"
        )
    branch = results_branch()
    if user := _work_tree_on(project, branch):
        raise ValueError(
            f"runs commit to the branch {branch}, but {user} has it checked out: switch to another one there "
            f"(`git switch -`), or name another branch with {BRANCH_VARIABLE}"
        )
    tip = find_commit(project, f"refs/heads/{branch}")
    if tip is None:
        git(project, "branch", "--no-track", branch, commit)
    return commit, tip or commit


def uncommitted_changes(project: Path) -> str | None:
    """Say what the project's folder has that its commit has not, and a run does not see; None where that is nothing."""
    excluded = [str(path) for path in (*OF_LAST_RUN, WORK, WEIGHTS)]
    try:
        used = [Path(text) for text in _texts(params.read(project / PARAMS_FILE).get("download", {}))]
    except ValueError:
        used = []
    paths = [
        path for path in uncommitted(project, *excluded) if not any(own.is_relative_to(path) for own in used)
    ]
    if not paths:
        return None
    more = f" and {len(paths) - NUM_NAMED} more" if len(paths) > NUM_NAMED else ""
    return (
        f"not committed, and so not in the run: {', '.join(paths[:NUM_NAMED])}{more}; "
        "`git commit` brings them into the next one"
    )


def _move_branch(folder: Path, branch: str, commit: str, message: str) -> None:
    """Move a branch to `commit`, merged with what someone else committed to it meanwhile."""
    name = f"refs/heads/{branch}"
    now = find_commit(folder, name)
    if now and git(folder, "merge-base", commit, now) != now:
        commit = commit_index(folder, message, now, commit)
    git(folder, "update-ref", "-m", "run", name, commit, now or "0" * 40)


def _repository(folder: Path) -> Path:
    return (folder / git(folder, "rev-parse", "--git-common-dir")).resolve()


def _work_tree_on(project: Path, branch: str) -> str | None:
    tree = None
    for line in git(project, "worktree", "list", "--porcelain").splitlines():
        key, _, value = line.partition(" ")
        if key == "worktree":
            tree = value
        elif key == "branch" and value == f"refs/heads/{branch}":
            return tree
    return None


def _global_excludes(project: Path) -> Sequence[str]:
    """Return the lines of the file that git's core.excludesFile names: ours takes its place."""
    try:
        path = Path(git(project, "config", "--path", "core.excludesFile"))
    except ValueError:
        path = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git" / "ignore"
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def _write_if_other(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        with whole_file(path) as aside:
            aside.write_bytes(content)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _files(folder: Path, name: Path) -> Iterator[Path]:
    """Yield the paths below `name` of the files in `folder`."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file():
            yield name / path.relative_to(folder)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in parsed YAML."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


@contextmanager
def in_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in this process's environment during the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

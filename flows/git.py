"""What the flows ask of git: plumbing only, which runs no hook, signs nothing and moves no one's branch by itself."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

REDIRECTING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
"""Variables that a git hook leaves in the environment, and that would lead to another repository or index."""

FALLBACK_IDENTITY = {"user.name": "captioning", "user.email": "captioning@localhost"}


def git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what git prints, without white space around it.

    Raises:
        ValueError: git failed, or is not installed; the message is git's.
    """
    return git_bytes(folder, *arguments, environment=environment).decode(errors="surrogateescape").strip()


def git_bytes(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes:
    """Return what git prints, byte by byte.

    Raises:
        ValueError: as `git`.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in REDIRECTING}
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**inherited, **(environment or {})}, check=False, capture_output=True
        )
    except FileNotFoundError:
        raise ValueError(
            f"`git` cannot be run in {folder}: it is not installed, or the folder is gone"
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"`git {' '.join(arguments)}` failed in {folder}: {said}")
    return done.stdout


def is_repository(folder: Path) -> bool:
    """Tell whether `folder` lies in the work tree of a git repository that has a commit."""
    try:
        git(folder, "rev-parse", "--show-toplevel")
        return bool(find_commit(folder, "HEAD"))
    except ValueError:
        return False


def find_commit(folder: Path, name: str) -> str | None:
    """Return the full hash of what a branch, tag or hash names, None where it names no commit."""
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except ValueError:
        return None


def read_file(folder: Path, commit: str, name: str) -> bytes | None:
    """Return a file of `folder` as a commit has it, None where that has none."""
    try:
        return git_bytes(folder, "show", f"{commit}:./{name}")
    except ValueError:
        return None


def uncommitted(folder: Path, *excluded: str) -> list[str]:
    """Return the paths below `folder` that differ from its commit or are not in it, ignored ones left out."""
    pathspecs = [".", *(f":(exclude){path}" for path in excluded)]
    listed = git_bytes(
        folder, "--no-optional-locks", "status", "--porcelain", "-z", "--no-renames", "--", *pathspecs
    )
    return [os.fsdecode(entry[3:]) for entry in listed.split(b"\0") if entry]


def commit_index(
    folder: Path, message: str, *parents: str, at: str | None = None, index: Path | None = None
) -> str:
    """Return a commit of what the index of a work tree holds; no branch moves.

    Author and committer are git's configured ones, or `captioning` where there are none.

    Args:
        folder: in the work tree.
        message: of the commit.
        parents: hashes; those that others of them descend from are left out.
        at: time of the commit in git's form; equal trees, messages, parents and times give equal commits.
        index: another index file.
    """
    independent = set(git(folder, "merge-base", "--independent", *parents).split())
    options = [
        option for parent in dict.fromkeys(parents) if parent in independent for option in ("-p", parent)
    ]
    dates = {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at} if at else {}
    tree = git(folder, "write-tree", environment=_with_index(index))
    return git(folder, *_identity(folder), "commit-tree", *options, "-m", message, tree, environment=dates)


def commit_file(folder: Path, parent: str, file: Path, message: str) -> str:
    """Return a commit that has `file`, which lies in the work tree, as it is now and all else as its parent."""
    with TemporaryDirectory() as aside:
        index = Path(aside) / "index"
        git(folder, "read-tree", parent, environment=_with_index(index))
        git(folder, "add", "--force", "--", str(file), environment=_with_index(index))
        return commit_index(folder, message, parent, index=index)


def _with_index(index: Path | None) -> dict[str, str]:
    return {"GIT_INDEX_FILE": str(index)} if index else {}


def _identity(folder: Path) -> list[str]:
    options = []
    for key, fallback in FALLBACK_IDENTITY.items():
        try:
            git(folder, "config", key)
        except ValueError:
            options += ["-c", f"{key}={fallback}"]
    return options


def tree_of(folder: Path, commit: str) -> str:
    """Return the hash of a commit's tree."""
    return git(folder, "rev-parse", f"{commit}^{{tree}}")

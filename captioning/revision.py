"""Which code this is, as git says: the revision, and what differs from it."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

RECORDED = ("dvc.lock", "params.yaml", "source.json")
"""Recorded whole with every version, and written while the pipeline runs: no differences of the code."""

CODE = ("captioning", "stages", "dvc.yaml", "requirements.lock")
"""Files and folders that decide a result: a patch carries these, and nothing that merely lies about."""

MOST_PATCH_BYTES = 1_000_000
GIT_SECONDS = 60


def read() -> str | None:
    """Return the id of the commit that is checked out; None without git, a repository or a commit."""
    answer = git("rev-parse", "--verify", "HEAD")
    return answer.decode().strip() if answer else None


def prefix() -> Path | None:
    """Return where the working directory lies in its repository; None outside of one."""
    answer = git("rev-parse", "--show-prefix")
    return None if answer is None else Path(os.fsdecode(answer).rstrip("\n"))


def changed() -> list[str] | None:
    """Return the files here that differ from the commit, new ones too; None where git does not answer.

    Ignored files and `RECORDED` do not count.
    """
    without = [f":(exclude){name}" for name in RECORDED]
    listed, inside = ["--porcelain", "-z", "--untracked-files=all", "--no-renames"], prefix()
    answer = git("status", *listed, "--", ".", *without)
    if answer is None or inside is None:
        return None
    paths = (Path(entry[3:]) for entry in os.fsdecode(answer).split("\0") if entry)
    return sorted(path.relative_to(inside).as_posix() for path in paths)


def is_code(path: str) -> bool:
    """Tell whether a file may decide a result."""
    return any(path == name or path.startswith(f"{name}/") for name in CODE)


def patch(paths: Sequence[str]) -> bytes | None:
    """Return what of `paths` differs from the commit, for `git apply` at the root of a checkout.

    None above `MOST_PATCH_BYTES`, or without git. The repository is left as it is, down to its objects and its index.
    """
    files = [Path(path) for path in paths]
    if sum(path.lstat().st_size for path in files if path.is_file()) > MOST_PATCH_BYTES:
        return None
    objects = git("rev-parse", "--git-path", "objects")
    if objects is None:
        return None
    with TemporaryDirectory() as folder:
        apart = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(Path(os.fsdecode(objects).rstrip("\n")).absolute()),
        }
        listed = ["--pathspec-from-file=-", "--pathspec-file-nul"]
        names = b"\0".join(os.fsencode(f":(literal){path}") for path in paths)
        for command in (["read-tree", "HEAD"], ["add", "--all", *listed]):
            if git(*command, variables=apart, stdin=names) is None:
                return None
        differing = git(
            "diff", "--cached", "--binary", "--no-renames", "--no-ext-diff", "HEAD", variables=apart
        )
    return differing if differing is None or len(differing) <= MOST_PATCH_BYTES else None


def git(
    *arguments: str,
    variables: dict[str, str] | None = None,
    stdin: bytes = b"",
    folder: Path | None = None,
    seconds: float | None = GIT_SECONDS,
) -> bytes | None:
    """Return what git answers in `folder`; None where there is no git, it fails or takes longer."""
    command = ["git", "--no-optional-locks", *arguments]
    environment = os.environ | (variables or {})
    try:
        answer = subprocess.run(
            command,
            env=environment,
            input=stdin,
            cwd=folder,
            capture_output=True,
            check=True,
            timeout=seconds,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def named(paths: Iterable[str], most: int = 10) -> str:
    """Return paths for a sentence: the first of them, and how many more there are."""
    every = list(paths)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")

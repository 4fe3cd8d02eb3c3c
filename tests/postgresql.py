"""A PostgreSQL server of its own for tests, which can be killed and started again."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from scratch_project import LIMIT_SECONDS

from flows.servers import HOST, free_port

USER = "captioning"


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, which Debian keeps off PATH; skip the test where there are none."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not on_path and not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return (found[-1] if found else Path(str(on_path)).resolve()).parent


class PostgreSQL:
    """A cluster in a folder of its own. Its programs refuse to run as root, so that root runs them as `postgres`."""

    def __init__(self) -> None:
        self._programs = programs()
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # pytest's are closed to other users
        self._user = None
        if os.geteuid() == 0:
            self._user = "postgres"
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", f"--username={USER}", "--no-sync", "--encoding=UTF8").wait()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["-F", "-p", str(self.port), "-k", str(self._folder), "-h", HOST]
        options += ["-c", "dynamic_shared_memory_type=mmap"]  # files of its folder
        self._process = self._run("postgres", *options)
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                psycopg.connect(self.address("postgres")).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """Kill it with all of its processes, as a failing machine does."""
        assert self._process is not None
        for process in [*(first := psutil.Process(self._process.pid)).children(recursive=True), first]:
            with suppress(psutil.NoSuchProcess):  # they end by themselves without the first one
                process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Let it end by itself, since what it shares in memory outlives a kill."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(LIMIT_SECONDS)
        shutil.rmtree(self._folder)

    def create(self, database: str) -> str:
        """Create a database; return its address."""
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database}")
        return self.address(database)

    def address(self, database: str) -> str:
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    def _run(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        command = [self._programs / program, "-D", self._folder / "data", *options]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self._folder, user=self._user, extra_groups=[] if self._user else None,
                stdout=log, stderr=log,
            )  # fmt: skip

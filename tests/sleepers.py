"""Processes that sleep for minutes, in all the ways in which a process can hang below another."""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress

import psutil

LIMIT_SECONDS = 20.0


def wait_until(claim: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


class Sleepers:
    """Processes that sleep for minutes, told from others by the exact time."""

    def __init__(self) -> None:
        self.seconds = f"300.{uuid.uuid4().int}"

    def living(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if (
                    process.cmdline()[:2] == ["sleep", self.seconds]
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def family(self, before: str = "") -> list[str]:
        """Return a command with four sleepers: itself, a child, and in their own sessions another and an orphan."""
        sleep = f"sleep {self.seconds}"
        return ["bash", "-c", f"{before} {sleep} & setsid {sleep} & (setsid {sleep} &); exec {sleep}"]

    def wait_for(self, number: int) -> None:
        wait_until(lambda: len(self.living()) == number)

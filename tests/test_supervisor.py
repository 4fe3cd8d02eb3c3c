"""The supervisor ends with the command's exit code, and nothing that the command started outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sleepers import LIMIT_SECONDS, Sleepers, wait_until

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="adoption of orphans is Linux's")


def supervise(*command: str, grace: str = "5") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.supervisor", "--", *command],
        cwd=ROOT,
        env={**os.environ, "CAPTIONING_GRACE_SECONDS": grace},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command: str, grace: str = "5") -> tuple[int, str]:
    with supervise(*command, grace=grace) as process:
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, errors


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_is_that_of_the_command(code: int) -> None:
    assert run("bash", "-c", f"exit {code}") == (code, "")


def test_a_command_that_a_signal_ended_has_the_exit_code_of_a_shell() -> None:
    assert run("bash", "-c", "kill -KILL $$") == (128 + signal.SIGKILL, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_whole_tree_also_other_sessions_and_orphans(
    number: signal.Signals, sleepers: Sleepers
) -> None:
    with supervise(*sleepers.family()) as process:
        sleepers.wait_for(4)
        process.send_signal(number)
        assert process.wait(LIMIT_SECONDS) == 128 + signal.SIGTERM
    assert sleepers.living() == []


def test_what_saves_its_state_may_start_processes_and_a_second_signal_does_not_cut_it_short(
    tmp_path: Path,
) -> None:
    save = f"sleep 1 && echo saved > {tmp_path}/state; exit 3"
    slow = f"trap '{save}' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    with supervise("bash", "-c", slow) as process:
        wait_until((tmp_path / "ready").exists)
        process.terminate()
        time.sleep(0.2)
        process.terminate()
        assert process.wait(LIMIT_SECONDS) == 3
    assert (tmp_path / "state").read_text() == "saved\n"


def test_what_ignores_the_signal_is_killed_after_the_grace(sleepers: Sleepers) -> None:
    with supervise(*sleepers.family(before="trap '' TERM;"), grace="0.5") as process:
        sleepers.wait_for(4)
        began = time.monotonic()
        process.terminate()
        assert process.wait(LIMIT_SECONDS) == 128 + signal.SIGKILL
    assert time.monotonic() - began >= 0.5
    assert sleepers.living() == []


def test_nothing_survives_when_the_parent_is_killed(sleepers: Sleepers) -> None:
    start = (
        "import subprocess, sys; from flows.supervisor import supervised;"
        "subprocess.run(supervised(sys.argv[1:]))"
    )
    with subprocess.Popen([sys.executable, "-c", start, *sleepers.family()], cwd=ROOT) as parent:
        sleepers.wait_for(4)
        parent.kill()
    sleepers.wait_for(0)


def test_a_parent_that_died_before_the_start_is_noticed(sleepers: Sleepers) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    command = [
        sys.executable,
        "-m",
        "flows.supervisor",
        f"--parent={gone.pid}",
        "--",
        "sleep",
        sleepers.seconds,
    ]
    ended = subprocess.run(command, cwd=ROOT, timeout=LIMIT_SECONDS, check=False)
    assert ended.returncode == 128 + signal.SIGTERM
    assert sleepers.living() == []


def test_what_a_finished_command_left_running_is_ended(sleepers: Sleepers) -> None:
    code, _ = run("bash", "-c", f"(setsid sleep {sleepers.seconds} &); exit 5")
    assert code == 5
    assert sleepers.living() == []


def test_what_takes_longer_than_its_limit_is_ended_with_its_whole_tree(sleepers: Sleepers) -> None:
    from flows.supervisor import TIMED_OUT, supervised

    began = time.monotonic()
    command = supervised(sleepers.family(), limit_seconds=5.0)
    with subprocess.Popen(command, cwd=ROOT) as process:
        sleepers.wait_for(4)
        assert process.wait(LIMIT_SECONDS) == TIMED_OUT
    assert time.monotonic() - began >= 5.0
    assert sleepers.living() == []


def test_what_ends_within_its_limit_has_its_own_exit_code() -> None:
    from flows.supervisor import supervised

    command = supervised(["bash", "-c", "exit 7"], limit_seconds=LIMIT_SECONDS)
    assert subprocess.run(command, cwd=ROOT, timeout=LIMIT_SECONDS, check=False).returncode == 7


def test_a_missing_command_is_one_message() -> None:
    code, errors = run("no-such-command")
    assert code == 1
    assert errors == "supervisor: [Errno 2] No such file or directory: 'no-such-command'\n"


def test_a_grace_that_is_no_number_is_refused() -> None:
    code, errors = run("true", grace="soon")
    assert code == 1
    assert errors == "supervisor: CAPTIONING_GRACE_SECONDS is 'soon'; expected seconds, such as 25\n"


def test_no_command_is_answered_with_the_usage() -> None:
    code, errors = run()
    assert code == 1
    options = "[--parent=PID] [--limit=SECONDS] [--mark=WORD]"
    assert errors == f"usage: python -m flows.supervisor {options} -- COMMAND...\n"

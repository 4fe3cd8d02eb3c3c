import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captioning.outputs import whole_file, whole_folder

HOLD = """
import sys, time
from pathlib import Path
from captioning.outputs import whole_folder
with whole_folder(Path(sys.argv[1])) as aside:
    (aside / "half").touch()
    print("writing", flush=True)
    time.sleep(600)
"""


def test_a_folder_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path: Path):
    folder = tmp_path / "deep" / "table"
    for text in ("old", "new"):
        with whole_folder(folder) as aside:
            (aside / "rows").write_text(text)
            assert not folder.exists() or (folder / "rows").read_text() == "old"
    assert (folder / "rows").read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["table"]


def test_an_error_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path):
    folder = tmp_path / "table"
    with whole_folder(folder) as aside:
        (aside / "rows").write_text("old")
    with pytest.raises(OSError, match="No space left"), whole_folder(folder) as aside:
        (aside / "rows").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert (folder / "rows").read_text() == "old"


def test_a_folder_resumed_in_keeps_what_an_interrupted_run_left(tmp_path: Path):
    folder, parts = tmp_path / "shards", tmp_path / "work" / "parts"
    with pytest.raises(KeyboardInterrupt), whole_folder(folder, resume_in=parts) as aside:
        (aside / "first").touch()
        raise KeyboardInterrupt
    with whole_folder(folder, resume_in=parts) as aside:
        assert (aside / "first").exists()
        (aside / "second").touch()
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]
    assert not parts.exists()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system in /dev/shm")
def test_a_folder_on_another_disk_is_copied_before_it_appears(tmp_path: Path):
    parts = Path("/dev/shm") / f"captioning-test-{os.getpid()}"
    with whole_folder(tmp_path / "shards", resume_in=parts) as aside:
        (aside / "first").write_text("pixels")
    assert (tmp_path / "shards" / "first").read_text() == "pixels"
    assert not parts.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_a_second_writer_is_refused_and_a_killed_one_lets_go(tmp_path: Path):
    folder = tmp_path / "table"
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"writing\n"
        with (
            pytest.raises(ValueError, match=r"is being written by another process.*wait until it has ended"),
            whole_folder(folder),
        ):
            pass
        first.kill()
    with whole_folder(folder) as aside:
        assert list(aside.iterdir()) == []


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "report.json"
    with whole_file(path) as aside:
        aside.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

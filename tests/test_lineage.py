"""What a version says about what made it, and what of it git, this machine and its packages say."""

import importlib.metadata
import json
import subprocess
from pathlib import Path

import pytest
from lineage_samples import DVC_YAML, git, make_project

from captioning import lineage, machine, revision
from captioning.lineage import Lineage

MACHINE = {"cpu": "some processor", "cores": 2, "gpus": [], "not_as_locked": {}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project, with what its stages would leave."""
    folder = make_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    for gate in lineage.VERDICTS:
        (folder / "reports" / gate).mkdir(parents=True)
        (folder / "reports" / gate / "verdict.json").write_text('{"accepted": true}')
    (folder / "reports" / "metrics.json").write_text('{"test": {"bleu_4": 0.25}}')
    (folder / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  make:\n    cmd: make\n    outs:\n"
        "    - {path: data/examples, hash: md5, md5: 12ab.dir}\n    - {path: reports/x, md5: 34cd}\n"
    )
    (folder / "source.json").write_text('{"s3://bucket": {"bytes": 3}}')
    return folder


def write(project: Path) -> Lineage:
    params = {"train": {"seed": 7}}
    return lineage.write(project, params=params, reports=project / "reports", trained_on=[MACHINE])


def test_lineage_states_code_data_settings_verdicts_scores_and_machines(project: Path) -> None:
    made_by = write(project)
    assert json.loads((project / "lineage.json").read_text()) == vars(made_by)
    assert made_by.revision == git(project, "rev-parse", "HEAD")
    assert (made_by.uncommitted, made_by.patch, made_by.seed) == ([], None, 7)
    assert made_by.data == {"data/examples": "12ab.dir"}
    assert made_by.verdicts == {"validation": True, "inspection": True}
    assert made_by.metrics == {"test": {"bleu_4": 0.25}}
    assert made_by.source == {"s3://bucket": {"bytes": 3}}
    assert list(made_by.dvc_lock["stages"]) == ["make"]
    assert made_by.trained_on == [MACHINE]
    assert made_by.registered_on == machine.describe()
    assert made_by.tags == {
        "captioning.examples": "12ab.dir",
        "captioning.seed": "7",
        "captioning.trained_on": "some processor, 2 cores",
    }


def test_uncommitted_files_are_listed_and_code_among_them_becomes_a_patch(
    project: Path, tmp_path: Path
) -> None:
    (project / "stages" / "train.py").write_text("changed\n")
    (project / "stages" / "évaluer les images.py").write_bytes(b"new\0")
    (project / "stages" / "make.py").unlink()
    (project / "notes and secrets.txt").write_text("not code")
    git(project, "add", "stages/train.py")
    before = git(project, "status", "--porcelain"), git(project, "count-objects", "-v")
    made_by = write(project)
    for name in ("lineage.json", "uncommitted.patch"):
        (project / name).replace(tmp_path / name)
    assert made_by.uncommitted_code == ["stages/make.py", "stages/train.py", "stages/évaluer les images.py"]
    assert made_by.uncommitted == ["notes and secrets.txt", *made_by.uncommitted_code]
    assert (git(project, "status", "--porcelain"), git(project, "count-objects", "-v")) == before
    patch = tmp_path / "uncommitted.patch"
    assert b"secrets" not in patch.read_bytes()
    subprocess.run(["git", "clone", "-q", str(project), str(tmp_path / "clone")], check=True)
    git(tmp_path / "clone", "apply", str(patch))
    for path in (project / "stages").iterdir():
        assert (tmp_path / "clone" / "stages" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "clone" / "stages" / "make.py").exists()


def test_in_a_folder_of_a_larger_repository_paths_are_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_project(tmp_path / "whole")
    (whole / "part" / "stages").mkdir(parents=True)
    (whole / "part" / "stages" / "train.py").write_text("new\n")
    (whole / "elsewhere.txt").write_text("no part of it")
    monkeypatch.chdir(whole / "part")
    assert revision.changed() == ["stages/train.py"]
    assert revision.prefix() == Path("part")
    assert b"+++ b/part/stages/train.py" in (revision.patch(["stages/train.py"]) or b"")


def test_a_patch_has_a_bound(project: Path) -> None:
    (project / "stages" / "train.py").write_text("x" * (revision.MOST_PATCH_BYTES + 1))
    made_by = write(project)
    assert (made_by.uncommitted_code, made_by.patch) == (["stages/train.py"], None)
    assert not (project / "uncommitted.patch").exists()


def test_outside_of_git_there_is_neither_revision_nor_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (revision.read(), revision.changed(), revision.prefix(), revision.patch(["x"])) == (None,) * 4


def test_without_dvc_there_is_no_lock(tmp_path: Path) -> None:
    assert lineage.read_lock(tmp_path / "dvc.lock") == {}
    (tmp_path / "dvc.lock").write_text(DVC_YAML)
    assert list(lineage.read_lock(tmp_path / "dvc.lock")["stages"]) == ["make", "train", "evaluate"]


def test_packages_that_are_not_as_locked_are_named_with_both_versions(tmp_path: Path) -> None:
    pinned = {name: importlib.metadata.version(name) for name in ("numpy", "torch", "ruamel.yaml")}
    torch = pinned["torch"].partition("+")[0]  # of which kind, cpu or cu130, a lock does not say
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"numpy==0.1 \\\n    --hash=sha256:12\ntorch=={torch} ; sys_platform == 'linux' \\\n    --hash=sha256:34\n"
        f"Ruamel_YAML=={pinned['ruamel.yaml']}\nno-such-package==2.0\ncolorama==1 ; sys_platform == 'amiga'\n"
    )
    differing = machine.not_as_locked(lock)
    assert differing["numpy"] == ["0.1", pinned["numpy"]]
    assert differing["no-such-package"] == ["2.0", None]
    assert differing["pytest"] == [None, importlib.metadata.version("pytest")]
    assert not {"torch", "ruamel-yaml", "captioning"} & differing.keys()
    assert differing.get("colorama", [None])[0] is None


def test_differences_between_machines_are_said_one_by_one() -> None:
    then = MACHINE | {"torch": "2.12", "not_as_locked": {"numpy": ["2.0", "1.9"], "pip": [None, "23"]}}
    now = MACHINE | {"torch": "2.13", "not_as_locked": {"timm": ["1.0", None], "pip": [None, "23"]}}
    assert machine.differences(then, now) == [
        "torch '2.12' then, '2.13' now",
        "package numpy 1.9 then, as locked now",
        "package timm as locked then, absent now",
    ]
    assert machine.differences(then, then) == []
    assert machine.name_of(MACHINE | {"gpus": ["NVIDIA H200"] * 8}) == "8 x NVIDIA H200"

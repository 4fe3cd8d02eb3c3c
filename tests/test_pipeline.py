"""The whole pipeline as a user runs it, on a few generated scenes: `dvc repro`, then what it leaves behind."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from captioning.champion import check_receipt
from captioning.images import ImageFolder

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

SETTINGS = [
    "download.num_images=60",
    "validate.min_images={train: 40, val: 2, test: 2}",
    "inspect.min_vocabulary_words=20",
    "inspect.max_pixel_distance=60",
    "inspect.max_unknown_share=0.5",
    "train.phases.0.epochs=2",
    "train.encoder.layer=layer1",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `dvc repro` has run once."""
    folder = tmp_path_factory.mktemp("checkout") / "project"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).exists() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    run(folder, "git", "init", "-q")
    run(folder, "captioning", "use", "scenes", *SETTINGS)
    first = run(folder, "dvc", "repro")
    assert first.stdout.count("Running stage") == 9, first.stdout + first.stderr
    return folder


def run(folder: Path, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in {"CAPTIONING_HOME", "PYTEST_CURRENT_TEST"}
    }
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=outside, check=False)
    assert ended.returncode == code, ended.stdout[-4000:] + ended.stderr[-4000:]
    return ended


def picture(project: Path, target: Path) -> Path:
    """Save a test picture of the project as a file of its own."""
    rows = pd.read_parquet(project / "data/clean/images.parquet").set_index("image_id")
    image_id = json.loads((project / "reports/hypotheses.jsonl").open().readline())["image_id"]
    row = rows.loc[image_id]
    target.write_bytes(ImageFolder(project / "data/raw").read(row["archive"], row["member"]))
    return target


def test_a_second_run_does_nothing(project: Path):
    again = run(project, "dvc", "repro")
    assert "Running stage" not in again.stdout
    assert run(project, "dvc", "status", "--json").stdout.strip() == "{}"


def test_nothing_but_the_lock_is_left_for_git_to_see(project: Path):
    run(project, "git", "add", "-A")
    names = run(project, "git", "diff", "--cached", "--name-only").stdout.split()
    assert [name for name in names if name.startswith(("data/", "models/", "reports/", ".work/"))] == []
    assert [name for name in names if name.startswith("mlruns/")] == ["mlruns/README.md"]


def test_every_test_picture_is_scored_once(project: Path):
    metrics = json.loads((project / "reports/metrics.json").read_text())
    rows = [json.loads(line) for line in (project / "reports/hypotheses.jsonl").open()]
    splits = pd.read_parquet(project / "data/splits/images.parquet")
    assert [row["image_id"] for row in rows] == list(splits.loc[splits["split"] == "test", "image_id"])
    assert metrics["num_images"] == len(rows)
    assert metrics["tokenizer"] == "ptb"
    assert set(metrics["test"]) >= {
        "bleu_1",
        "bleu_2",
        "bleu_3",
        "bleu_4",
        "meteor",
        "rouge_l",
        "cider",
        "perplexity",
    }
    assert metrics["intervals_95"]["bleu_4"][0] <= metrics["test"]["bleu_4"]
    assert (
        f" | ptb tokenizer, coco-caption (pycocoevalcap 1.2) | {len(rows)} images, " in metrics["signature"]
    )
    assert metrics["num_captions_without_words"] == 0


def test_the_version_is_registered_and_champion(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAPTIONING_HOME", str(project))
    receipt = json.loads((project / "reports/registration.json").read_text())
    assert receipt["promoted"] is True
    assert check_receipt(project / "reports/registration.json") is None


def test_the_champion_captions_photos_and_a_broken_one_is_one_line(project: Path, tmp_path: Path):
    good = picture(project, tmp_path / "good.png")
    (tmp_path / "broken.jpg").write_bytes(good.read_bytes()[:300])
    photos = ["good.png", "broken.jpg", "missing.png", "good.png"]
    arguments = ["caption", *(str(tmp_path / name) for name in photos), "--top", "2", "--json"]
    ended = run(project, "captioning", *arguments, code=1)
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [Path(row["image"]).name for row in rows] == photos
    assert [row["error"] is None for row in rows] == [True, False, False, True]
    assert rows[0]["captions"] == rows[3]["captions"]
    assert len(rows[0]["captions"]) == 2
    assert rows[0]["captions"][0]["probability"] >= rows[0]["captions"][1]["probability"] > 0
    assert rows[2]["error"] == "No such file or directory"


def test_captions_are_printed_for_people_and_errors_on_stderr(project: Path, tmp_path: Path):
    good = picture(project, tmp_path / "good.png")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    ended = run(project, "captioning", "caption", str(good), str(tmp_path / "page.jpg"), code=1)
    assert ended.stdout.splitlines()[0] == str(good)
    assert len(ended.stdout.splitlines()) == 2
    assert ended.stderr.strip().startswith(f"{tmp_path / 'page.jpg'}: not a picture")


def test_attention_is_drawn_over_the_picture(project: Path, tmp_path: Path):
    good = picture(project, tmp_path / "good.png")
    model = ["--model", "models/captioner"]
    run(project, "captioning", "caption", str(good), *model, "--attention", str(tmp_path / "looks"))
    with Image.open(tmp_path / "looks" / "good.png") as drawn:
        assert drawn.width > 300


def test_the_report_says_captions_scores_and_where_to_look(project: Path):
    text = run(project, "captioning", "report").stdout
    row = json.loads((project / "reports/hypotheses.jsonl").open().readline())
    assert row["hypothesis"] in text
    assert row["references"][4] in text
    assert "bleu_4" in text
    for path in ("reports/figures/", "reports/validation/data_docs/index.html"):
        assert path in text
        assert (project / path).exists()


def test_figures_are_there(project: Path):
    names = {path.name for path in (project / "reports/figures").iterdir()}
    assert {"learning_curves.png", "captions.png", "attention_1.png"} <= names


def test_a_missing_champion_is_refused_with_the_next_step(project: Path):
    ended = run(project, "captioning", "caption", "x.png", "--model", "nobody", code=1)
    assert ended.stderr.startswith("captioning: nobody has no champion at")
    assert "`dvc repro` trains and registers one" in ended.stderr


def test_an_unknown_key_stops_the_pipeline_before_any_work(project: Path):
    params = project / "params.yaml"
    text = params.read_text()
    try:
        params.write_text(text.replace("beam_width: 3", "beam_widht: 3"))
        ended = run(project, "dvc", "repro", code=255)
        assert "unknown key 'evaluate.generation.beam.beam_widht' (value 3)" in ended.stderr
    finally:
        params.write_text(text)


def test_a_refused_gate_stops_before_the_next_stage_and_discards_nothing(project: Path):
    params = project / "params.yaml"
    text = params.read_text()
    try:
        params.write_text(text.replace("min_captions_per_image: 5", "min_captions_per_image: 6"))
        ended = run(project, "dvc", "repro", code=255)
        assert "Running stage 'preprocess'" not in ended.stdout
        assert "min_captions_per_image" in ended.stderr
        assert (project / "reports/validation/data_docs/index.html").exists()
        assert (project / "data/examples/index.json").exists()
        assert (project / "models/captioner/weights.safetensors").exists()
    finally:
        params.write_text(text)
    assert "Running stage 'preprocess'" not in run(project, "dvc", "repro").stdout

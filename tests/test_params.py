from pathlib import Path
from typing import Any

import pytest

from captioning import params
from captioning.recipes import use

ROOT = Path(__file__).parents[1]


@pytest.fixture
def values() -> dict[str, Any]:
    return params.read(ROOT / "params.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's recipes and weights, to write params.yaml in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "weights").mkdir()
    for name in ("imagenet", "none"):
        (tmp_path / "weights" / name).touch()
    return tmp_path


def test_the_projects_params_and_all_recipes_are_valid(values: dict[str, Any]):
    assert set(params.check(values)) == set(params.SECTIONS)
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        params.check(params.read(recipe), recipe)


def test_unknown_missing_and_ill_typed_keys_are_refused_by_name_all_at_once(values: dict[str, Any]):
    values["train"] = values["train"] | {"epoch": 3, "seed": "none"}
    del values["train"]["phases"][0]["batch_size"]
    values["evaluate"]["generation"]["beam_width"] = 0
    with pytest.raises(ValueError) as refusal:
        params.check(values)
    message = str(refusal.value)
    assert "params.yaml: unknown key 'train.epoch' (value 3); known: " in message
    assert "params.yaml: missing keys ['train.phases.0.batch_size']" in message
    assert "params.yaml: train.seed: input should be a valid integer, got 'none'" in message
    refused = (
        "params.yaml: evaluate.generation.beam.beam_width: input should be greater than or equal to 1, got 0"
    )
    assert refused in message


def test_unknown_and_missing_sections_are_refused_by_name(values: dict[str, Any]):
    values["trian"] = values.pop("train")
    with pytest.raises(ValueError, match=r"unknown sections \['trian'\]; known: .*'train'") as refusal:
        params.check(values)
    assert "missing section 'train'" in str(refusal.value)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (
            "train",
            {"decoder": {"name": "adaptiv"}},
            r"no 'adaptiv' in captioning\.decoders; available: .*soft_attention",
        ),
        (
            "train",
            {"decoder": {"name": "soft_attention"}},
            r"train\.decoder: missing keys \['feature_width', 'embedding_width'",
        ),
        (
            "train",
            {"decoder": {"name": "hard_attention", "lambda": 1.0}},
            r"unknown key 'lambda' \(value 1\.0\); known: .*'feature_width', .*'lambda_e', 'lambda_r'",
        ),
        (
            "download",
            {"dataset": "flickr9k"},
            r"no 'flickr9k' in captioning\.datasets; available: .*flickr8k",
        ),
        ("evaluate", {"metrics": ["blue"]}, r"no 'blue' in captioning\.metrics; available: bleu"),
        ("evaluate", {"split": "dev"}, r"no split 'dev'; available: train, val, test"),
    ],
)
def test_unknown_parts_are_refused_with_those_that_exist(
    values: dict[str, Any], section: str, change: dict[str, Any], message: str
):
    values[section] = values[section] | change
    with pytest.raises(ValueError, match=message):
        params.check(values)


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_text("train: {learning_rate: 1e-3, flag: no}\n")
    assert params.read(path) == {"train": {"learning_rate": 0.001, "flag": "no"}}


def test_missing_or_broken_files_are_refused_with_the_next_step(tmp_path: Path):
    with pytest.raises(ValueError, match="does not exist; `captioning use RECIPE` writes one"):
        params.read(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("train: [")
    with pytest.raises(ValueError, match=r"params\.yaml is not valid YAML"):
        params.read(tmp_path / "params.yaml")


def test_a_file_that_passed_is_checked_again_when_it_changes(project: Path, values: dict[str, Any]):
    path = project / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    assert params.load("split", path).policy == "dataset"
    path.write_text(path.read_text().replace("max_hours:", "max_days:", 1))
    with pytest.raises(ValueError, match=r"unknown key 'train\.max_days'"):
        params.load("split", path)


def test_a_recipe_is_written_with_settings_replaced_and_comments_kept(project: Path):
    phase = "train.phases.0"
    use("scenes", [f"{phase}.epochs=3", "evaluate.metrics=[bleu]", f"{phase}.optimizer.learning_rate=5e-4"])
    text = (project / "params.yaml").read_text()
    written = params.read(project / "params.yaml")
    assert written["train"]["phases"][0]["epochs"] == 3
    assert written["evaluate"]["metrics"] == ["bleu"]
    assert written["train"]["phases"][0]["optimizer"]["learning_rate"] == 0.0005
    assert "# any torchvision classification network" in text


def test_a_weights_file_is_put_into_the_weights_folder(project: Path):
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "net.pth").write_bytes(b"weights")
    use("scenes", [f"train.encoder.weights={project / 'elsewhere' / 'net.pth'}"])
    assert params.read(project / "params.yaml")["train"]["encoder"]["weights"] == "net.pth"
    assert (project / "weights" / "net.pth").read_bytes() == b"weights"
    use("scenes", ["train.encoder.weights=net.pth"])
    use("scenes", ["train.encoder.weights=imagenet"])
    assert params.read(project / "params.yaml")["train"]["encoder"]["weights"] == "imagenet"


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("im2text", [], r"no recipe 'im2text' in recipes/; available: .*scenes"),
        ("scenes", ["train.epoch=3"], r"the recipe has no key 'train\.epoch'; keys there: seed, max_hours"),
        ("scenes", ["train.phases.1.epochs=3"], r"no key 'train\.phases\.1\.epochs'; keys there: 0"),
        ("scenes", ["train.seed"], r"'train\.seed' is no setting; expected key=value"),
        (
            "scenes",
            ["train.phases.0.epochs=-1"],
            r"params\.yaml: train\.phases\.0\.epochs: input should be greater than or equal to 1",
        ),
        (
            "scenes",
            ["train.encoder.weights=gone.pth"],
            r"no file 'gone\.pth'; expected a path, or one of imagenet",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_and_params_stay_as_they_were(
    project: Path, recipe: str, settings: list[str], message: str
):
    (project / "params.yaml").write_text("before")
    with pytest.raises(ValueError, match=message):
        use(recipe, settings)
    assert (project / "params.yaml").read_text() == "before"
    assert [path.name for path in project.glob("*.partial")] == []

"""`captioning compare`: runs named in every way, beside each other, and compared only where that means something."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from captioning import cli, store
from captioning.named_runs import read_named_run, read_named_runs
from captioning.reports.comparison_table import compare_runs, markdown, table
from captioning.reports.model_facts import ModelFacts
from captioning.reports.reported_run import ReportedRun, read_run
from captioning.scoring import Scorer

FACTS = ModelFacts(
    fingerprint="f00d",
    encoder="resnet18",
    encoder_weights="none",
    decoder="soft_attention",
    num_encoder_parameters=11_000_000,
    num_decoder_parameters=234_567,
    num_words=50,
    image_height=64,
    image_width=64,
    num_train_images=10,
    num_train_captions=50,
    num_epochs=2,
    num_phases=1,
    kept_epoch=2,
)
REFERENCES = {
    f"image {number}": [f"a {colour} square left of a circle", f"one {colour} square"]
    for number, colour in enumerate(("red", "green", "blue", "black", "white", "yellow"))
}
EXACT = {image_id: own[0] for image_id, own in REFERENCES.items()}
WRONG = dict.fromkeys(REFERENCES, "a red square left of a circle")


def write_run(
    folder: Path,
    hypotheses: dict[str, str],
    *,
    references: dict[str, list[str]] = REFERENCES,
    tokenizer: str = "ptb",
    has_model: bool = True,
) -> Path:
    """Write the reports of a run whose scores are those of its captions, with an interval of BLEU-4."""
    references = {image_id: references[image_id] for image_id in hypotheses}
    (folder / "training").mkdir(parents=True)
    scores, _ = Scorer(references, ["bleu", "rouge_l"]).score(hypotheses)
    bleu = scores["bleu_4"]
    metrics = {
        "test": {name: round(score, 6) for name, score in scores.items()} | {"perplexity": 5.0},
        "intervals_95": {"bleu_4": [bleu - 0.1, bleu + 0.1]},
        "tokenizer": tokenizer,
        "num_images": len(hypotheses),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows = [
        {"image_id": key, "hypothesis": text, "references": references[key]}
        for key, text in hypotheses.items()
    ]
    (folder / "hypotheses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    history = pd.DataFrame(
        {"epoch": [1, 2], "val_loss": [2.0, 1.0], "val_bleu_4": [0.1, bleu], "kept": [0, 1]}
    )
    history.to_csv(folder / "training" / "history.csv", index=False)
    if has_model:
        FACTS.write(folder / "model.json")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of several projects, `<name>/reports`."""
    root = tmp_path_factory.mktemp("projects")
    write_run(root / "wrong" / "reports", WRONG)
    write_run(root / "exact" / "reports", EXACT, has_model=False)
    write_run(root / "fewer" / "reports", dict(list(EXACT.items())[:4]))
    other = REFERENCES | {"image 0": ["something else entirely"]}
    write_run(root / "other references" / "reports", EXACT, references=other)
    write_run(root / "other tokenizer" / "reports", EXACT, tokenizer="none")
    return root


def named(root: Path, *names: str) -> list[ReportedRun]:
    return [read_named_run(str(root / name)) for name in names]


def test_a_table_says_what_each_run_is_and_how_it_differs(folders: Path):
    text = markdown(compare_runs(named(folders, "wrong", "exact")))
    lines = text.splitlines()
    [header] = [line for line in lines if line.startswith("| run | decoder")]
    for name in ("parameters", "epochs", "training", "BLEU-1", "BLEU-4", "ROUGE-L"):
        assert f" {name} |" in header
    assert header.index("BLEU-1") < header.index("BLEU-4") < header.index("ROUGE-L")
    assert "| run | Perplexity |" in text, "what is seldom compared stands in a table of its own"
    assert "| wrong | soft\\_attention | resnet18 | 11,234,567 | 2 | – | 6 |" in text
    assert "| exact | – | – | – | 2 | – | 6 |" in text
    assert "**–**" not in text
    assert "**1.000 (0.900 to 1.100)**" in text, "the best is bold, with its interval"
    assert "## Differences to wrong" in text
    [difference] = [line for line in lines if line.startswith("| exact | +")]
    assert " better (+" in difference
    assert "Not compared" not in text


def test_a_difference_is_the_scores_difference_with_its_interval(folders: Path):
    comparison = compare_runs(named(folders, "wrong", "exact"))
    found = comparison.differences["exact"]
    wrong, exact = comparison.runs
    for name, own in found.items():
        assert own.value == pytest.approx(exact.scores[name] - wrong.scores[name], abs=1e-5)
        assert own.interval[0] <= own.value <= own.interval[1]
    assert set(found) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"}, "perplexity needs the model"
    assert compare_runs([exact, wrong]).differences["wrong"]["bleu_4"].value == -found["bleu_4"].value


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fewer", "fewer is not compared with wrong: two models are compared on the same images, and 2 were"),
        ("other references", "compared by the same references, and 1 images have others"),
        ("other tokenizer", "scored with different tokenizers, none and ptb"),
    ],
)
def test_runs_of_other_tests_are_shown_but_not_compared(name: str, reason: str, folders: Path):
    comparison = compare_runs(named(folders, "wrong", name))
    assert reason in comparison.obstacles[name]
    text = markdown(comparison)
    assert f"| {name} |" in text
    assert "## Not compared" in text
    assert "Differences to" not in text
    assert "**" not in text, "none is the best where they cannot be compared"


def test_a_score_that_other_code_made_has_no_difference(folders: Path, tmp_path: Path):
    stated = write_run(tmp_path / "stated" / "reports", EXACT)
    metrics = json.loads((stated / "metrics.json").read_text())
    metrics["test"]["bleu_4"] = 0.5
    (stated / "metrics.json").write_text(json.dumps(metrics))
    for first in (True, False):
        runs = [*named(folders, "wrong"), read_run(stated, "stated")]
        comparison = compare_runs(runs[::-1] if first else runs)
        [found] = comparison.differences.values()
        assert "bleu_4" not in found
        assert "bleu_3" in found
        text = markdown(comparison)
        assert (
            "- stated: its metrics.json states BLEU-4 0.5, its captions score 1; evaluate it again." in text
        )
        assert "**0.5" not in text and "**1.000**" in text, (
            "what the captions do not bear out is not the best"
        )


def test_a_score_that_the_first_run_lacks_is_checked_too(folders: Path):
    wrong, exact = named(folders, "wrong", "exact")
    first = replace(wrong, name="first", scores={"bleu_1": wrong.scores["bleu_1"]})
    stated = replace(exact, name="stated", scores=exact.scores | {"rouge_l": 1.5})
    comparison = compare_runs([first, wrong, stated])
    assert comparison.differences["stated"].keys() == {"bleu_1"}
    assert "stated: its metrics.json states ROUGE-L 1.5, its captions score 1;" in markdown(comparison)
    assert "**1.500**" not in markdown(comparison)


def test_a_score_of_which_more_is_not_better_is_not_judged(folders: Path):
    wrong, exact = named(folders, "wrong", "exact")
    scores = {"diversity_words": 9.0, "diversity_distinct_1": 0.5}
    runs = [
        replace(wrong, scores=wrong.scores | scores),
        replace(exact, scores=exact.scores | dict.fromkeys(scores, 0.25)),
    ]
    text = markdown(compare_runs(runs))
    assert "| wrong | 0.500 | 9.000 |" in text.replace("**", "")
    assert "**0.500**" in text and "**9.000**" not in text


def test_runs_without_a_score_of_captions_alone_have_a_reason_and_no_empty_section(folders: Path):
    runs = [replace(run, scores={"perplexity": 5.0}) for run in named(folders, "wrong", "exact")]
    text = markdown(compare_runs(runs))
    assert "Differences to" not in text
    assert "exact is not compared with wrong: no score of both is of captions and references alone" in text


def test_one_image_is_shown_and_not_compared(tmp_path: Path):
    first = dict([*WRONG.items()][:1])
    for name, texts in (("one", first), ("other", {"image 0": EXACT["image 0"]})):
        write_run(tmp_path / name / "reports", texts)
    text = markdown(compare_runs(named(tmp_path, "one", "other")))
    assert "both captioned 1; evaluate both on more." in text
    assert "Differences to" not in text and "**" not in text


def test_the_command_writes_table_picture_and_curves(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runs = [str(folders / name) for name in ("wrong", "exact", "fewer")]
    for out in (tmp_path / "first", tmp_path / "second"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["compare", *runs, "--out", str(out)])
        assert ended.value.code == 0
    printed = capsys.readouterr().out
    names = {"comparison.md", "comparison.csv", "comparison.png", "curves.png"}
    assert {path.name for path in (tmp_path / "first").iterdir()} == names
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    assert printed.startswith((tmp_path / "first" / "comparison.md").read_text())
    with (tmp_path / "first" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["wrong", "exact", "fewer"]
    assert [row["num_parameters"] for row in rows] == ["11234567", "", "11234567"]
    assert float(rows[1]["bleu_4_difference_low"]) <= float(rows[1]["bleu_4_difference"])
    assert rows[0]["bleu_4_difference"] == rows[2]["bleu_4_difference"] == ""
    for name in ("comparison.png", "curves.png"):
        with Image.open(tmp_path / "first" / name) as drawn:
            assert drawn.width > 400


def test_one_run_alone_is_a_table_without_differences(folders: Path):
    comparison = compare_runs(named(folders, "wrong"))
    assert comparison.differences == comparison.obstacles == {}
    assert len(table(comparison)) == 1
    assert "Differences" not in markdown(comparison)


def test_a_folder_is_a_project_or_its_reports(folders: Path, tmp_path: Path):
    assert read_named_run(str(folders / "wrong" / "reports")).name == "wrong"
    assert read_named_run(str(folders / "wrong")).name == "wrong"
    with pytest.raises(ValueError, match=r"holds no metrics.json, nor does its folder reports"):
        read_named_run(str(tmp_path))
    with pytest.raises(ValueError, match="wrong is named more than once; name different runs"):
        compare_runs(read_named_runs([str(folders / name) for name in ("wrong", "wrong/reports")]))


def test_folders_of_one_name_are_called_by_as_much_of_their_paths_as_tells_them_apart(
    folders: Path, tmp_path: Path
):
    for place in ("A", "x/A", "y/A"):
        shutil.copytree(folders / "wrong", tmp_path / place)
    both = read_named_runs([str(tmp_path / "A"), str(tmp_path / "x" / "A" / "reports")])
    assert [run.name for run in both] == ["A", "x/A"]
    three = [str(tmp_path / "x" / "A"), str(folders / "exact"), str(tmp_path / "y" / "A")]
    assert [run.name for run in read_named_runs(three)] == ["x/A", "exact", "y/A"]
    compare_runs(both)


def test_reports_that_are_none_are_refused(tmp_path: Path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"does not hold the reports of a run, metrics.json and hypotheses.jsonl"
    ):
        read_named_run(str(tmp_path))


SCORES = {"bleu_4": 0.5}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([1], "metrics.json holds no scores"),
        ({"test": {}, "tokenizer": "ptb", "intervals_95": {}}, "metrics.json holds no scores"),
        ({"test": SCORES}, "or does not name their tokenizer"),
        ({"test": {"bleu_4": float("nan")}, "tokenizer": "ptb"}, "states nan for bleu_4, expected a finite"),
        ({"test": {"bleu_4": True}, "tokenizer": "ptb"}, "states True for bleu_4, expected a finite number"),
        (
            {"test": SCORES, "tokenizer": "ptb", "num_images": 9},
            "metrics.json is of 9 images, hypotheses.jsonl of 6",
        ),
        (
            {"test": SCORES, "tokenizer": "ptb", "intervals_95": {"bleu_4": [1]}},
            "not enough values to unpack",
        ),
    ],
    ids=["list", "none", "tokenizer", "nan", "true", "number", "interval"],
)
def test_damaged_scores_are_refused(written: object, message: str, folders: Path, tmp_path: Path):
    reports = tmp_path / "reports"
    shutil.copytree(folders / "wrong" / "reports", reports)
    (reports / "metrics.json").write_text(json.dumps(written))
    with pytest.raises(
        ValueError, match=rf"reports of a run, .*`dvc repro evaluate` writes them: .*{message}"
    ):
        read_named_run(str(tmp_path))


@pytest.mark.parametrize(
    "written", ["", "epoch,val_loss\n", "val_loss\n1.0\n", "epoch\none\n", "epoch\n\ninf\n"]
)
def test_a_damaged_history_is_refused_before_anything_is_shown(written: str, folders: Path, tmp_path: Path):
    reports = tmp_path / "reports"
    shutil.copytree(folders / "wrong" / "reports", reports)
    (reports / "training" / "history.csv").write_text(written)
    with pytest.raises(
        ValueError, match=r"history.csv is no table of epochs: .*; `dvc repro train` writes it"
    ):
        read_named_run(str(tmp_path))


@pytest.fixture(scope="module")
def records(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """MLflow's records with an evaluated run, two versions of it, and a run without reports."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("CAPTIONING_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = store.client()
        experiment = client.create_experiment("squares", artifact_location=(home / "squares").as_uri())
        run = client.create_run(experiment, run_name="train-f00d")
        client.log_artifacts(run.info.run_id, str(folders / "exact" / "reports"), "reports")
        client.log_param(run.info.run_id, "train.decoder.name", "transformer")
        client.log_metric(run.info.run_id, "training_seconds", 5400.0, step=2)
        scores = json.loads((folders / "exact" / "reports" / "metrics.json").read_text())["test"]
        client.create_registered_model("squares")
        for recorded in (scores, scores | {"bleu_4": 0.1}):
            client.create_model_version(
                "squares",
                run.info.artifact_uri,
                run.info.run_id,
                tags={"captioning.scores": json.dumps(recorded)},
            )
        client.set_registered_model_alias("squares", "champion", "1")
        empty = client.create_run(experiment, run_name="train-beef")
        yield {"run": run.info.run_id, "empty": empty.info.run_id}


def test_a_run_is_found_by_the_beginning_of_its_id_or_its_name(records: dict[str, str]):
    for text in (records["run"], records["run"][:8], "train-f00d"):
        run = read_named_run(text)
        assert run.name == "train-f00d"
        assert (run.decoder, run.encoder, run.num_epochs) == ("transformer", "", 2)
        assert run.training_seconds == 5400
    assert "| 1 h 30 min |" in markdown(compare_runs([run]))


def test_a_registered_version_is_found_by_number_and_alias(records: dict[str, str]):
    assert read_named_run("squares/1").name == "squares/1"
    assert read_named_run("squares@champion").name == "squares/1"
    with pytest.raises(ValueError, match="squares/2 was registered with other scores than its run has now"):
        read_named_run("squares/2")


@pytest.mark.parametrize("text", ["squares/9", "squares@nobody", "nobody/1", "abc", "nothing-like-it"])
def test_what_names_no_run_is_refused_with_the_forms_that_do(text: str, records: dict[str, str]):
    with pytest.raises(ValueError, match=r"expected a folder with reports, a registered version \(NAME/3"):
        read_named_run(text)


def test_a_run_without_reports_and_an_ambiguous_one_are_refused(records: dict[str, str]):
    with pytest.raises(ValueError, match="has no reports: it was not evaluated and registered"):
        read_named_run(records["empty"])
    store.client().create_run("1", run_name="train-beef")
    with pytest.raises(ValueError, match=r"'train-beef' names 2 runs, .* type more letters of one"):
        read_named_run("train-beef")

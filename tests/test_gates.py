"""The gate in front of the costly step on tiny tables that are made here, and the reports of both gates."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from captioning.gates import ValidateSettings, judge_tables, settle
from captioning.gates.reports import refusal

ROOT = Path(__file__).parents[1]
SPLIT_OF = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
IDS = [f"photo-{number}" for number in range(12)]

VALIDATE = ValidateSettings.model_validate(
    {
        "min_images": {"train": 6, "val": 3, "test": 3},
        "min_kept_image_share": 0.9,
        "max_quarantined_caption_share": 0.05,
        "min_captions_per_image": 2,
        "caption_words": {"min": 2, "max": 8},
        "mean_caption_words": {"min": 3, "max": 6},
        "max_flat_image_share": 0.1,
    }
)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder with raw, clean and splits: 12 images of 2 captions, and one that could not be decoded."""
    nothing = dict.fromkeys(("archive", "member", "split", "license"), "")
    captions = {"image_id": np.repeat(IDS, 2), "position": [0, 1] * 12, "caption": "a dog runs on grass"}
    images = nothing | {
        "image_id": IDS,
        "sha256": [f"sha-{name}" for name in IDS],
        "mode": "RGB",
        "num_bytes": 9,
    }
    write = {
        "raw/rows": nothing
        | {
            "image_id": [*IDS, "broken"],
            "url": "",
            "status": "ok",
            "error": "",
            "num_bytes": 9,
            "sha256": "",
        },
        "clean/images": images | {"width": 64, "height": 48, "pixel_mean": 100.0, "pixel_deviation": 50.0},
        "clean/captions": captions,
        "clean/quarantine": {
            "image_id": ["broken"],
            "position": -1,
            "reason": "undecodable",
            "detail": "cut",
        },
        "splits/images": {"image_id": IDS, "split": SPLIT_OF},
    }
    for name, columns in write.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pd.DataFrame(columns).to_parquet(tmp_path / f"{name}.parquet", index=False)
    return tmp_path


def validate(folder: Path) -> None:
    judgement = judge_tables(folder / "raw", folder / "clean", folder / "splits", VALIDATE)
    settle(judgement, folder / "reports")


def set_cell(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a change of the third row."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[2, column] = value
        return table

    return change


TABLE_FAULTS = {
    "two rows of one image": (
        "clean/images",
        set_cell("image_id", "photo-1"),
        "no image id stands twice: not so for 2 of 12 images",
    ),
    "no width": (
        "clean/images",
        set_cell("width", 0),
        "one pixel wide: not so for 1 of 12 images, for example photo-2 (0); expected at least 1",
    ),
    "no height": (
        "clean/images",
        set_cell("height", -1),
        "at least one pixel high: not so for 1 of 12 images, for example photo-2 (-1)",
    ),
    "image in two splits": (
        "splits/images",
        lambda t: pd.concat([t, pd.DataFrame({"image_id": ["photo-3"], "split": ["test"]})]),
        "in exactly one split: not so for 1 of 12 images, for example photo-3 (2); expected 1",
    ),
    "same bytes in two splits": (
        "clean/images",
        set_cell("sha256", "sha-photo-11"),
        "no image's bytes (sha256) are in two splits: not so for 2 of 12 images, for example photo-2 (2), ",
    ),
    "image in no split": (
        "splits/images",
        lambda t: t[t["image_id"] != "photo-0"],
        "exactly one split: not so for 1 of 12 images, for example photo-0 (0)",
    ),
    "unknown split": (
        "splits/images",
        set_cell("split", "dev"),
        "not so for 1 of 12 members, for example photo-2 (dev); expected one of train, val, test",
    ),
    "foreign image in a split": (
        "splits/images",
        set_cell("image_id", "other"),
        "of a split was kept by clean: not so for 1 of 12 members, for example other (0)",
    ),
    "few images": (
        "splits/images",
        lambda t: t.assign(split=["train"] * 8 + ["val"] + ["test"] * 3),
        "the val split has enough images: 1; expected at least 3",
    ),
    "few captions": (
        "clean/captions",
        lambda t: t.drop(index=4),
        "has enough captions: not so for 1 of 12 images, for example photo-2 (1); expected at least 2",
    ),
    "repeated position": (
        "clean/captions",
        set_cell("position", 1),
        "two captions at one position: not so for 2 of 24 captions, for example photo-1#1;",
    ),
    "foreign caption": (
        "clean/captions",
        set_cell("image_id", "other"),
        "belongs to a kept image: not so for 1 of 24 captions, for example other#0 (0)",
    ),
    "empty caption": (
        "clean/captions",
        set_cell("caption", " "),
        "no caption is empty: not so for 1 of 24 captions, for example photo-1#0 (0);",
    ),
    "short caption": (
        "clean/captions",
        set_cell("caption", "dog"),
        "too few words: not so for 1 of 24 captions, for example photo-1#0 (1); expected at least 2",
    ),
    "long caption": (
        "clean/captions",
        set_cell("caption", "dog " * 30),
        "too many words: not so for 1 of 24 captions, for example photo-1#0 (30); expected at most 8",
    ),
    "wordy captions": (
        "clean/captions",
        lambda t: t.assign(caption="a b c d e f g"),
        "usual number of words on average: 7; expected 3 to 6",
    ),
    "quarantined captions": (
        "clean/quarantine",
        lambda t: pd.concat([t, t.assign(position=0), t.assign(position=1)]),
        "few captions were quarantined: 0.07692; expected at most 0.05",
    ),
    "unread images": (
        "raw/rows",
        lambda t: pd.concat([t, t]),
        "raw images could be read and were kept: 0.4615; expected at least 0.9",
    ),
    "lost image": (
        "clean/quarantine",
        lambda t: t.iloc[:0],
        "raw images are kept or quarantined; unaccounted for are: 1; expected 0",
    ),
    "absent column": (
        "clean/images",
        lambda t: t.drop(columns="width"),
        "not so for 1 of 31 columns, for example clean/images.parquet:width (absent instead of integer)",
    ),
    "column of another type": (
        "clean/captions",
        lambda t: t.assign(position=t["position"] / 2),
        "clean/captions.parquet:position (number instead of integer)",
    ),
    "missing value": (
        "clean/captions",
        set_cell("caption", None),
        "not so for 1 of 31 columns, for example clean/captions.parquet:caption (1); expected 0",
    ),
}


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_faulty_tables_are_refused_by_name_value_threshold_and_example(tables: Path, fault: str) -> None:
    name, change, sentence = TABLE_FAULTS[fault]
    change(pd.read_parquet(tables / f"{name}.parquet")).to_parquet(tables / f"{name}.parquet", index=False)
    judgement = judge_tables(tables / "raw", tables / "clean", tables / "splits", VALIDATE)
    assert not judgement.is_accepted
    assert sentence in refusal(judgement, tables)


def test_refusal_names_the_file_to_look_at_the_key_to_change_and_the_report(tables: Path) -> None:
    captions = tables / "clean/captions.parquet"
    set_cell("caption", "dog")(pd.read_parquet(captions)).to_parquet(captions, index=False)
    with pytest.raises(ValueError) as refused:
        validate(tables)
    lines = str(refused.value).splitlines()
    assert lines[0] == "the tables are refused: 1 of 23 expectations do not hold"
    assert lines[2] == f"  next: look at {captions}, or change validate.caption_words.min in params.yaml"
    assert lines[3].startswith(f"Nothing was deleted. Every observed value: {tables}/reports/report.json")
    report = json.loads((tables / "reports/report.json").read_text())
    broken = [entry for entry in report["expectations"] if not entry["holds"]]
    assert [(entry["observed"], entry["expected"], entry["num_unexpected"]) for entry in broken] == [
        ("1 to 5", "at least 2", 1)
    ]
    assert "refused" in (tables / "reports/data_docs/index.html").read_text()


def test_good_tables_are_accepted_in_one_line(tables: Path, capfd: pytest.CaptureFixture[str]) -> None:
    validate(tables)
    assert capfd.readouterr() == ("", "accepted: 23 expectations hold, 0 warnings\n")
    assert (tables / "reports/verdict.json").read_text() == '{\n "accepted": true\n}\n'


def test_warning_is_printed_and_does_not_refuse(tables: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = tables / "clean/images.parquet"
    pd.read_parquet(images).assign(pixel_deviation=0.0).to_parquet(images, index=False)
    validate(tables)
    assert capfd.readouterr().err.splitlines() == [
        "warning: few images are of one flat colour: 1; expected at most 0.1",
        "accepted: 22 expectations hold, 1 warning",
    ]
    assert json.loads((tables / "reports/verdict.json").read_text()) == {"accepted": True}


def test_missing_and_damaged_tables_name_the_stage_that_writes_them(tables: Path) -> None:
    (tables / "splits/images.parquet").unlink()
    with pytest.raises(
        ValueError, match=r"splits/images.parquet does not exist; `dvc repro split` writes it"
    ):
        validate(tables)
    (tables / "clean/captions.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(
        ValueError, match=r"captions.parquet is not a readable table .* `dvc repro --force clean`"
    ):
        validate(tables)


def test_empty_tables_are_refused_not_raised(tables: Path) -> None:
    for name in ("raw/rows", "clean/images", "clean/captions", "clean/quarantine", "splits/images"):
        pd.read_parquet(tables / f"{name}.parquet").iloc[:0].to_parquet(
            tables / f"{name}.parquet", index=False
        )
    with pytest.raises(ValueError, match="the train split has enough images: 0; expected at least 6"):
        validate(tables)


def test_reversed_range_is_refused_by_its_key() -> None:
    with pytest.raises(ValueError, match="min 9 is above max 2; expected min <= max"):
        ValidateSettings.model_validate(VALIDATE.model_dump() | {"caption_words": {"min": 9, "max": 2}})


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_verdict_report_and_pages_have_the_same_bytes_in_another_process(tables: Path) -> None:
    program = (
        "import pathlib, sys; from tests.test_gates import validate; validate(pathlib.Path(sys.argv[1]))"
    )
    validate(tables)
    first = files_in(tables / "reports")
    again = subprocess.run(
        [sys.executable, "-c", program, tables], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (again.stdout, again.stderr) == ("", "accepted: 23 expectations hold, 0 warnings\n")
    assert files_in(tables / "reports") == first
    assert set(first) == {"verdict.json", "report.json"} | {
        f"data_docs/{page}.html" for page in ("index", "columns", "images", "captions", "members", "totals")
    }


def test_pages_load_nothing_and_link_only_to_each_other(tables: Path) -> None:
    validate(tables)
    for page in (tables / "reports/data_docs").iterdir():
        html = page.read_text()
        assert "<script" not in html and "<link" not in html and "url(" not in html and "src=" not in html
        links = {link.split('"')[0] for link in html.split('href="')[1:]}
        assert all(link.startswith("#") or (page.parent / link).is_file() for link in links), links
    assert "values must be unique" in (tables / "reports/data_docs/images.html").read_text()


def test_refused_run_replaces_the_reports_of_an_accepted_one(tables: Path) -> None:
    validate(tables)
    splits = tables / "splits/images.parquet"
    pd.read_parquet(splits).assign(split="train").to_parquet(splits, index=False)
    with pytest.raises(ValueError, match="the test split has enough images: 0"):
        validate(tables)
    assert json.loads((tables / "reports/verdict.json").read_text()) == {"accepted": False}
    assert not (tables / "reports.partial").exists()


def test_great_expectations_leaves_nothing_in_the_home_folder(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    validate(tables)
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_refused_stage_ends_with_code_1_and_its_message_alone(tables: Path) -> None:
    """The project's own params.yaml asks for more images than these tables have."""
    folders = [tables / name for name in ("raw", "clean", "splits", "reports")]
    stage = subprocess.run(
        [sys.executable, "-m", "stages.validate", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert stage.returncode == 1
    assert stage.stderr.startswith("validate: the tables are refused: ")
    assert "the train split has enough images: 6; expected at least" in stage.stderr
    assert "Traceback" not in stage.stderr + stage.stdout
    assert json.loads((tables / "reports/verdict.json").read_text()) == {"accepted": False}

"""The gate in front of the costly step on tiny tables that are made here, and the reports of both gates."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from captioning.gates import NO_CHAMPION, ValidateSettings, judge_tables, settle
from captioning.gates.drift import binned, binned_by_rank, compare, psi
from captioning.gates.reports import refusal
from captioning.gates.table_quantities import quantities
from captioning.gates.table_schema import Files
from captioning.gates.tables import SplitCounts
from captioning.tables import database

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
        "image_side_pixels": {"min": 16, "max": 1000},
        "max_flat_image_share": 0.1,
        "max_foreign_caption_share": 0.05,
        "max_new_word_share": 0.1,
        "max_leaked_image_share": 0.0,
        "min_images_of_source": 6,
        "max_drift": 0.25,
        "severity": {"max_flat_image_share": "warn", "max_drift": "warn"},
    }
)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder with raw, clean and splits: 12 images of 2 captions, and one that could not be decoded."""
    nothing = dict.fromkeys(("archive", "member", "split", "license"), "") | {"source": "photos"}
    captions = {"image_id": np.repeat(IDS, 2), "position": [0, 1] * 12, "caption": "a dog runs on grass"}
    images = nothing | {
        "image_id": IDS,
        "phash": "",
        "twin": "",
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
        "raw/captions": captions,
        "clean/images": images | {"width": 64, "height": 48, "pixel_mean": 100.0, "pixel_deviation": 50.0},
        "clean/captions": captions | {"flag": ""},
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


ACCEPTED = (
    "note: no champion yet, nothing to compare the training data with\n"
    "accepted: 30 expectations hold, 0 warnings\n"
)


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
        "not so for 1 of 12 members, for example photo-2 (dev); expected one of train, val, test, predict",
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
        "two captions at one position: not so for 2 of 24 captions, for example photo-1#1 (2);",
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
    "lost caption": (
        "raw/captions",
        lambda t: pd.concat([t, t.iloc[:2]]),
        "raw captions are kept or quarantined; unaccounted for are: 2; expected 0",
    ),
    "near-duplicates in two splits": (
        "clean/images",
        set_cell("twin", "photo-11"),
        "near-duplicate in another split: 0.1667, for example photo-2, photo-11; expected at most 0",
    ),
    "foreign captions": (
        "clean/captions",
        lambda t: t.assign(flag=["", "foreign-looking"] * 12),
        "look as if in another language: 0.5, for example photo-0#1, photo-1#1, photo-2#1; expected at most 0.05",
    ),
    "words that train never has": (
        "clean/captions",
        lambda t: t.assign(caption=["a dog runs on grass"] * 16 + ["A Cat, a cat runs"] * 8),
        "val and test captions are new to train: 0.2667, for example cat (16); expected at most 0.1",
    ),
    "small image": (
        "clean/images",
        set_cell("height", 15),
        "no image is too small: not so for 1 of 12 images, for example photo-2 (15); expected at least 16",
    ),
    "large image": (
        "clean/images",
        set_cell("width", 1001),
        "no image is too large: not so for 1 of 12 images, for example photo-2 (1,001); expected at most 1,000",
    ),
    "source in one split": (
        "clean/images",
        lambda t: t.assign(source=["photos"] * 6 + ["drawings"] * 6),
        "it lacks: not so for 2 of 2 sources, for example drawings (train), photos (val, test); expected none",
    ),
    "absent column": (
        "clean/images",
        lambda t: t.drop(columns="width"),
        "not so for 1 of 39 columns, for example clean/images.parquet:width (absent instead of integer)",
    ),
    "column of another type": (
        "clean/captions",
        lambda t: t.assign(position=t["position"] / 2),
        "clean/captions.parquet:position (number instead of integer)",
    ),
    "missing value": (
        "clean/captions",
        set_cell("caption", None),
        "not so for 1 of 39 columns, for example clean/captions.parquet:caption (1); expected 0",
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
    assert lines[0] == "the tables are refused: 1 of 30 expectations do not hold"
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
    assert capfd.readouterr() == ("", ACCEPTED)
    assert (tables / "reports/verdict.json").read_text() == '{\n "accepted": true\n}\n'


def test_warning_is_printed_and_does_not_refuse(tables: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = tables / "clean/images.parquet"
    pd.read_parquet(images).assign(pixel_deviation=0.0).to_parquet(images, index=False)
    validate(tables)
    assert capfd.readouterr().err.splitlines() == [
        "note: no champion yet, nothing to compare the training data with",
        "warning: few images are of one flat colour: 1, for example photo-0, photo-1, photo-2; expected at most 0.1",
        "accepted: 29 expectations hold, 1 warning",
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
    for name in (
        "raw/rows",
        "raw/captions",
        "clean/images",
        "clean/captions",
        "clean/quarantine",
        "splits/images",
    ):
        pd.read_parquet(tables / f"{name}.parquet").iloc[:0].to_parquet(
            tables / f"{name}.parquet", index=False
        )
    with pytest.raises(ValueError, match="the train split has enough images: 0; expected at least 6"):
        validate(tables)


def test_reversed_range_is_refused_by_its_key() -> None:
    with pytest.raises(ValueError, match="min 9 is above max 2; expected min <= max"):
        ValidateSettings.model_validate(VALIDATE.model_dump() | {"caption_words": {"min": 9, "max": 2}})


def change_table(folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def test_images_to_predict_need_no_captions_and_leak_nothing(tables: Path) -> None:
    change_table(tables, "splits/images", lambda t: t.assign(split=["predict", *SPLIT_OF[1:]]))
    change_table(tables, "clean/images", lambda t: t.assign(twin=["photo-1", *[""] * 11], sha256="same"))
    for name in ("raw/captions", "clean/captions"):
        change_table(tables, name, lambda t: t[t["image_id"] != "photo-0"])
    settings = VALIDATE.model_copy(update={"min_images": SplitCounts(train=5, val=3, test=3)})
    judgement = judge_tables(tables / "raw", tables / "clean", tables / "splits", settings)
    assert [(finding.rule.column, finding.num_unexpected) for finding in judgement.refusals] == [
        ("num_splits_of_content", 11)
    ]


def test_severity_of_a_threshold_is_chosen_by_its_key(tables: Path) -> None:
    change_table(tables, "clean/captions", set_cell("caption", "dog"))
    settings = VALIDATE.model_copy(update={"severity": {"caption_words": "warn"}})
    judgement = judge_tables(tables / "raw", tables / "clean", tables / "splits", settings)
    assert judgement.is_accepted
    assert [finding.rule.key for finding in judgement.warnings] == ["validate.caption_words.min"]


def test_severity_of_no_threshold_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"\['min_image'\] are no thresholds .*; known: \['caption_words'"):
        ValidateSettings.model_validate(VALIDATE.model_dump() | {"severity": {"min_image": "warn"}})


def test_what_is_judged_is_as_small_for_many_rows_as_for_few(tables: Path) -> None:
    def judged(num_images: int) -> dict[tuple[str, str], tuple[int, int]]:
        ids = [f"image-{number:06d}" for number in range(num_images)]
        splits = (["train"] * 10 + ["val", "test"]) * (num_images // 12)
        images = pd.read_parquet(tables / "clean/images.parquet").iloc[[0] * num_images]
        change_table(tables, "clean/images", lambda _: images.assign(image_id=ids, sha256=ids))
        change_table(tables, "splits/images", lambda _: pd.DataFrame({"image_id": ids, "split": splits}))
        captions = pd.DataFrame({"image_id": np.repeat(ids, 2), "position": [0, 1] * num_images})
        change_table(tables, "clean/captions", lambda _: captions.assign(caption="a dog runs", flag=""))
        with database() as connection:
            found = quantities(
                connection, Files.of(tables / "raw", tables / "clean", tables / "splits"), 6, "words"
            )
        return {key: (len(table.values), sum(map(len, table.examples))) for key, table in found.items()}

    few, many = judged(120), judged(12_000)
    assert few == many
    assert max(max(size) for size in few.values()) <= 9


PROFILE = {
    "num_images": 1000,
    "num_captions": 5000,
    "num_words": 100,
    "caption_words": {str(number): 500 for number in range(5, 15)},
    "image_size": {"70": 1000},
    "brightness": {"20": 500, "30": 500},
    "words": {"a": 40, "dog": 30, "runs": 20, "grass": 10},
}


def test_psi_is_the_sum_worked_out_by_hand() -> None:
    # (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5) = 0.1 * 0.1823216 + 0.1 * 0.2231436
    assert psi([50, 50], [60, 40]) == pytest.approx(0.0405465, abs=1e-7)
    # shares 0.2, 0.3, 0.5 and 0.1, 0.4, 0.5: 0.1 * 0.6931472 + 0.1 * 0.2876821 + 0
    assert psi([20, 30, 50], [100, 400, 500]) == pytest.approx(0.0980829, abs=1e-7)
    assert psi([7, 11, 13], [70, 110, 130]) == 0
    # an empty bin counts as a share of 0.0001: (0.5 - 0.0001) ln(5000) + (0.5 - 1) ln(0.5)
    assert psi([0, 100], [50, 50]) == pytest.approx(0.4999 * 8.5171932 + 0.5 * 0.6931472, abs=1e-6)


def test_bins_hold_a_tenth_of_the_champions_rows_with_one_for_what_lies_below_and_above() -> None:
    expected, observed = binned(dict.fromkeys(range(100), 1), {-5: 3, 0: 1, 9: 1, 10: 2, 99: 1, 100: 4})
    assert expected == [0, *[10] * 10, 0]
    assert observed == [3, 2, 2, *[0] * 7, 1, 4]
    assert binned({70: 8}, {72: 8}) == ([0, 8, 0], [0, 0, 8])  # all images of one size, then of another


def test_words_are_binned_by_their_rank_in_the_champions_captions() -> None:
    now = {"num_words": 200, "words": {"cat": 60, "dog": 50, "a": 80}}  # 10 words are too rare to be named
    before, after = binned_by_rank(PROFILE, now)
    assert before == [40, 30, 20, 10, 0]
    assert after == [80, 50, 0, 0, 70]


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    path = tmp_path / "champion.json"
    path.write_text(json.dumps(PROFILE))
    return path


def test_equal_training_data_have_no_drift(champion: Path) -> None:
    drift = compare(PROFILE, champion, 0.25)
    assert drift.notes == ()
    assert {
        column: table.values.iloc[0, 0] for (_, column), table in drift.quantities.items()
    } == dict.fromkeys(("caption_words_psi", "image_size_psi", "brightness_psi", "vocabulary_psi"), 0)


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"caption_words": {"5": 2500, "6": 2500}}, "caption_words_psi"),
        ({"image_size": {"78": 1000}}, "image_size_psi"),
        ({"brightness": {"20": 950, "30": 50}}, "brightness_psi"),
        ({"words": {"a": 40, "cat": 30, "runs": 20, "grass": 10}}, "vocabulary_psi"),
    ],
)
def test_drift_of_each_kind_is_found_alone(champion: Path, changed: dict, column: str) -> None:
    drift = compare(PROFILE | changed, champion, 0.25)
    assert [key for (_, key), table in drift.quantities.items() if table.values.iloc[0, 0] > 0.25] == [column]


@pytest.mark.parametrize(("severity", "accepted"), [("warn", True), ("refuse", False)])
def test_drift_warns_unless_params_say_that_it_refuses(
    tables: Path, champion: Path, severity: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioning.gates.drift.FEWEST_ROWS", 6)
    settings = VALIDATE.model_copy(update={"severity": {"max_drift": severity}})
    judgement = judge_tables(tables / "raw", tables / "clean", tables / "splits", settings, champion)
    broken = judgement.warnings if accepted else judgement.refusals
    assert judgement.is_accepted is accepted
    assert [finding.rule.key for finding in broken] == ["validate.max_drift"] * 4
    assert "the image sizes are distributed as in the champion's training data (PSI)" in str(broken[1])


def test_by_default_the_champion_changes_the_report_and_not_the_verdict(
    tables: Path, champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioning.gates.drift.FEWEST_ROWS", 6)
    validate(tables)
    without = files_in(tables / "reports")
    settle(
        judge_tables(tables / "raw", tables / "clean", tables / "splits", VALIDATE, champion),
        tables / "reports",
    )
    changed = {name for name, content in files_in(tables / "reports").items() if without[name] != content}
    assert changed == {"report.json", "data_docs/index.html", "data_docs/totals.html"}
    assert json.loads((tables / "reports/report.json").read_text())["num_warnings"] == 4


def test_profile_of_a_run_is_what_later_data_are_compared_with(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioning.gates.drift.FEWEST_ROWS", 6)
    validate(tables)
    profile = tables / "reports/profile.json"
    assert json.loads(profile.read_text()) == {
        "num_images": 6,
        "num_captions": 12,
        "num_words": 60,
        "caption_words": {"5": 12},
        "image_size": {"46": 6},  # 8 log2 of the root of 64 x 48 is 46.3
        "brightness": {"25": 6},
        "words": {"a": 12, "dog": 12, "grass": 12, "on": 12, "runs": 12},
    }
    judgement = judge_tables(tables / "raw", tables / "clean", tables / "splits", VALIDATE, profile)
    drift = [finding.observed for finding in judgement.findings if finding.rule.key == "validate.max_drift"]
    assert drift == [0, 0, 0, 0]


def test_what_cannot_be_compared_is_a_note(tables: Path, champion: Path) -> None:
    assert compare(PROFILE, NO_CHAMPION, 0.25).notes == (
        "no champion yet, nothing to compare the training data with",
    )
    assert (
        compare(PROFILE | {"num_images": 199}, champion, 0.25)
        .notes[0]
        .startswith("drift is not judged: 199 training images")
    )
    champion.unlink()
    assert "the champion carries no profile" in compare(PROFILE, champion, 0.25).notes[0]


def test_damaged_profile_of_the_champion_says_what_to_do(champion: Path) -> None:
    champion.write_text("{")
    with pytest.raises(
        ValueError, match=r"champion.json is not a readable profile .*; register the champion again"
    ):
        compare(PROFILE, champion, 0.25)
    champion.write_text('{"num_images": 500}')
    with pytest.raises(
        ValueError, match=r"champion.json lacks brightness, caption_words, image_size, num_words"
    ):
        compare(PROFILE, champion, 0.25)


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
    assert (again.stdout, again.stderr) == ("", ACCEPTED)
    assert files_in(tables / "reports") == first
    pages = ("index", "columns", "images", "captions", "members", "sources", "totals")
    files = {"verdict.json", "report.json", "profile.json"}
    assert set(first) == files | {f"data_docs/{page}.html" for page in pages}


def test_pages_load_nothing_and_link_only_to_each_other(tables: Path) -> None:
    validate(tables)
    for page in (tables / "reports/data_docs").iterdir():
        html = page.read_text()
        assert "<script" not in html and "<link" not in html and "url(" not in html and "src=" not in html
        links = {link.split('"')[0] for link in html.split('href="')[1:]}
        assert all(link.startswith("#") or (page.parent / link).is_file() for link in links), links
    assert "values must be greater than or equal to" in (tables / "reports/data_docs/images.html").read_text()


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
def test_refused_stage_ends_with_code_1_and_its_message_alone(tables: Path, tmp_path: Path) -> None:
    """The project's own params.yaml asks for more images than these tables have."""
    folders = [tables / name for name in ("raw", "clean", "splits", "reports")]
    stage = subprocess.run(
        [sys.executable, "-m", "stages.validate", *folders],
        cwd=ROOT,
        env=os.environ | {"CAPTIONING_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert stage.returncode == 1
    note, refused = stage.stderr.split("\n", 1)
    assert note == "note: no champion yet, nothing to compare the training data with"
    assert refused.startswith("validate: the tables are refused: ")
    assert "the train split has enough images: 6; expected at least" in stage.stderr
    assert "Traceback" not in stage.stderr + stage.stdout
    assert json.loads((tables / "reports/verdict.json").read_text()) == {"accepted": False}

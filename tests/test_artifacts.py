"""What is seen of a run: a page a stage, the graph, progress, thumbnails, and the reports behind the links."""

import base64
import io
import json
import os
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import report_samples
from PIL import Image

from flows import artifacts, live, pages
from flows.stage_graph import Stage
from flows.stage_run import StageRun
from flows.thumbnails import MAX_SIDE_PIXELS, read_pictures, smaller


def make_stage(name: str = "only", upstream: tuple[str, ...] = (), outs: tuple[Path, ...] = ()) -> Stage:
    return Stage(
        name=name,
        desc="Does it",
        upstream=upstream,
        outs=outs,
        metrics=tuple(out for out in outs if out.name == "scores.json"),
        retries=0,
        retry_delay_seconds=0.0,
        timeout_seconds=None,
    )


def ended(outcome: str, seconds: float = 1.25) -> StageRun:
    return StageRun(outcome=outcome, has_begun=True, seconds=seconds, last_lines=("the reason",))


def page(folder: Path, **files: Any) -> str:
    outs = [folder / name.replace("__", ".") for name in files]
    for out, content in zip(outs, files.values(), strict=True):
        rows = content if isinstance(content, list) else [content]
        out.write_text("\n".join(json.dumps(row) for row in rows))
    return artifacts.stage_markdown(make_stage(outs=tuple(outs)), ended("failed"))


def test_a_page_says_how_the_run_ended(tmp_path: Path) -> None:
    assert page(tmp_path) == "**failed** in 1.2 s\n\nDoes it\n\n### Its last lines\n\n```\nthe reason\n```"


def test_a_page_has_the_metrics_of_dvc_yaml_as_a_table(tmp_path: Path) -> None:
    text = page(tmp_path, scores__json={"test": {"bleu_4": 0.25}, "tokenizer": "ptb"}, other__json={"a": 1})
    assert "| test.bleu_4 | 0.2500 |\n| tokenizer | ptb |" in text
    assert "other.json" not in text


@pytest.mark.parametrize(("accepted", "word"), [(True, "\naccepted"), (False, "**refused**")])
def test_a_page_has_the_verdict_of_a_gate(tmp_path: Path, accepted: bool, word: str) -> None:
    assert word in page(tmp_path, verdict__json={"accepted": accepted})


def test_a_page_has_the_expectations_that_do_not_hold(tmp_path: Path) -> None:
    row = {
        "claim": "every caption has words",
        "severity": "refusal",
        "observed": 0.5,
        "expected": "0.9 or more",
    }
    report = {"expectations": [{**row, "holds": False}, {**row, "claim": "another", "holds": True}]}
    text = page(tmp_path, report__json=report)
    assert "| refusal | every caption has words | 0.5 | 0.9 or more |" in text
    assert "another" not in text
    report["expectations"] = report["expectations"][1:]
    assert "all 1 expectations hold" in page(tmp_path, report__json=report)


def test_a_page_has_the_first_captions_in_cells_that_cannot_break_the_table(tmp_path: Path) -> None:
    rows = [{"image_id": f"i{n}", "hypothesis": "a | b\nc", "references": ["a dog"]} for n in range(30)]
    text = page(tmp_path, hypotheses__jsonl=rows)
    assert "| i0 | a \\| b c | a dog |" in text
    assert text.count("a dog") == artifacts.NUM_SAMPLE_CAPTIONS


def test_a_page_has_the_receipt_of_the_registry(tmp_path: Path) -> None:
    assert "| version | 3 |" in page(tmp_path, registration__json={"model_name": "captioner", "version": "3"})


@pytest.mark.parametrize(
    ("name", "key"), [("train", "train"), ("sub/dvc.yaml:My_stage@a", "sub-dvc-yaml-my-stage-a")]
)
def test_a_key_has_only_letters_that_prefect_allows(name: str, key: str) -> None:
    assert artifacts.artifact_key(name) == key


# the registry's decision


RECEIPT = {
    "model_name": "captioner",
    "version": "4",
    "metric": "bleu_4",
    "champion_before": "3",
    "decision": "not-better",
    "reason": "Version 4 is not promoted, version 3 stays.",
    "reasons": ["That it is better may be chance.", "cider is 0.4000, below the 0.5 of register.floors."],
    "scores": {"bleu_4": 0.31, "cider": 0.4},
    "champion_scores": {"bleu_4": 0.3},
    "gain": 0.01,
    "gain_interval": [-0.005, 0.025],
}


def test_a_page_has_the_decision_its_reasons_and_the_scores_beside_the_champions(tmp_path: Path) -> None:
    text = page(tmp_path, registration__json=RECEIPT)
    assert "**not-better**: Version 4 is not promoted, version 3 stays." in text
    assert "\n- That it is better may be chance.\n- cider is 0.4000, below" in text
    assert "| score | version 4 | champion, version 3 |" in text
    assert "| bleu_4 | 0.3100 | 0.3000 |\n| cider | 0.4000 |  |" in text
    assert "Gain in bleu_4: **+0.0100**, 95 % interval -0.0050 to +0.0250" in text


def test_a_first_version_has_no_champion_beside_it(tmp_path: Path) -> None:
    alone = RECEIPT | {
        "champion_before": None,
        "champion_scores": None,
        "gain": None,
        "gain_interval": None,
        "reasons": [],
    }
    text = page(tmp_path, registration__json=alone)
    assert "| score | version 4 |\n" in text
    assert "Gain" not in text


# thumbnails


@pytest.fixture(scope="module")
def evaluation(tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that the evaluate stage writes."""
    folder = tmp_path_factory.mktemp("evaluation")
    report_samples.make(tiny_examples.parent, folder)
    return folder / "evaluation.html"


def test_every_picture_of_an_evaluation_is_found_with_its_caption(evaluation: Path) -> None:
    pictures = read_pictures(evaluation)
    assert {picture.band for picture in pictures} == {"Best", "Median", "Worst"}
    assert all(picture.score.startswith("ROUGE-L ") for picture in pictures)
    assert all(len(picture.references) == 2 for picture in pictures)
    captions = [picture.caption for picture in pictures]
    assert " ".join(report_samples.HOSTILE.split()) in captions


def test_a_thumbnail_is_a_small_jpeg(evaluation: Path) -> None:
    wide = io.BytesIO()
    Image.new("RGB", (800, 400), "red").save(wide, "JPEG")
    uri = smaller(f"data:image/jpeg;base64,{base64.b64encode(wide.getvalue()).decode()}")
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))) as small:
        assert (small.format, small.size) == ("JPEG", (MAX_SIDE_PIXELS, MAX_SIDE_PIXELS // 2))


def test_captions_beside_thumbnails_mean_nothing_to_markdown(evaluation: Path) -> None:
    text = artifacts.pictures_markdown(evaluation)
    assert text.count("](data:image/jpeg;base64,") == len(read_pictures(evaluation))
    assert "<script>" not in text
    assert "a\\|pipe \\`tick\\`" in text


# the graph


def test_the_graph_shows_each_stage_how_it_ended_and_what_it_directly_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(live.Live, "show", lambda _, data, said: shown.append(data))
    stages = [make_stage("a"), make_stage("b", ("a",)), make_stage("c", ("a", "b")), make_stage("d", ("c",))]
    graph = live.Graph(stages)
    graph.ended("a", ended("ran", seconds=75))
    assert shown == [graph.markdown()]
    graph.begins("b")
    text = graph.markdown()
    assert 's0["a<br/>ran 0:01:15"]:::ran' in text
    assert 's1["b<br/>running"]:::running' in text
    assert 's2["c<br/>waiting"]:::waiting' in text
    assert [line.strip() for line in text.splitlines() if "-->" in line] == [
        "s0 --> s1",
        "s1 --> s2",
        "s2 --> s3",
    ]
    assert "| a | ran | 0:01:15 | Does it |\n| b | running |  | Does it |" in text


# reports behind the links


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Outputs of a gate, relative to the project as dvc.yaml names them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "home"))
    docs = Path("reports/data_docs")
    docs.mkdir(parents=True)
    (docs / "index.html").write_text("first")
    (docs / "style.css").write_text("body {}")
    verdict = Path("reports/verdict.json")
    verdict.write_text('{"accepted": true}')
    return docs, verdict


def test_a_link_is_served_and_shows_what_its_own_run_wrote(written: tuple[Path, Path]) -> None:
    docs, _ = written
    with pages.served():
        (address,) = pages.keep(written, "first run").values()
        (docs / "index.html").unlink()
        (docs / "index.html").write_text("second")
        (later,) = pages.keep(written, "second run").values()
        for url, content in ((address, "first"), (later, "second")):
            with urlopen(url, timeout=30) as answer:
                assert answer.read().decode() == content
        with urlopen(address.replace("index.html", "style.css"), timeout=30) as answer:
            assert answer.read() == b"body {}"
    assert pages.URL_VARIABLE not in os.environ


def test_without_a_server_a_link_is_a_path(written: tuple[Path, Path], tmp_path: Path) -> None:
    stage = make_stage(outs=written)
    text = artifacts.stage_markdown(stage, ended("ran"), pages.keep(written, "run"))
    assert f"reports/data_docs: `{tmp_path}/home/.work/pages/run/reports/data_docs/index.html`" in text


def test_with_an_address_of_pages_a_link_leads_there(
    written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_PAGES_URL", "https://reports.example/captioning/")
    stage = make_stage(outs=written)
    text = artifacts.stage_markdown(stage, ended("ran"), pages.keep(written, "a run"))
    link = "https://reports.example/captioning/a%20run/reports/data_docs/index.html"
    assert f"[reports/data_docs]({link})" in text


def test_what_lies_outside_of_the_project_is_left_where_it_is(
    written: tuple[Path, Path], tmp_path: Path
) -> None:
    outs = [tmp_path / "reports" / "data_docs", Path("../outside.html")]
    (tmp_path.parent / "outside.html").write_text("outside")
    kept = pages.keep(outs, "run")
    assert [Path(address).exists() for address in kept.values()] == [True, True]
    assert not (tmp_path / "home" / ".work" / "pages" / "run").exists()


def test_only_the_latest_runs_are_kept(
    written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pages, "NUM_RUNS_KEPT", 2)
    folder = tmp_path / "home" / ".work" / "pages"
    for number in range(4):
        pages.keep(written, f"run {number}")
        os.utime(folder / f"run {number}", (number, number))
    assert {run.name for run in folder.iterdir()} == {"run 2", "run 3"}


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("epoch 1: 27 of 188 batches, 2.6/s, 61 s left", 14.36),
        ("clean: 1,200 of 4,800 images, 60/s, 60 s left", 25.0),
        ("epoch 1: loss 2.5, val bleu_4 0.2 of 1", None),
        ("27 of 188", None),
    ],
)
def test_a_line_that_says_how_far_a_stage_is_is_shown(
    line: str, percent: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[float, str]] = []
    monkeypatch.setattr(live.Live, "show", lambda _, data, said: shown.append((data, said)))
    progress = live.Progress("train-progress")
    progress.read(line)
    progress.read(line)  # at once: too soon
    assert shown == ([] if percent is None else [(pytest.approx(percent, abs=0.01), line)])

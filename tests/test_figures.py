import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from captioning.figures import (
    ScoredRun,
    attention_panels,
    attention_sheet,
    best_median_worst,
    contact_sheet,
    curves_of_runs,
    kept_epoch,
    learning_curve,
    learning_curves,
    panels_of,
    score_dots,
    selecting_score,
    wrap,
)
from captioning.figures.drawing import saved_figure

Row = tuple[np.ndarray, str, list[str], float]


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[Row]:
    folder = shared / "data" / "flickr8k"
    images = json.loads((folder / "dataset_flickr8k.json").read_text())["images"]
    test = [image for image in images if image["split"] == "test"][:20]
    with zipfile.ZipFile(folder / "Flickr8k_Dataset.zip") as archive:
        photographs = [
            np.asarray(
                Image.open(io.BytesIO(archive.read(f"Flicker8k_Dataset/{image['filename']}"))).convert("RGB")
            )
            for image in test
        ]
    references = [[sentence["raw"] for sentence in image["sentences"]] for image in test]
    return [
        (photograph, texts[-1].lower(), texts[:4], position * 7 % 20 / 10)
        for position, (photograph, texts) in enumerate(zip(photographs, references, strict=True))
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Collect the figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def collect(figure: Figure, *arguments: object, **keywords: object) -> None:
        saved.append(figure)
        save(figure, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", collect)
    yield saved


def history(*bleu: float) -> pd.DataFrame:
    epochs = np.arange(1, len(bleu) + 1)
    scores = {"train_loss": 4 / epochs, "val_loss": 3 / epochs + 1, "val_bleu_4": bleu}
    return pd.DataFrame({"epoch": epochs, **scores, "kept": epochs == 1 + np.nanargmax(bleu)})


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes(figure: Figure) -> dict[str, Bbox]:
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    places = {
        f"{i} {text.get_text()}": text.get_window_extent(renderer) for i, text in enumerate(figure.texts)
    }
    return places | {f"image {i}": image.get_window_extent(renderer) for i, image in enumerate(figure.images)}


def assert_nothing_overlaps_or_leaves_the_page(figure: Figure) -> None:
    places = list(boxes(figure).items())
    for i, (name, box) in enumerate(places):
        assert box.x0 >= 0 <= box.y0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, name
        for other, box_of_other in places[:i]:
            across = min(box.x1, box_of_other.x1) - max(box.x0, box_of_other.x0)
            down = min(box.y1, box_of_other.y1) - max(box.y0, box_of_other.y0)
            # An extent reaches a little above its letters; less than two dots of it are never ink.
            assert min(across, down) < 2, f"{name!r} overlaps {other!r}"


def test_same_input_gives_the_same_bytes_whatever_matplotlibs_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    captions = [(noise(50, 70, seed), "a dog", ["a dog runs"], seed / 3) for seed in range(4)]

    def draw(folder: Path) -> list[bytes]:
        folder.mkdir()
        learning_curves(history(0.1, 0.2, 0.15), folder / "curves.png")
        contact_sheet(captions, folder / "sheet.png")
        attention_sheet(noise(40, 40), ["a", "dog"], np.full((2, 4), 0.25), (2, 2), folder / "attention.png")
        assert len(list(folder.iterdir())) == 3, "something was left beside the figures"
        return [path.read_bytes() for path in sorted(folder.iterdir())]

    first = draw(tmp_path / "first")
    with matplotlib.rc_context({"font.size": 20, "figure.facecolor": "black", "savefig.dpi": 30}):
        second = draw(tmp_path / "second")
        assert matplotlib.rcParams["font.size"] == 20, "the user's settings were changed"
    assert first == second
    assert all(b"Software" not in png and b"tIME" not in png for png in first)


def test_the_kept_epoch_is_marked(tmp_path: Path, drawn: list[Figure]) -> None:
    learning_curves(history(0.1, 0.2, 0.2, 0.15), tmp_path / "curves.png")
    losses, bleu = drawn[0].axes
    assert [text.get_text() for text in bleu.texts] == ["0.200 at epoch 2, kept"]
    assert list(np.asarray(losses.lines[-1].get_xdata())) == [2, 2]


@pytest.mark.parametrize("bleu", [[0.0], [0.0, 0.0], [float("nan"), 0.1], list(np.linspace(0, 0.3, 50))])
def test_curves_can_be_short_flat_or_long(bleu: list[float], tmp_path: Path, drawn: list[Figure]) -> None:
    learning_curves(history(*bleu), tmp_path / "curves.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels() if label.get_visible()]
    assert labels and not any("." in label for label in labels), "an epoch is a whole number"


def test_the_score_that_selected_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    both = history(0.1, 0.3, 0.2).assign(val_cider=[0.5, 0.6, 0.7])
    assert selecting_score(both) == "val_bleu_4"
    assert selecting_score(both.assign(kept=[0, 0, 1])) == "val_cider"
    assert selecting_score(both.drop(columns="kept")) == "val_bleu_4"
    without = both.assign(kept=[0, 0, 1]).drop(columns="val_bleu_4")
    learning_curves(without, tmp_path / "cider.png")
    _, scores = drawn[0].axes
    assert scores.get_title(loc="left") == "CIDEr of decoded val captions"
    assert [text.get_text() for text in scores.texts] == ["0.700 at epoch 3, kept"]


def test_the_score_that_selected_may_be_one_of_which_less_is_better() -> None:
    both = history(0.1, 0.2, 0.3).drop(columns="val_bleu_4")
    distances = both.assign(val_levenshtein=[9.0, 3.0, 5.0], val_exact_match=[0.0, 0.1, 0.2], kept=[0, 1, 0])
    assert selecting_score(distances) == "val_levenshtein"


def test_infinite_values_are_left_out(tmp_path: Path, drawn: list[Figure]) -> None:
    learning_curves(history(np.inf, 0.2, 0.1).assign(val_loss=[np.inf, 2.0, 1.0]), tmp_path / "kept.png")
    _, scores = drawn[0].axes
    assert scores.get_ylim() == (0, pytest.approx(1.15 * 0.2))
    nothing = history(np.inf, -np.inf).assign(val_loss=np.inf)
    assert panels_of(nothing) == ["loss"]
    learning_curves(nothing, tmp_path / "nothing.png")
    curves_of_runs({"a": nothing, "b": history(0.1, np.inf)}, tmp_path / "runs.png")
    assert len(drawn) == 3


def test_a_history_without_decoded_captions_or_losses_still_has_its_curves(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    whole = history(0.1, 0.2)
    assert panels_of(whole.drop(columns="val_bleu_4")) == ["loss"]
    assert panels_of(whole.drop(columns=["train_loss", "val_loss"])) == ["val_bleu_4"]
    assert panels_of(whole[["epoch"]]) == ["loss"]
    for number, columns in enumerate((["epoch"], ["epoch", "val_loss"], ["epoch", "kept", "train_loss"])):
        learning_curves(whole[columns], tmp_path / f"{number}.png")
    assert [len(figure.axes) for figure in drawn] == [1, 1, 1]
    assert kept_epoch(whole[["epoch"]]) is None


def test_a_phase_begins_at_a_line_and_rewarded_epochs_have_no_train_loss(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    two = history(0.1, 0.2, 0.3).assign(phase=[1, 1, 2], train_loss=[3.0, 2.0, np.nan])
    learning_curves(two, tmp_path / "curves.png")
    for axes in drawn[0].axes:
        assert "phase 2" in [text.get_text() for text in axes.texts]
        assert [2.5, 2.5] in [list(np.asarray(line.get_xdata())) for line in axes.lines]


def test_a_curve_alone_is_the_same_svg_each_time() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    learning_curve(history(0.1, 0.2), "loss", first)
    learning_curve(history(0.1, 0.2), "loss", second)
    assert first.getvalue() == second.getvalue()
    assert first.getvalue().startswith(b"<?xml")
    assert b"<dc:date>" not in first.getvalue() and b"Matplotlib" not in first.getvalue()


def test_runs_are_laid_over_each_other_by_name(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = {"soft": history(0.1, 0.2, 0.15), "a very long name of a run" * 2: history(0.3)}
    assert curves_of_runs(runs, tmp_path / "first.png") == "val_bleu_4"
    curves_of_runs(runs, tmp_path / "second.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == list(runs)
    _, scores = drawn[0].axes
    assert [line.get_label() for line in scores.lines][::2] == list(runs)
    box = drawn[0].legends[0].get_window_extent()
    assert all(box.y1 <= axes.get_window_extent().y0 for axes in drawn[0].axes), "the legend covers a curve"


def test_many_runs_differ_in_colour_or_line(tmp_path: Path, drawn: list[Figure]) -> None:
    curves_of_runs({f"run {number}": history(0.1, 0.2) for number in range(16)}, tmp_path / "many.png")
    lines = [line for line in drawn[0].axes[0].lines if len(np.asarray(line.get_xdata())) == 2]
    assert len({(line.get_color(), str(line.get_linestyle())) for line in lines}) > 7
    assert len(lines) == 16


def test_runs_without_a_common_score_show_their_losses(tmp_path: Path, drawn: list[Figure]) -> None:
    other = history(0.1, 0.2).rename(columns={"val_bleu_4": "val_cider"})
    assert curves_of_runs({"a": history(0.1, 0.2), "b": other}, tmp_path / "curves.png") is None
    assert len(drawn[0].axes) == 1


def test_scores_of_runs_stand_under_each_other_with_intervals(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = [
        ScoredRun("soft", "soft_attention, resnet18", {"bleu_4": 0.2, "cider": 1.0}, {"bleu_4": (0.1, 0.3)}),
        ScoredRun("W" * 80, "W" * 80, {"bleu_4": 0.3}, {}),
    ]
    score_dots(runs, ["bleu_4", "cider"], tmp_path / "first.png")
    score_dots(runs, ["bleu_4", "cider"], tmp_path / "second.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    bleu, cider = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in (bleu, cider)] == ["BLEU-4", "CIDEr"]
    assert [text.get_text() for text in bleu.texts] == ["0.200", "0.300"]
    assert [text.get_text() for text in cider.texts] == ["1.000"]
    assert [0.1, 0.3] in [list(np.asarray(line.get_xdata())) for line in bleu.lines]
    assert_nothing_overlaps_or_leaves_the_page(drawn[0])


def test_contact_sheet_shows_the_best_the_median_and_the_worst(
    rows: list[Row], tmp_path: Path, drawn: list[Figure]
) -> None:
    contact_sheet(rows, tmp_path / "sheet.png", score_name="CIDEr")
    texts = [text.get_text() for text in drawn[0].texts]
    scores = ["1.90", "1.80", "1.70", "1.60", "1.10", "1.00", "0.90", "0.80", "0.30", "0.20", "0.10", "0.00"]
    assert [text for text in texts if text.startswith("CIDEr")] == [f"CIDEr {score}" for score in scores]
    assert [text for text in texts if text in {"Best", "Median", "Worst"}] == ["Best", "Median", "Worst"]
    assert len(drawn[0].images) == 12
    assert_nothing_overlaps_or_leaves_the_page(drawn[0])


def test_where_less_is_better_the_least_is_best(tmp_path: Path, drawn: list[Figure]) -> None:
    captions = [(noise(20, 20), f"caption {score}", ["a dog"], float(score)) for score in range(6)]
    contact_sheet(captions, tmp_path / "sheet.png", score_name="levenshtein", higher_is_better=False)
    texts = [text.get_text() for text in drawn[0].texts if text.get_text().startswith("caption")]
    assert texts == [f"caption {score}" for score in range(6)]


def test_sheet_of_the_shown_pictures_is_the_sheet_of_all(rows: list[Row], tmp_path: Path) -> None:
    shown = [rows[position] for band in best_median_worst([row[3] for row in rows]) for position in band]
    contact_sheet(rows, tmp_path / "all.png")
    contact_sheet(shown, tmp_path / "shown.png")
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "shown.png").read_bytes()


@pytest.mark.parametrize("num_scores", range(1, 16))
def test_no_position_is_chosen_twice_and_the_best_are_first(num_scores: int) -> None:
    scores = [float(position % 4) for position in range(num_scores)]
    best, median, worst = best_median_worst(scores)
    chosen = best + median + worst
    assert len(set(chosen)) == len(chosen) >= min(num_scores, 3)
    assert [scores[position] for position in chosen] == sorted((scores[i] for i in chosen), reverse=True)
    assert max(scores) == scores[best[0]]
    assert num_scores == 1 or min(scores) == scores[worst[-1]]


def test_text_of_any_length_and_script_never_overlaps(tmp_path: Path, drawn: list[Figure]) -> None:
    texts = [
        "",
        "W" * 300,
        "a " * 500,
        "cost $5 and $6",
        "日本 😀 né",
        "word " * 12 + "W" * 50,
        "x\ny\tz",
    ] * 2
    sizes = [(30, 300), (300, 30), (1, 1), (640, 480), (1, 200)]
    captions = [
        (
            noise(*sizes[position % 5]),
            texts[position],
            [texts[-position], texts[position]] * 2,
            float(position),
        )
        for position in range(12)
    ]
    contact_sheet(captions, tmp_path / "sheet.png", score_name="a very long name of a score that has no end")
    assert_nothing_overlaps_or_leaves_the_page(drawn[0])
    assert any(text.get_text() == "cost $5 and $6" for text in drawn[0].texts)
    assert not any(text.get_parse_math() for text in drawn[0].texts), "$ must be a dollar, not a formula"
    assert any(text.get_text() == "(no words)" for text in drawn[0].texts)


def test_wrapped_lines_fit_and_lose_nothing_that_fits() -> None:
    caption = "a man in a red shirt rides a brown horse along the beach at sunset"
    lines = wrap(caption, 2.0, size=10, max_lines=9)
    assert " ".join(lines) == caption
    assert len(lines) > 1
    shortened = wrap(caption, 2.0, size=10, max_lines=2)
    assert len(shortened) == 2
    assert shortened[0] == lines[0]
    assert shortened[1].endswith("…")
    assert caption.startswith(" ".join(shortened).removesuffix("…"))
    assert wrap(" \n", 2.0, size=10, max_lines=2) == []


def test_a_panel_is_drawn_for_each_word(rows: list[Row], tmp_path: Path, drawn: list[Figure]) -> None:
    words = ["a", "dog", "jumps", "over", "extraordinarilyandunbelievablylong", "<unk>", "$x$"]
    attention_sheet(rows[0][0], words, np.full((len(words), 6), 1 / 6), (2, 3), tmp_path / "attention.png")
    attention_sheet(rows[0][0], [], np.array([]), (2, 3), tmp_path / "none.png")
    texts = [text.get_text() for text in drawn[0].texts]
    assert texts[:4] == words[:4]
    assert texts[4].endswith("…")
    assert texts[5:7] == words[5:]
    assert texts[-1] == "67 %", "an even share of six cells is a quarter of full colour"
    assert len(drawn[0].images) == 1 + len(words) + 1  # the picture, the words, the scale
    assert len(drawn[1].images) == 1
    for figure in drawn:
        assert_nothing_overlaps_or_leaves_the_page(figure)


def test_colour_lies_where_the_weight_is(tmp_path: Path, drawn: list[Figure]) -> None:
    weights = np.zeros((1, 8))
    weights[0, 6] = 1  # of two rows by four columns: second row, third column
    attention_sheet(np.full((20, 40, 3), 128, np.uint8), ["dog"], weights, (2, 4), tmp_path / "attention.png")
    panel = np.asarray(drawn[0].images[1].get_array()).astype(int)
    colour = panel[..., 0] - panel[..., 2]
    height, width = colour.shape
    row, column = np.unravel_index(colour.argmax(), colour.shape)
    assert row >= height / 2
    assert width / 2 <= column < width * 3 / 4
    assert colour[:, : width // 3].max() < 10
    assert colour.max() > 150


def test_a_panel_says_where_the_strongest_cell_is_and_what_went_elsewhere() -> None:
    weights = np.array([[0.1, 0.1, 0.1, 0.1, 0.1, 0.3], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    panels, full = attention_panels(noise(20, 30), ["of", "dog"], weights, (2, 3), width=60)
    assert full == pytest.approx(4 / 6)
    assert attention_panels(noise(20, 30), ["dog"], np.eye(1, 6), (2, 3), width=60)[1] == 1
    assert [panel.strongest for panel in panels] == [(1, 2), (0, 0)]
    assert [panel.looked_away for panel in panels] == pytest.approx([0.2, 0.0], abs=1e-6)
    assert all(panel.pixels.shape == (40, 60, 3) for panel in panels)


def test_even_attention_is_pale_and_focused_attention_strong() -> None:
    grey = np.full((32, 32, 3), 128, np.uint8)
    weights = np.full((2, 64), 1 / 64)
    weights[1] = np.eye(1, 64, 9)
    (even, focused), _ = attention_panels(grey, ["of", "dog"], weights, (8, 8), width=64)
    colour = [int(np.ptp(panel.pixels.astype(int), axis=2).max()) for panel in (even, focused)]
    assert colour[0] < 60
    assert colour[1] > 150


def test_weights_of_another_grid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match=r"weights are 2 x 5, expected 2 words x 4 cells of the grid \(2, 2\)"
    ):
        attention_sheet(noise(8, 8), ["a", "b"], np.ones((2, 5)), (2, 2), tmp_path / "attention.png")


def test_failed_drawing_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no captions to draw"):
        contact_sheet([], tmp_path / "sheet.png")
    with pytest.raises(RuntimeError), saved_figure(tmp_path / "figure.png", width=1, height=1):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_attention_that_did_not_go_to_the_image_is_said(drawn: list[Figure], tmp_path: Path):
    weights = np.array([[0.1, 0.2, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25]])
    attention_sheet(noise(40, 40), ["of", "dog"], weights, (2, 2), tmp_path / "attention.png")
    texts = [text.get_text() for text in drawn[0].texts]
    assert "60% not at the image" in texts
    assert "0% not at the image" in texts
    attention_sheet(noise(40, 40), ["dog"], weights[1:], (2, 2), tmp_path / "all.png")
    assert not any("not at" in text.get_text() for text in drawn[1].texts)

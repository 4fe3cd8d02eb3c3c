"""The page of an evaluation in a real browser, at the width of a phone and of a desk."""

from itertools import pairwise
from pathlib import Path

import browser
import pytest
from PIL import Image
from report_samples import make

from captioning.examples import Examples
from captioning.records import Hypothesis
from captioning.slices import Slice

PHONE, DESK = 390, 1280

pytestmark = pytest.mark.skipif(
    browser.program() is None, reason=f"no browser here: none of {', '.join(browser.PROGRAMS)} is installed"
)


@pytest.fixture(scope="module")
def views(
    tiny_tables: Path, tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, browser.View]:
    folder = tmp_path_factory.mktemp("page")
    make(tiny_tables, folder, decoder="adaptive_attention")
    widths = (PHONE, DESK)
    return dict(zip(widths, browser.look(folder / "evaluation.html", folder, widths=widths), strict=True))


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_every_picture_is_there(width: int, views: dict[int, browser.View]) -> None:
    images = views[width].found["images"]
    assert len(images) > 12
    assert all(image["natural_width"] > 0 and image["width"] >= 60 for image in images)
    assert all(image["alt"] for image in images)


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_is_wider_than_the_page(width: int, views: dict[int, browser.View]) -> None:
    found = views[width].found
    assert found["page_width"] <= found["width"] == width
    assert found["overflowing"] == []
    assert found["clipped"] == []


def test_long_names_and_words_do_not_widen_the_page(
    tiny_tables: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    source = "https://example.org/a/very/long/path/without/spaces/of/a/data/set"
    examples = Examples(tiny_examples, "test")
    said = Hypothesis(text="InChI=1S/" + "C13H20OS/" * 12, log_probability=-1.0)
    scores, intervals = {"bleu_4": 0.125}, {"bleu_4": (0.0, 0.25)}
    make(
        tiny_tables,
        tmp_path,
        hypotheses=dict.fromkeys(examples.image_ids, said),
        slices=[Slice(group="source", name=source, num_images=3, scores=scores, intervals=intervals)],
    )
    [view] = browser.look(tmp_path / "evaluation.html", tmp_path, widths=(PHONE,))
    assert view.found["page_width"] == PHONE
    assert view.found["overflowing"] == view.found["clipped"] == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_browser_has_no_complaint_and_asks_for_nothing_else(
    width: int, views: dict[int, browser.View]
) -> None:
    assert views[width].complaints == []
    assert views[width].found["addresses"] == []


def test_headings_skip_no_level(views: dict[int, browser.View]) -> None:
    levels = views[PHONE].found["headings"]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_the_text_is_what_a_reader_comes_for(views: dict[int, browser.View]) -> None:
    text = views[PHONE].found["text"]
    for part in (
        "adaptive_attention on resnet18",
        "What it says",
        "Where it looked",
        "0.200 to 0.300",
        "kept",
    ):
        assert part in text


def test_the_screenshots_show_a_page(views: dict[int, browser.View]) -> None:
    for width, view in views.items():
        with Image.open(view.screenshot) as screenshot:
            assert screenshot.width == width
            assert screenshot.height > 2000
            colours = screenshot.convert("RGB").resize((64, 256)).getcolors(maxcolors=64 * 256)
            assert colours is not None and len(colours) > 200, "pictures have many colours"


def test_what_is_broken_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text(
        "<!doctype html><title>x</title><h1>x</h1><img src='data:image/png;base64,AAAA' alt='x'>"
        "<p style='width:2000px'>x</p><script>undefined_function()</script><img src='missing.png'>"
    )
    [view] = browser.look(page, tmp_path, widths=(PHONE,))
    assert [image["natural_width"] for image in view.found["images"]] == [0, 0]
    assert view.found["page_width"] > PHONE
    assert len(view.found["overflowing"]) == 1
    assert any("undefined_function" in complaint for complaint in view.complaints)
    assert view.found["addresses"] != [] or any("missing.png" in own for own in view.complaints)

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_samples import HISTORY, HOSTILE, Made, evaluation, make, write_verdicts

from captioning import figures, reports
from captioning.examples import Examples
from captioning.records import Hypothesis
from captioning.reports.data_facts import read_data_facts
from captioning.reports.model_facts import ModelFacts
from captioning.reports.page import score_row
from captioning.reports.pictures import in_proportion
from captioning.reports.templating import code, markdown_escaped, number
from captioning.reports.word_errors import word_errors
from captioning.vocabulary import Vocabulary

BESIDE = {"evaluation.html", "data_card.md", "model_card.md", "metrics.json", "hypotheses.jsonl"}


@pytest.fixture(scope="module")
def made(tiny_tables: Path, tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tiny_tables, tmp_path_factory.mktemp("reports"))


class Page(HTMLParser):
    """The elements of a page, and whether each that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], "these are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "br"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_molecules_are_drawn_again_from_their_captions(
    tiny_tables: Path, tiny_examples: Path, tmp_path: Path
):
    folder = shutil.copytree(tiny_examples, tmp_path / "examples")
    words = Vocabulary.load(folder / "vocabulary.json").words
    Vocabulary(words, tokens="inchi").save(folder / "vocabulary.json")
    examples = Examples(folder, "test")
    ids = examples.image_ids
    texts = dict.fromkeys(ids, "InChI=1S/CH4/h1H4") | {ids[0]: "InChI=1S/CH4/h1"}
    captions = {key: Hypothesis(text=text, log_probability=-1.0) for key, text in texts.items()}
    ranking = reports.choose(evaluation(examples, hypotheses=captions), examples, tiny_tables / "clean")
    assert ranking.are_drawn
    assert {own.image_id: own.drawn is None for own in ranking.shown}.items() <= {
        key: key == ids[0] for key in ids
    }.items()
    assert ids[0] in {own.image_id for own in ranking.shown}, "the worst one"


def test_the_same_run_gives_the_same_bytes(made: Made, tiny_tables: Path, tmp_path: Path):
    again = make(tiny_tables, tmp_path / "another place")
    for path in sorted(made.folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.folder / path.relative_to(made.folder)).read_bytes(), path.name


def test_the_page_needs_nothing_beside_it_and_no_script(made: Made):
    page = Page(made.text("evaluation.html"))
    assert not page.all("script")
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    for link in page.all("a"):
        address = str(link["href"])
        assert address.startswith("#") or address in BESIDE, address
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {str(own["href"])[1:] for own in page.all("a") if str(own["href"]).startswith("#")} <= targets
    assert "http" not in re.sub(r'data:[^"]*', "", made.text("evaluation.html"))


def test_every_picture_has_a_text_for_those_who_do_not_see_it(made: Made):
    pictures = Page(made.text("evaluation.html")).all("img")
    assert len(pictures) > 12
    assert all(str(picture["alt"]).strip() for picture in pictures)
    alts = [str(picture["alt"]) for picture in pictures]
    references = {text for own in made.evaluation.references.values() for text in own}
    assert sum(alt in references for alt in alts) >= 5
    assert any(alt.startswith("For “") and "looked most at the" in alt for alt in alts)
    assert any(
        alt.startswith("Curve over 3 epochs: train loss from 3.000 to 2.000, val loss from 3.100 to")
        for alt in alts
    )


def test_what_comes_from_data_is_escaped(made: Made):
    assert "<script>" not in made.text("evaluation.html")
    assert "&lt;script&gt;alert" in made.text("evaluation.html")
    assert "<unk>" not in made.text("evaluation.html")
    assert r"\<unk\>" in made.text("model_card.md")
    assert markdown_escaped(HOSTILE).count("\\") == 8
    assert markdown_escaped("a\n| b") == r"a \| b"
    assert code("a`b|c") == r"`a'b\|c`"


def test_scores_stand_with_their_intervals_and_the_signature(made: Made):
    page, card = made.text("evaluation.html"), made.text("model_card.md")
    for text in ("0.250", "0.200 to 0.300", "1.250", "1.000 to 1.500", made.evaluation.signature):
        assert text in page
        assert text in card
    assert "Perplexity (lower is better) | 12.5 |  |" in card


def test_slices_and_errors_are_shown(made: Made):
    page, card = made.text("evaluation.html"), made.text("model_card.md")
    assert "By object word" in page
    assert "| object word | square | 3 | 0.125 | 0.000 to 0.250 |" in card
    assert "Said without reason" in page
    assert "alert" in page


def test_a_page_without_slices_attention_and_signature_leaves_them_out(
    tiny_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reports, "look", lambda *_: [])
    made = make(tiny_tables, tmp_path, slices=[], intervals={}, signature="")
    page = made.text("evaluation.html")
    Page(page)
    for heading in ("Where it looked", "Where it is weaker", "To cite"):
        assert heading not in page
        assert heading not in made.text("model_card.md")
    assert {path.name for path in (made.folder / "figures").iterdir()} == {
        "learning_curves.png",
        "captions.png",
    }


@pytest.mark.parametrize("decoder", ["soft_attention", "adaptive_attention", "transformer"])
def test_attention_is_shown_for_each_word(
    decoder: str, tiny_tables: Path, tiny_examples: Path, tmp_path: Path
):
    page = make(tiny_tables, tmp_path, decoder=decoder).text("evaluation.html")
    assert page.count("For “") >= 3
    assert ("% not at the image" in page) == (decoder == "adaptive_attention")
    assert (tmp_path / "figures" / "attention_1.png").exists()


def test_the_data_card_says_what_the_tables_say(made: Made):
    card = made.text("data_card.md")
    assert "| scenes | " in card
    assert re.search(r"\| scenes \| \d+ \| \d+ \| \d+ \|", card), "pictures of each split"
    assert "Nothing: every picture that was fetched was kept" in card
    assert "`validate` looked at the tables: **accepted**, 6 of 7 expectations hold." in card
    assert "warn: few images are of one flat colour; observed 0.5, expected at most 0." in card
    assert "a note of inspection" in card
    for line in card.splitlines():
        assert line == line.rstrip(), "no trailing blanks"


def test_the_counts_of_a_data_card_add_up(tiny_tables: Path, tiny_examples: Path, tmp_path: Path):
    write_verdicts(tmp_path)
    data = read_data_facts(
        tiny_tables / "raw", tiny_tables / "clean", tiny_tables / "splits", tiny_examples, tmp_path
    )
    assert data.num_images == sum(count for _, counts in data.splits for count in counts) == 48
    assert [own.split for own in data.captions] == ["train", "val", "test"]
    for own in data.captions:
        references = Examples(tiny_examples, own.split).references()
        assert own.num_images == len(references)
        assert own.num_captions == sum(map(len, references.values()))
        lengths = [len(text.split()) for texts in references.values() for text in texts]
        assert own.mean_words == pytest.approx(np.mean(lengths), abs=0.01)
        assert own.most_words == max(lengths)
    assert data.sizes == (64,) * 6
    assert data.quarantined == data.failures == []


def test_a_missing_gate_report_is_refused(tiny_tables: Path, tiny_examples: Path, tmp_path: Path):
    folders = (tiny_tables / "raw", tiny_tables / "clean", tiny_tables / "splits")
    with pytest.raises(
        ValueError, match=r"validation/report.json is no report of a gate: .* `dvc repro validate`"
    ):
        read_data_facts(*folders, tiny_examples, tmp_path)


def test_the_facts_of_a_model_are_read_back(made: Made):
    facts = ModelFacts.load(made.folder / "model.json")
    assert facts.name == "soft_attention on resnet18"
    assert facts.fingerprint == "f00d"
    assert (facts.num_epochs, facts.num_phases, facts.kept_epoch) == (3, 2, 2)
    assert facts.num_parameters == facts.num_encoder_parameters + facts.num_decoder_parameters > 0
    (made.folder / "other.json").write_text('{"name": 1}')
    with pytest.raises(
        ValueError, match=r"other.json does not state a model's facts: .* `dvc repro evaluate`"
    ):
        ModelFacts.load(made.folder / "other.json")


def test_words_said_without_reason_and_left_unsaid_are_counted():
    hypotheses = {
        key: Hypothesis(text=text, log_probability=0.0)
        for key, text in {"a": "a dog on a bike", "b": "a dog on a bike", "c": "a cat"}.items()
    }
    references = {
        "a": ["A dog runs.", "The dog plays.", "a puppy"],  # most have the dog
        "b": ["a red bike", "two bikes", "The red sky"],  # most have red
        "c": ["a cat", "the cat sleeps", "A cat sleeps!"],
    }
    errors = word_errors(hypotheses, references)
    assert [(own.word, own.num_wrong, own.num_images) for own in errors.unfounded] == [
        ("bike", 1, 2),
        ("dog", 1, 2),
    ]
    assert [(own.word, own.num_wrong, own.num_images) for own in errors.missed] == [
        ("red", 1, 1),
        ("sleeps", 1, 1),
    ]
    assert errors.repeated == [("a dog on a bike", 2)]
    assert errors.num_distinct == 2


def test_what_is_wrong_in_a_molecule_is_counted_by_the_tokens_of_its_captioner():
    hypotheses = {"a": Hypothesis(text="InChI=1S/CH3Cl/c1-2/h1H3", log_probability=0.0)}
    errors = word_errors(hypotheses, {"a": ["InChI=1S/CH3Br/c1-2/h1H3"]}, "inchi")
    assert [own.word for own in errors.unfounded] == ["Cl"]
    assert [own.word for own in errors.missed] == ["Br"]


def test_captions_and_references_are_read_in_their_own_direction(made: Made):
    page = made.text("evaluation.html")
    assert page.count('<p class="said" dir="auto">') == page.count('<p class="said"') > 0
    assert page.count('<li dir="auto">') > 0
    assert 'dir="auto">“' in page


def test_the_contact_sheet_names_its_score_as_the_page_does(
    tiny_tables: Path, tiny_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[str] = []
    monkeypatch.setattr(
        figures, "contact_sheet", lambda rows, path, *, score_name, **_: drawn.append(score_name)
    )
    examples = Examples(tiny_examples, "test")
    ranking = reports.choose(evaluation(examples), examples, tiny_tables / "clean")
    reports.draw_figures(HISTORY, ranking, [], tmp_path / "figures")
    assert drawn == ["ROUGE-L"]


def test_captions_are_ranked_by_what_images_have(tiny_tables: Path, tiny_examples: Path):
    examples = Examples(tiny_examples, "test")
    ids = examples.image_ids
    worse = {key: {"levenshtein": float(number)} for number, key in enumerate(ids)}
    ranking = reports.choose(evaluation(examples, scores_of_images=worse), examples, tiny_tables / "clean")
    assert not ranking.higher_is_better
    assert ranking.bands["Best"][0].image_id == ids[0]
    assert ranking.bands["Worst"][-1].image_id == ids[-1]
    without = reports.choose(
        evaluation(examples, scores_of_images={key: {} for key in ids}), examples, tiny_tables / "clean"
    )
    assert without.score_name == "log_probability"


def test_a_picture_is_shown_in_the_proportions_of_its_data_set():
    pixels = np.zeros((3, 64, 64), np.uint8)
    assert in_proportion(pixels, {"a": (640, 480)}, "a").shape == (48, 64, 3)
    assert in_proportion(pixels, {"a": (100, 400)}, "a").shape == (64, 16, 3)
    assert in_proportion(pixels, {}, "a").shape == (64, 64, 3)


def test_a_score_stands_in_its_place_on_a_bar():
    scores = {"bleu_4": 0.25, "cider": 1.5, "perplexity": 12.5, "rouge_l": float("nan")}
    row = score_row(scores, {"bleu_4": (0.2, 0.3)}, "bleu_4")
    assert (row.low, row.dot, row.high) == (20, 25, 30)
    assert score_row(scores, {}, "cider").dot == 75  # of 2
    assert score_row(scores, {}, "perplexity").dot is None
    assert (score_row(scores, {}, "rouge_l").dot, score_row(scores, {}, "rouge_l").value) == (None, "–")
    assert [number(value) for value in (0.12345, 12.345, -0.5)] == ["0.123", "12.3", "-0.500"]


def test_the_evaluate_stage_lists_all_that_it_writes_here(made: Made):
    from ruamel.yaml import YAML

    stages = YAML(typ="safe", pure=True).load((Path(__file__).parents[1] / "dvc.yaml").read_text())["stages"]
    written = {f"reports/{path.name}" for path in made.folder.iterdir() if path.is_file()} - {
        "reports/other.json"
    }
    assert written | {"reports/figures"} <= {str(out) for out in stages["evaluate"]["outs"]}
    assert written <= set(stages["register"]["deps"])
    assert json.loads(made.text("model.json"))

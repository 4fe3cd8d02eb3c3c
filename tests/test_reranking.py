"""All captions of an image ranked anew: valid ones first, usual ones first, and in their normal form."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_grammars import untaught, vocabulary
from tiny_captioner import save_captioner

from captioning.captioner import Captioner
from captioning.generation import PLAIN_BEAM, RerankSettings, generate
from captioning.generation.reranking import Candidate, rerank
from captioning.language_model import LanguageModel, LanguageModelSettings
from captioning.records import Hypothesis
from captioning.servable import requirements
from captioning.tokens import module_of
from captioning.vocabulary import MARKERS

VALID, TURNED = "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3", "InChI=1S/C2H6O/c3-2-1/h3H,2H2,1H3"
INVALID = "InChI=1S/C2H6O/c1-2-3/h3H,2H3,1H3"


def settings(**changes: Any) -> RerankSettings:
    stated = {"normaliser": "inchi", "replaces_text": True, "validity": 0.0, "language_model": 0.0}
    return RerankSettings.model_validate(stated | changes)


def candidates(*texts: str) -> list[Candidate]:
    """Return captions whose log-probabilities fall by one."""
    return [
        Candidate(
            hypothesis=Hypothesis(text=text, log_probability=-place), ids=[place + 3], rank=-float(place)
        )
        for place, text in enumerate(texts, 1)
    ]


def texts(ranked: list[list[Candidate]]) -> list[list[str]]:
    return [[one.hypothesis.text for one in own] for own in ranked]


def test_valid_captions_come_first_if_their_weight_is_more_than_the_difference():
    found = [candidates(INVALID, VALID), candidates(VALID, INVALID)]
    assert texts(rerank(found, settings(validity=2.0), None)) == [[VALID, INVALID], [VALID, INVALID]]
    assert texts(rerank(found, settings(validity=0.5), None)) == [[INVALID, VALID], [VALID, INVALID]]


def test_a_caption_is_given_in_its_normal_form_where_that_is_asked_for():
    assert texts(rerank([candidates(TURNED, INVALID)], settings(), None)) == [[VALID, INVALID]]
    assert texts(rerank([candidates(TURNED)], settings(replaces_text=False), None)) == [[TURNED]]


def test_log_probabilities_stay_the_captioners_own():
    [own] = rerank([candidates(INVALID, TURNED)], settings(validity=9.0), None)
    assert [one.hypothesis.log_probability for one in own] == [-2, -1]


def test_usual_captions_come_first_by_the_weight_of_the_language_model():
    model = LanguageModel.learn([[5]] * 9 + [[4]], 6, LanguageModelSettings(order=2, min_count=1))
    found = [candidates(VALID, TURNED)]
    for weight, expected in ((0.1, [VALID, TURNED]), (3.0, [TURNED, VALID])):
        weighed = settings(language_model=weight, replaces_text=False)
        assert texts(rerank(found, weighed, model)) == [expected]


def test_a_language_model_that_is_not_there_is_refused():
    with pytest.raises(
        ValueError, match=r"rerank\.language_model is 0\.5, and the model has no language model: train"
    ):
        rerank([candidates(VALID)], settings(language_model=0.5), None)


def test_all_captions_of_the_search_are_ranked_and_the_best_given():
    words = vocabulary("inchi")
    decoder, features = untaught(len(words))
    free = PLAIN_BEAM.replaced(beam_width=6, max_words=40, grammar="inchi")
    every = generate(decoder, features, words, free)
    again = generate(decoder, features, words, free.replaced(rerank=settings(validity=1e4)), top=1)
    forms = [module_of("inchi").join(own[0].words) for own in again]
    assert all(form in {one.text for one in own} for form, own in zip(forms, every, strict=True))
    assert len({len(own) for own in again}) == 1


def test_the_language_model_travels_in_the_model_folder(tmp_path: Path):
    folder = save_captioner(tmp_path / "captioner", 0)
    assert Captioner.load(folder).language_model is None
    model = LanguageModel.learn([[4, 5]], 9, LanguageModelSettings(order=2, min_count=1))
    model.save(folder)
    loaded = Captioner.load(folder)
    assert loaded.language_model is not None
    assert loaded.language_model.log_probabilities([[4, 5]]) == model.log_probabilities([[4, 5]])
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    [[best]] = loaded.caption_pixels(pixels, PLAIN_BEAM.replaced(rerank=settings(language_model=0.5)))
    assert {*best.words} <= {*loaded.vocabulary.words[len(MARKERS) :]}


def test_a_model_of_molecules_pins_rdkit(tmp_path: Path):
    folder = save_captioner(tmp_path / "captioner", 0)
    assert not any(pin.startswith("rdkit==") for pin in requirements(folder))
    vocabulary("inchi").save(folder / "vocabulary.json")
    assert any(pin.startswith("rdkit==") for pin in requirements(folder))

"""Generation against exhaustive search, an independent plain beam and teacher forcing; what settings promise."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from test_decoders import SETTINGS

from captioning import lookup
from captioning.decoders.soft_attention import Decoder, Settings
from captioning.generation import (
    PLAIN_BEAM,
    BeamSettings,
    Captions,
    ConstraintSettings,
    DiverseBeamSettings,
    GenerationSettings,
    LengthNormalisation,
    Sampler,
    SampleSettings,
    generate,
    read_settings,
)
from captioning.generation.samples import likeliest
from captioning.records import Hypothesis
from captioning.vocabulary import BOS, EOS, MARKERS, UNK, Vocabulary

WORDS = ("a", "b", "c")
VOCABULARY = Vocabulary([*MARKERS, *WORDS])
LARGER = Vocabulary([*MARKERS, *(f"word{number}" for number in range(40))])
AVERAGE = LengthNormalisation(name="average", alpha=1.0)
WU = LengthNormalisation(name="wu", alpha=0.7)

FREE = PLAIN_BEAM.replaced(min_words=0)
NARROW = [
    FREE,
    PLAIN_BEAM,
    FREE.replaced(length_normalisation=AVERAGE),
    FREE.replaced(length_normalisation=WU),
    FREE.replaced(min_words=3),
    FREE.replaced(no_repeat_ngram=2, bad_endings=["b"]),
    FREE.replaced(no_repeat_ngram=2, min_words=2, length_normalisation=AVERAGE),
    FREE.replaced(bad_endings=["a", "c"], length_normalisation=WU),
]
"""Each way of comparing captions, and each constraint."""

DIVERSE = DiverseBeamSettings(
    **PLAIN_BEAM.model_dump(exclude={"method", "beam_width"}),
    method="diverse_beam",
    beam_width=6,
    num_groups=3,
    diversity_penalty=0.8,
)
SAMPLE = SampleSettings(
    **PLAIN_BEAM.model_dump(exclude={"method", "beam_width", "length_normalisation"}),
    method="sample",
    num_samples=5,
    temperature=1.0,
    top_k=None,
    top_p=None,
    seed=0,
)
METHODS: list[GenerationSettings] = [
    PLAIN_BEAM.replaced(length_normalisation=WU),
    DIVERSE,
    SAMPLE,
    SAMPLE.replaced(temperature=0.5, top_k=5, top_p=0.8),
]


def _decoder(seed: int, vocabulary: Vocabulary = VOCABULARY) -> Decoder:
    torch.manual_seed(seed)
    settings = Settings(
        name="soft_attention",
        feature_width=8,
        embedding_width=8,
        attention_width=8,
        hidden_width=8,
        dropout=0.0,
        tied_embeddings=False,
    )
    decoder = Decoder(settings, feature_dim=5, vocabulary_size=len(vocabulary))
    with torch.no_grad():  # far from uniform, so that searches can go wrong
        decoder.words.output_weight.mul_(12)
        decoder.words.embedding.weight.mul_(10)
        if vocabulary is LARGER:  # among many words the end would be rare
            decoder.words.output_bias[EOS] = 4.0
    return decoder.eval()


def _features(seed: int, num_images: int) -> torch.Tensor:
    return torch.randn(num_images, 4, 5, generator=torch.Generator().manual_seed(seed))


def _ids(hypothesis: Hypothesis, vocabulary: Vocabulary = VOCABULARY) -> tuple[int, ...]:
    return tuple(vocabulary.words.index(word) for word in hypothesis.words)


@torch.inference_mode()
def _next_words(decoder: Any, features_LD: torch.Tensor, words: Sequence[int]) -> list[float]:
    """Return the log-probabilities of the word after `words`, by teacher forcing."""
    tokens = torch.tensor([[BOS, *words]])
    forced = decoder(decoder.prepare(features_LD.unsqueeze(0)), tokens, torch.tensor([tokens.shape[1]]))
    return torch.log_softmax(decoder.words.logits(forced.output_WE)[-1], dim=0).tolist()


@torch.inference_mode()
def _log_probability(decoder: Any, features_LD: torch.Tensor, words: Sequence[int], max_words: int) -> float:
    """Return that of the words and, unless cut at `max_words`, of the end, by teacher forcing."""
    targets = [*words, EOS] if len(words) < max_words else [*words]
    tokens = torch.tensor([[BOS, *targets[:-1]]])
    forced = decoder(decoder.prepare(features_LD.unsqueeze(0)), tokens, torch.tensor([tokens.shape[1]]))
    scores = torch.log_softmax(decoder.words.logits(forced.output_WE), dim=1)
    return float(scores[torch.arange(len(targets)), targets].sum())


def _is_allowed(settings: ConstraintSettings, words: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Tell whether a whole caption, ended or cut, keeps the constraints."""
    size = settings.no_repeat_ngram
    if not settings.min_words <= len(words) <= settings.max_words:
        return False
    if words and vocabulary.words[words[-1]] in settings.bad_endings:
        return False
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)] if size else []
    return len(set(grams)) == len(grams)


def _rank(settings: BeamSettings, score: float, num_words: int) -> float:
    """Return what a caption of a known log-probability is compared by; by the formulas as they are published."""
    num_terms = min(num_words + 1, settings.max_words)
    match settings.length_normalisation:
        case None:
            return score
        case LengthNormalisation(name="average"):
            return score / num_terms
        case LengthNormalisation(alpha=alpha):
            return score / ((5 + num_terms) ** alpha / (5 + 1) ** alpha)


@pytest.mark.parametrize("settings", [*NARROW, FREE.replaced(no_repeat_ngram=1, bad_endings=["b"])], ids=str)
def test_a_wide_beam_equals_exhaustive_search(settings: BeamSettings):
    settings = settings.replaced(beam_width=100, max_words=4)
    decoder, features = _decoder(3), _features(3, 2)
    every = [
        words
        for length in range(settings.max_words + 1)
        for words in itertools.product((4, 5, 6), repeat=length)
        if _is_allowed(settings, words, VOCABULARY)
    ]
    found = generate(decoder, features, VOCABULARY, settings)
    for image in range(2):
        expected = {
            words: _log_probability(decoder, features[image], words, settings.max_words) for words in every
        }
        best_first = sorted(every, key=lambda words: -_rank(settings, expected[words], len(words)))
        assert [_ids(own) for own in found[image]] == best_first[: settings.beam_width]
        for own in found[image]:
            assert own.log_probability == pytest.approx(expected[_ids(own)], abs=1e-4)


def _plain_beam(
    decoder: Any, features_LD: torch.Tensor, settings: BeamSettings
) -> list[tuple[tuple[int, ...], float]]:
    """One image, one hypothesis at a time, no batching, no state kept."""
    beam: list[tuple[tuple[int, ...], float, bool]] = [((), 0.0, False)]
    for step in range(settings.max_words):
        candidates = [own for own in beam if own[2]]
        for words, score, has_ended in beam:
            if has_ended:
                continue
            next_words = _next_words(decoder, features_LD, words)
            if _may_end(settings, words):
                candidates.append((words, score + next_words[EOS], True))
            for word in (4, 5, 6):
                longer = (*words, word)
                is_last = step == settings.max_words - 1
                if _may_go_on(settings, longer) and not (
                    is_last and VOCABULARY.words[word] in settings.bad_endings
                ):
                    candidates.append((longer, score + next_words[word], False))

        def rank(own: tuple[tuple[int, ...], float, bool], step: int = step) -> float:
            return _rank(settings, own[1], len(own[0]) if own[2] else step)

        beam = sorted(candidates, key=rank, reverse=True)[: settings.beam_width]
    return [(words, score) for words, score, _ in beam]


def _may_end(settings: ConstraintSettings, words: tuple[int, ...]) -> bool:
    is_bad = bool(words) and VOCABULARY.words[words[-1]] in settings.bad_endings
    return len(words) >= settings.min_words and not is_bad


def _may_go_on(settings: ConstraintSettings, words: tuple[int, ...]) -> bool:
    no_repeats = settings.replaced(min_words=0, bad_endings=[])
    return _is_allowed(no_repeats, words, VOCABULARY)


@pytest.mark.parametrize("beam_width", [1, 2, 3, 5])
@pytest.mark.parametrize("settings", NARROW, ids=str)
def test_a_narrow_beam_equals_a_plain_one_word_for_word(settings: BeamSettings, beam_width: int):
    settings = settings.replaced(beam_width=beam_width, max_words=6)
    for seed in range(4):
        decoder, features = _decoder(seed), _features(seed + 10, 3)
        expected = [_plain_beam(decoder, features[image], settings) for image in range(3)]
        if not all(expected):
            with pytest.raises(ValueError, match="no word is left"):
                generate(decoder, features, VOCABULARY, settings)
            continue
        found = generate(decoder, features, VOCABULARY, settings)
        for own, plain in zip(found, expected, strict=True):
            assert [_ids(one) for one in own] == [words for words, _ in plain]
            assert [one.log_probability for one in own] == pytest.approx(
                [score for _, score in plain], abs=1e-4
            )


def test_the_best_captions_are_the_same_whenever_their_search_ends():
    decoder = _decoder(6, LARGER)
    for narrow in NARROW:
        settings = narrow.replaced(beam_width=5, max_words=12, bad_endings=["word3", "word4"])
        everything = generate(decoder, _features(1, 12), LARGER, settings)
        for top in (1, 3):
            best = generate(decoder, _features(1, 12), LARGER, settings, top=top)
            assert [[one.text for one in own] for own in best] == [
                [one.text for one in own[:top]] for own in everything
            ]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_batch_gives_each_image_the_captions_it_gets_alone(method: GenerationSettings):
    decoder, features = _decoder(6, LARGER), _features(6, 9)
    together = generate(decoder, features, LARGER, method, with_attention=True)
    lengths = {len(own[0].words) for own in together}
    assert len(lengths) > 1, "images leave the batch at different words"
    for image in range(9):
        [alone] = generate(
            decoder, features[image : image + 1], LARGER, method, with_attention=True, image_numbers=[image]
        )
        assert [own.text for own in alone] == [own.text for own in together[image]]
        for own, other in zip(alone, together[image], strict=True):
            assert torch.tensor(own.attention).flatten().tolist() == pytest.approx(
                torch.tensor(other.attention).flatten().tolist(), abs=1e-5
            )


@pytest.mark.parametrize("name", lookup.names("decoders"))
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_log_probabilities_are_those_of_teacher_forcing_for_every_decoder_and_method(
    name: str, method: GenerationSettings
):
    module = lookup.find("decoders", name)
    torch.manual_seed(1)
    decoder = module.Decoder(
        module.Settings.model_validate({"name": name, **SETTINGS[name]}),
        feature_dim=5,
        vocabulary_size=len(LARGER),
    ).eval()
    with torch.no_grad():
        decoder.words.output_bias.normal_(std=2.0)
    settings = method.replaced(max_words=7, no_repeat_ngram=2, bad_endings=["word1"], min_words=2)
    features = _features(2, 3)
    for image, captions in enumerate(generate(decoder, features, LARGER, settings)):
        assert len(captions) == settings.num_captions
        for own in captions:
            words = _ids(own, LARGER)
            assert _is_allowed(settings, words, LARGER)
            expected = _log_probability(decoder, features[image], words, settings.max_words)
            assert own.log_probability == pytest.approx(expected, abs=1e-4)


def test_unk_is_never_generated_even_when_it_is_the_likeliest():
    decoder = _decoder(0)
    with torch.no_grad():
        decoder.words.output_bias[UNK] = 100.0
    for method in (PLAIN_BEAM, DIVERSE, SAMPLE):
        for own in generate(decoder, _features(0, 3), VOCABULARY, method):
            assert all(set(hypothesis.words) <= set(WORDS) for hypothesis in own)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_caption_is_never_empty_and_keeps_to_its_lengths(method: GenerationSettings):
    decoder = _decoder(0)
    with torch.no_grad():
        decoder.words.output_bias[EOS] = 50.0
    for own in generate(decoder, _features(0, 4), VOCABULARY, method):
        assert {len(hypothesis.words) for hypothesis in own} == {1}
    for own in generate(decoder, _features(0, 4), VOCABULARY, method.replaced(min_words=3)):
        assert {len(hypothesis.words) for hypothesis in own} == {3}
    with torch.no_grad():
        decoder.words.output_bias[EOS] = -50.0
    for own in generate(decoder, _features(0, 4), VOCABULARY, method.replaced(max_words=6)):
        assert {len(hypothesis.words) for hypothesis in own} == {6}


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_ngram_is_repeated_and_no_caption_ends_badly(method: GenerationSettings):
    decoder = _decoder(2)
    with torch.no_grad():  # captions of one word again and again, and captions that end behind it
        decoder.words.output_bias[4] = 20.0
        decoder.words.output_bias[EOS] = 15.0
    free = generate(decoder, _features(0, 4), VOCABULARY, method.replaced(max_words=8))
    assert any(hypothesis.text.endswith("a a") for own in free for hypothesis in own)
    settings = method.replaced(max_words=8, no_repeat_ngram=2, bad_endings=["a", "unheard"])
    for own in generate(decoder, _features(0, 4), VOCABULARY, settings):
        for hypothesis in own:
            assert _is_allowed(settings, _ids(hypothesis), VOCABULARY)


def test_each_word_has_the_attention_it_was_chosen_with():
    decoder, features = _decoder(3), _features(3, 2)
    for method in (PLAIN_BEAM, DIVERSE, SAMPLE):
        settings = method.replaced(max_words=6)
        for image, own in enumerate(generate(decoder, features, VOCABULARY, settings, with_attention=True)):
            for hypothesis in own:
                words = _ids(hypothesis)
                assert hypothesis.attention is not None
                tokens = torch.tensor([[BOS, *words[:-1]]])
                memory = decoder.prepare(features[image : image + 1])
                attention = decoder(memory, tokens, torch.tensor([len(words)])).attention_WL
                torch.testing.assert_close(
                    torch.tensor(hypothesis.attention), attention, atol=1e-4, rtol=1e-3
                )


def test_attention_is_none_unless_it_is_asked_for():
    [[best, *_]] = generate(_decoder(3), _features(3, 1), VOCABULARY, PLAIN_BEAM)
    assert best.attention is None


def test_a_beam_wider_than_the_vocabulary_returns_what_there_is():
    [captions] = generate(_decoder(1), _features(1, 1), VOCABULARY, FREE.replaced(beam_width=50, max_words=1))
    assert sorted(own.text for own in captions) == ["", "a", "b", "c"]


# Diverse beams


def _plain_diverse_beams(
    decoder: Any, features_LD: torch.Tensor, settings: DiverseBeamSettings
) -> list[list[tuple[int, ...]]]:
    """Vijayakumar et al. (2018), algorithm 1, one hypothesis at a time."""
    width = settings.beam_width // settings.num_groups
    groups: list[list[tuple[tuple[int, ...], float, bool]]] = [[((), 0.0, False)]] * settings.num_groups
    for _ in range(settings.max_words):
        said: list[int] = []
        for number, beam in enumerate(groups):
            candidates = [
                (score, (words, score, True), None) for words, score, has_ended in beam if has_ended
            ]
            for words, score, has_ended in beam:
                if has_ended:
                    continue
                next_words = _next_words(decoder, features_LD, words)
                for word in (EOS, 4, 5, 6):
                    if word != EOS or len(words) >= settings.min_words:
                        own = (
                            words if word == EOS else (*words, word),
                            score + next_words[word],
                            word == EOS,
                        )
                        candidates.append((own[1] - settings.diversity_penalty * said.count(word), own, word))
            best = sorted(candidates, key=lambda one: -one[0])[:width]
            groups[number] = [own for _, own, _ in best]
            said += [word for _, _, word in best if word is not None]
    return [[words for words, _, _ in beam] for beam in groups]


def test_diverse_beams_equal_plain_ones_word_for_word():
    for seed, (width, num_groups) in itertools.product(range(3), [(4, 2), (6, 3), (3, 3)]):
        settings = DIVERSE.replaced(beam_width=width, num_groups=num_groups, max_words=5)
        decoder, features = _decoder(seed), _features(seed + 20, 3)
        for image, own in enumerate(generate(decoder, features, VOCABULARY, settings)):
            groups = _plain_diverse_beams(decoder, features[image], settings)
            assert sorted(map(_ids, own)) == sorted(itertools.chain(*groups))


def test_the_first_group_is_plain_beam_search_and_without_a_penalty_all_are():
    decoder, features = _decoder(4, LARGER), _features(4, 3)
    plain = generate(decoder, features, LARGER, PLAIN_BEAM.replaced(beam_width=2))
    diverse = generate(decoder, features, LARGER, DIVERSE)
    alike = generate(decoder, features, LARGER, DIVERSE.replaced(diversity_penalty=0.0))
    for own, with_penalty, without in zip(plain, diverse, alike, strict=True):
        texts = [one.text for one in own]
        assert set(texts) <= {one.text for one in with_penalty}
        assert sorted(one.text for one in without) == sorted(texts * 3)


def test_diverse_beams_are_more_distinct_than_plain_ones():
    decoder, features = _decoder(6, LARGER), _features(6, 20)

    def distinct_words(settings: GenerationSettings) -> float:
        captions = generate(decoder, features, LARGER, settings)
        return sum(len({word for one in own for word in one.words}) for own in captions) / 20

    assert distinct_words(DIVERSE) > 1.2 * distinct_words(PLAIN_BEAM.replaced(beam_width=6))


# Samples


def test_a_seed_and_a_number_decide_what_is_drawn_for_an_image():
    decoder, features = _decoder(6, LARGER), _features(0, 1).expand(6, -1, -1)
    first, again = (generate(decoder, features, LARGER, SAMPLE) for _ in range(2))
    assert first == again
    assert len({own[0].text for own in first}) > 1, "the same picture six times"
    assert generate(decoder, features, LARGER, SAMPLE.replaced(seed=1)) != first
    other_order = generate(decoder, features, LARGER, SAMPLE, image_numbers=[5, 4, 3, 2, 1, 0])
    assert [[one.text for one in own] for own in reversed(other_order)] == [
        [one.text for one in own] for own in first
    ]


def test_samples_are_drawn_as_often_as_temperature_and_nucleus_make_them_probable():
    decoder, features, count = _decoder(3), _features(3, 1), 20_000
    settings = SAMPLE.replaced(num_samples=count, max_words=1, temperature=2.0, top_p=0.7)
    logits = torch.tensor(_next_words(decoder, features[0], ()))[4:] / 2.0
    probabilities = torch.softmax(logits, dim=0)
    best_first = probabilities.argsort(descending=True).tolist()
    num_kept = next(n for n in (1, 2, 3) if float(probabilities[best_first[:n]].sum()) >= 0.7)
    kept = best_first[:num_kept]
    expected = probabilities[kept] / probabilities[kept].sum()
    assert num_kept == 2
    [drawn] = generate(decoder, features, VOCABULARY, settings)
    for word, probability in zip(kept, expected.tolist(), strict=True):
        share = sum(own.text == WORDS[word] for own in drawn) / count
        assert share == pytest.approx(probability, abs=5 * math.sqrt(probability * (1 - probability) / count))
    assert {own.text for own in drawn} == {WORDS[word] for word in kept}


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (None, 0.1, [3]),
        (None, 0.49, [3]),
        (None, 0.51, [3, 1]),
        (None, 0.79, [3, 1]),
        (None, 0.81, [3, 1, 0]),
        (None, 1.0, [3, 1, 0, 2]),
        (2, None, [3, 1]),
        (9, None, [3, 1, 0, 2]),
        (2, 0.6, [3]),  # of the two left, the first has 5/8
    ],
)
def test_the_nucleus_is_the_smallest_set_of_words_that_has_the_mass(
    top_k: int | None, top_p: float | None, kept: list[int]
):
    probabilities = torch.tensor([[0.15, 0.30, 0.05, 0.50]], dtype=torch.float64)
    scores_NM, words_NM = likeliest(probabilities.log(), top_k=top_k, top_p=top_p)
    assert words_NM[scores_NM > -torch.inf].tolist() == kept


def test_a_low_temperature_is_greedy_and_one_word_to_draw_from_is_too():
    decoder, features = _decoder(8, LARGER), _features(8, 5)
    greedy = [own[0].text for own in generate(decoder, features, LARGER, PLAIN_BEAM.replaced(beam_width=1))]
    for settings in (
        SAMPLE.replaced(temperature=1e-4),
        SAMPLE.replaced(top_k=1),
        SAMPLE.replaced(top_p=1e-6),
    ):
        drawn = generate(decoder, features, LARGER, settings)
        assert [[one.text for one in own] for own in drawn] == [[text] * 5 for text in greedy]


def test_samples_come_with_falling_probability():
    [own] = generate(_decoder(0, LARGER), _features(0, 1), LARGER, SAMPLE)
    scores = [one.log_probability for one in own]
    assert scores == sorted(scores, reverse=True)


# Refusals


def test_scores_that_are_not_finite_are_refused():
    features = _features(0, 2)
    features[1] = torch.nan
    for method in (PLAIN_BEAM, DIVERSE, SAMPLE):
        with pytest.raises(
            ValueError, match=r"image 1 of the batch has no caption: its scores are not finite"
        ):
            generate(_decoder(0), features, VOCABULARY, method)


def test_a_word_whose_scores_are_not_finite_is_refused_whenever_it_is_drawn():
    decoder = _decoder(0)
    with torch.no_grad():
        decoder.words.embedding.weight[4] = torch.nan
    settings = SAMPLE.replaced(num_samples=20, max_words=4)
    with pytest.raises(ValueError, match="image 'beach' has no caption: its scores are not finite"):
        generate(decoder, _features(0, 1), VOCABULARY, settings, image_ids=["beach"])


def test_no_images_have_no_captions():
    for method in (PLAIN_BEAM, DIVERSE, SAMPLE):
        assert generate(_decoder(0), _features(0, 0), VOCABULARY, method) == []


def test_the_likeliest_word_is_drawn_at_a_temperature_that_leaves_the_others_nothing():
    captions = Captions(
        images_B=torch.zeros(1, dtype=torch.long),
        words_NT=torch.full((1, 1), BOS),
        scores_N=torch.zeros(1),
        num_terms_N=torch.zeros(1, dtype=torch.long),
        has_ended_N=torch.zeros(1, dtype=torch.bool),
        attention_NTL=None,
    )
    sampler = Sampler(1, lambda _: torch.tensor([0.5]), temperature=1e-38)
    choice = sampler.choose(torch.tensor([[-900.0, -300.0, -600.0]]), captions)
    assert choice.words_N.tolist() == [1]


def test_constraints_that_no_caption_can_keep_are_refused():
    settings = PLAIN_BEAM.replaced(min_words=4, no_repeat_ngram=1)
    with pytest.raises(ValueError, match=r"or no word is left that the settings allow; .*no_repeat_ngram=1"):
        generate(_decoder(0), _features(0, 2), VOCABULARY, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_widht": 5}, r"no beam_widht in BeamSettings; it has min_words, .*beam_width"),
        ({"beam_width": 0}, r"beam_width: Input should be greater than or equal to 1, got 0"),
        ({"min_words": 30}, r"min_words \(30\) is more than max_words \(24\): lower one, or raise the other"),
        ({"bad_endings": ["on a"]}, r"'on a' is not one word"),
        ({"length_normalisation": {"name": "wu", "alpha": math.inf}}, "Input should be a finite number"),
        ({"length_normalisation": {"name": "wu", "alpha": 40.0}}, "less than or equal to 10"),
    ],
)
def test_changes_that_cannot_be_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        PLAIN_BEAM.replaced(**changes)


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e40, math.inf, math.nan])
def test_a_temperature_that_a_score_cannot_be_divided_by_is_refused(temperature: float):
    with pytest.raises(ValueError, match=r"temperature: Input should be (greater|less|a finite)"):
        SAMPLE.replaced(temperature=temperature)


@pytest.mark.parametrize("penalty", [1e40, math.inf, math.nan])
def test_a_penalty_that_leaves_no_difference_between_words_is_refused(penalty: float):
    with pytest.raises(ValueError, match=r"diversity_penalty: Input should be (less|a finite)"):
        DIVERSE.replaced(diversity_penalty=penalty)


def test_groups_share_a_beam_evenly():
    with pytest.raises(
        ValueError, match=r"4 groups cannot share a beam of width 6 evenly: choose a num_groups"
    ):
        DIVERSE.replaced(num_groups=4)
    assert DIVERSE.at_least(7).beam_width == 9
    assert SAMPLE.at_least(7).num_samples == 7
    assert PLAIN_BEAM.at_least(2).beam_width == PLAIN_BEAM.beam_width


@pytest.mark.parametrize("settings", METHODS, ids=str)
def test_settings_are_read_as_a_registered_model_carries_them(settings: GenerationSettings):
    assert read_settings(settings.model_dump()) == settings

"""Vectors of words out of files in every form that they come in, and what becomes of the words without one."""

import gzip
import zipfile
from pathlib import Path

import pytest
import torch

from captioning.vocabulary import MARKERS, UNK, Vocabulary
from captioning.word_vectors import initialise, read_vectors
from captioning.words import Words

VOCABULARY = Vocabulary([*MARKERS, "a", "dog", "zorb", "at"])
LINES = """<unk> 9 9 9
dog 0.5 -1 2e-1
The 1 1 1
at name@domain.com 7 7 7
at 3 3 3
dog 8 8 8
a 1 2 3
"""
EXPECTED = torch.tensor([[0.0, 0, 0]] * 4 + [[1, 2, 3], [0.5, -1, 0.2], [0, 0, 0], [3, 3, 3]])


def _file(folder: Path, text: str = LINES, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _words(*, tied: bool = False, width: int = 3) -> Words:
    torch.manual_seed(0)
    return Words(vocabulary_size=len(VOCABULARY), embedding_width=width, output_width=width, tied=tied)


def _gzipped(folder: Path) -> Path:
    path = folder / "vectors.txt.gz"
    path.write_bytes(gzip.compress(LINES.encode()))
    return path


def _zipped(folder: Path, *names: str) -> Path:
    path = folder / "glove.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, LINES if name != "glove.2d.txt" else "dog 1 1\n")
    return path


@pytest.mark.parametrize(
    "make",
    [
        _file,
        _gzipped,
        lambda folder: _zipped(folder, "anything.txt", "readme.md"),
        lambda folder: _zipped(folder, "glove.2d.txt", "glove.3d.txt"),
        lambda folder: _file(folder, "7 3\n" + LINES, "word2vec.txt"),
        lambda folder: _file(folder, LINES.replace("\n", " \n"), "fasttext.vec"),
    ],
    ids=["text", "gz", "zip", "zip of several widths", "word2vec's header", "fastText's trailing spaces"],
)
def test_words_get_their_first_line_from_a_file_in_any_form(tmp_path: Path, make):
    vectors_VE, has_vector_V = read_vectors(make(tmp_path), VOCABULARY, 3)
    assert vectors_VE.dtype == torch.float32 and torch.equal(vectors_VE, EXPECTED)
    assert has_vector_V.tolist() == [False] * 4 + [True, True, False, True]


def test_words_without_a_vector_keep_their_random_one_at_the_scale_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words, before_VE = _words(), _words().embedding.weight.detach()
    initialise(words, _file(tmp_path), VOCABULARY, trainable=True)
    weight_VE = words.embedding.weight
    assert weight_VE.requires_grad
    with_vector = [4, 5, 7]
    assert torch.equal(weight_VE[with_vector], EXPECTED[with_vector])
    scale = EXPECTED[with_vector].std(correction=0) / before_VE.std(correction=0)
    for number in (UNK, 6):
        assert weight_VE[number].tolist() == pytest.approx((scale * before_VE[number]).tolist())
    assert "vectors.txt has vectors of 3 of 4 words (75.0%)" in capsys.readouterr().err


def test_embeddings_that_are_not_trainable_are_frozen_and_the_output_layer_is_not(tmp_path: Path):
    words = _words()
    initialise(words, _file(tmp_path), VOCABULARY, trainable=False)
    assert [name for name, own in words.named_parameters() if own.requires_grad] == [
        "output_weight",
        "output_bias",
    ]


def test_tied_embeddings_begin_with_vectors_and_cannot_be_frozen(tmp_path: Path):
    words = _words(tied=True)
    with pytest.raises(
        ValueError, match=r"trainable is false, but with .*tied_embeddings.*: set trainable: true, or"
    ):
        initialise(words, _file(tmp_path), VOCABULARY, trainable=False)
    assert words.embedding.weight.requires_grad
    initialise(words, _file(tmp_path), VOCABULARY, trainable=True)
    assert torch.equal(words.embedding.weight[5], EXPECTED[5])


@pytest.mark.parametrize("text", [LINES, "7 3\n" + LINES])
def test_vectors_of_another_width_are_refused_with_both_numbers(tmp_path: Path, text: str):
    with pytest.raises(
        ValueError, match=r"vectors of 3 values, and .*embedding_width is 4: set embedding_width: 3, or"
    ):
        initialise(_words(width=4), _file(tmp_path, text), VOCABULARY, trainable=True)


@pytest.mark.parametrize(
    "line", ["dog 1 2", "dog", "other 1 2", "", "dog 1 2 3 4", "dog 1 2 x", "dog 1 nan 3", "dog 1  2"]
)
def test_a_line_that_is_no_vector_is_refused_by_its_number(tmp_path: Path, line: str):
    with pytest.raises(ValueError, match=r"vectors\.txt, line 2: expected a word and 3 numbers, got"):
        read_vectors(_file(tmp_path, f"a 1 2 3\n{line}\nat 1 2 3\n"), VOCABULARY, 3)


def test_a_file_without_any_word_of_the_vocabulary_is_refused(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"no vector of any of the vocabulary's 4 words, such as \('a', 'dog', 'zorb'\)"
    ):
        read_vectors(_file(tmp_path, "DOG 1 2 3\n"), VOCABULARY, 3)


def test_a_missing_and_a_damaged_file_are_refused_with_what_to_do(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"glove\.txt does not exist; `captioning use RECIPE train\.word_vectors\.file="
    ):
        read_vectors(tmp_path / "glove.txt", VOCABULARY, 3)
    cut = _gzipped(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"vectors\.txt\.gz is damaged \(.*\): download it again"):
        read_vectors(cut, VOCABULARY, 3)
    with pytest.raises(ValueError, match=r"glove\.zip is damaged"):
        read_vectors(_file(tmp_path, "<html>", "glove.zip"), VOCABULARY, 3)


def test_an_archive_that_leaves_a_choice_is_refused(tmp_path: Path):
    path = _zipped(tmp_path, "glove.2d.txt", "glove.3d.txt")
    with pytest.raises(
        ValueError, match=r"holds glove\.2d\.txt, glove\.3d\.txt, and .*embedding_width is 4: set it"
    ):
        read_vectors(path, VOCABULARY, 4)


def test_genuine_glove_vectors_are_read(shared: Path):
    path = shared / "data" / "glove" / "glove.6B.50d.9163words.txt"
    vocabulary = Vocabulary([*MARKERS, "the", "dog", "puppy", "mountain", "snowboarder"])
    vectors_VE, has_vector_V = read_vectors(path, vocabulary, 50)
    assert has_vector_V.tolist()[4:] == [True, True, False, True, False]
    assert vectors_VE[4, :3].tolist() == pytest.approx([0.418, 0.24968, -0.41242])

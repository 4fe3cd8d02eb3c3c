"""Embeddings that begin with vectors learned elsewhere: text files of GloVe, or of word2vec and fastText."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from captioning.progress import say
from captioning.vocabulary import MARKERS, Vocabulary
from captioning.words import Words


def initialise(words: Words, path: Path, vocabulary: Vocabulary, *, trainable: bool) -> None:
    """Put the vectors of a file into the embeddings, and say how many words have one.

    Words without one, and the markers, keep their random vector, scaled to the variance of those in the file (Kim,
    2014, section 4.3). Embeddings that are not trainable stay so for these words too: a random vector tells a word
    from all others as well.

    Raises:
        ValueError: the embeddings are the output layer too and may not be trained; or as `read_vectors`.
    """
    if words.output_weight is None and not trainable:
        raise ValueError(
            "train.word_vectors.trainable is false, but with train.decoder.tied_embeddings the embeddings are the "
            "output layer too, which has to be trained: set trainable: true, or tied_embeddings: false"
        )
    weight_VE = words.embedding.weight
    vectors_VE, has_vector_V = read_vectors(path, vocabulary, weight_VE.shape[1])
    with torch.no_grad():
        scale = vectors_VE[has_vector_V].std(correction=0) / weight_VE.std(correction=0)
        weight_VE.copy_(torch.where(has_vector_V.unsqueeze(1), vectors_VE, scale * weight_VE))
    weight_VE.requires_grad_(trainable)
    found, of = int(has_vector_V.sum()), len(vocabulary) - len(MARKERS)
    say(
        f"{path.name} has vectors of {found:,} of {of:,} words ({found / of:.1%}); the others begin at random"
    )


def read_vectors(path: Path, vocabulary: Vocabulary, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vectors of the vocabulary's words, V x `width`, float32, and whether each has one, V booleans.

    The file has a line a word, `word value value ...`, after word2vec's line of two counts if it is there, and may be
    compressed (.gz, .zip). Of an archive of several files, as GloVe's are, the one called `....<width>d.txt` is read.
    Words are compared in lower case only, as the vocabulary has them; the first line of a word counts. Markers have no
    vector. No others than those asked for are held in memory.

    Raises:
        ValueError: the file is missing or damaged, its vectors have another width, or it has no word of the vocabulary.
    """
    wanted = {word.encode(): number for number, word in enumerate(vocabulary.words) if number >= len(MARKERS)}
    vectors_VE = torch.zeros(len(vocabulary), width)
    has_vector_V = torch.zeros(len(vocabulary), dtype=torch.bool)
    try:
        with _open(path, width) as lines:
            for word, values in _rows(lines, path, width, wanted):
                number = wanted.pop(word)
                vectors_VE[number] = torch.tensor(values)
                has_vector_V[number] = True
    except FileNotFoundError:
        raise ValueError(
            f"train.word_vectors.file: {path} does not exist; "
            f"`captioning use RECIPE train.word_vectors.file=/a/path/{path.name}` puts a file there"
        ) from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): download it again") from None
    if not has_vector_V.any():
        raise ValueError(
            f"{path} has no vector of any of the vocabulary's {len(wanted):,} words, such as {vocabulary.words[4:7]}: "
            "expected a file in their language, in lower case and UTF-8"
        )
    return vectors_VE, has_vector_V


def _open(path: Path, width: int) -> AbstractContextManager[Iterable[bytes]]:
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix != ".zip":
        return path.open("rb")
    archive = zipfile.ZipFile(path)
    files = [name for name in archive.namelist() if name.endswith((".txt", ".vec"))]
    of_width = [name for name in files if f".{width}d." in name] or files
    if len(of_width) != 1:
        raise ValueError(
            f"{path} holds {', '.join(files) or 'no .txt file'}, and train.decoder.embedding_width is {width}: set it "
            "to the width of one of them (`.50d.` is 50), or unpack the file that is meant"
        )
    return archive.open(of_width[0])


def _rows(
    lines: Iterable[bytes], path: Path, width: int, wanted: Container[bytes]
) -> Iterator[tuple[bytes, list[float]]]:
    """Yield the words that are wanted with their vectors."""
    for line_number, line in enumerate(lines, start=1):
        word, _, rest = line.rstrip().partition(b" ")
        if line_number == 1:
            is_header = word.isdigit() and rest.isdigit()
            found = int(rest) if is_header else len(rest.split())
            if found != width:
                raise ValueError(
                    f"{path} has vectors of {found} values, and train.decoder.embedding_width is {width}: set "
                    f"embedding_width: {found}, or train.word_vectors.file to a file of {width} values a word"
                )
            if is_header:
                continue
        num_values = rest.count(b" ") + 1
        if num_values == width and word not in wanted:
            continue
        values = _numbers(rest)
        if values is None and num_values > width:
            continue  # a word with spaces ("at name@domain.com" in GloVe of Common Crawl) is none of the vocabulary's
        if values is None or len(values) != width:
            start = line[:60].decode(errors="replace")
            raise ValueError(
                f"{path}, line {line_number}: expected a word and {width} numbers, got {start!r}..."
            )
        if word in wanted:
            yield word, values


def _numbers(text: bytes) -> list[float] | None:
    """Return the finite numbers in `text`, or None where one is not."""
    try:
        values = [float(value) for value in text.split()]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None

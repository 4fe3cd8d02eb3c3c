"""SPICE (Anderson et al., 2016): F-score of the objects, attributes and relations that captions name.

Its program parses captions into scene graphs, with a parser that coco-caption does not bring and on a Java older than
the one that the other metrics run on: both are to be installed by hand, see `check`. It takes up to 8 GB and minutes.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pycocoevalcap.spice import spice

from captioning.metrics import Statistics, check_pairs, mean

HIGHER_IS_BETTER = True

SPICE_JAR = Path(spice.__file__).parent / spice.SPICE_JAR
PARSER_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
JAVA_VARIABLE = "CAPTIONING_SPICE_JAVA"
OLDEST_JAVA, NEWEST_JAVA = 8, 11


def check() -> None:
    """Make sure that the parser and a Java of the right age are there.

    Raises:
        OSError: one of them is missing; the message says how to bring it.
    """
    folder = SPICE_JAR.parent / "lib"
    if missing := [name for name in PARSER_JARS if not (folder / name).exists()]:
        raise OSError(
            f"SPICE needs {' and '.join(missing)} in {folder}, 540 MB that no package brings; fetch them with "
            "`python -c 'from pycocoevalcap.spice import get_stanford_models as m; m.get_stanford_models()'`, or "
            "remove spice from the metrics"
        )
    _java()


def _java() -> str:
    """Return the Java to run; SPICE's parser reaches into classes that later ones have closed."""
    java = os.environ.get(JAVA_VARIABLE) or shutil.which("java")
    what = f"SPICE needs Java {OLDEST_JAVA} to {NEWEST_JAVA}"
    remedy = f"install one and name its program in {JAVA_VARIABLE}, or remove spice from the metrics"
    if java is None:
        raise OSError(f"{what}, and no java is on PATH; {remedy}")
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise OSError(f"{what}, and {java} does not run ({error}); {remedy}") from None
    release = re.search(r'version "(?:1\.)?(\d+)', said)
    if not release or not OLDEST_JAVA <= int(release[1]) <= NEWEST_JAVA:
        raise OSError(f"{what}, and {java} is {said.splitlines()[0] if said else 'of no version'}; {remedy}")
    return java


def score(hypotheses: dict[str, str], references: dict[str, list[str]]) -> dict[str, Statistics | float]:
    """Return `spice`, in 0..1; the score of the set is the mean over images.

    Raises:
        OSError: SPICE is not installed (see `check`), or its program fails.
    """
    check_pairs(hypotheses, references)
    check()
    rows = [
        {"image_id": number, "test": hypothesis, "refs": references[image_id]}
        for number, (image_id, hypothesis) in enumerate(hypotheses.items())
    ]
    with tempfile.TemporaryDirectory() as folder:
        captions, scores = Path(folder, "captions.json"), Path(folder, "scores.json")
        captions.write_text(json.dumps(rows))
        command = [_java(), "-Xmx8G", "-jar", str(SPICE_JAR), str(captions), "-out", str(scores), "-silent"]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if ended.returncode or not scores.exists():
            last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise OSError(f"SPICE's program ended with code {ended.returncode}: {last}")
        found = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(scores.read_text())}
    # What is no number ("NaN", null) becomes one that the caller refuses.
    return {
        "spice": mean(
            float(own) if (own := found[row["image_id"]]) is not None else float("nan") for row in rows
        )
    }

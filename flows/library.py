"""The library of a checkout, asked in a process of its own: that code may be older or newer than this process's.

To check params.yaml torch is imported, 700 MB that a process which lives for months would keep.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.stage_run import stage_environment

CHOOSE = """
import json, sys
from captioning import params, recipes
original = params.PARAMS_FILE.read_bytes()
texts = []
try:
    for recipe, overrides in json.loads(sys.argv[1]):
        params.PARAMS_FILE.write_bytes(original)
        recipes.use(recipe, overrides)
        texts.append(params.PARAMS_FILE.read_text())
except (ValueError, OSError) as error:
    sys.exit(str(error))
finally:
    params.PARAMS_FILE.write_bytes(original)
print(json.dumps(texts))
"""
LOOK = """
import json, sys
from captioning import params, source_state
try:
    seen = source_state.observe(params.load("download"))
    news = source_state.changes(source_state.read(), seen)
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(AWAY)
except ValueError as error:
    sys.exit(str(error))
if news:
    source_state.write(seen)
print(json.dumps(news))
"""
NAME_MODEL = """
import json, sys
from captioning import params
try:
    print(json.dumps(params.load("register").model_name))
except ValueError as error:
    sys.exit(str(error))
"""
AWAY = 3
"""Exit code of a look at a source that is not there or does not answer."""


def choose(folder: Path, choices: Sequence[tuple[str | None, Sequence[str]]]) -> list[str]:
    """Return params.yaml as each choice of a recipe and overrides leaves it; the file itself stays as it is.

    Raises:
        ValueError: a choice is refused; the message is for the user.
    """
    texts: list[str] = _ask(folder, CHOOSE, json.dumps(list(choices)))
    return texts


def look(folder: Path) -> list[str]:
    """Write source.json as the source of params.yaml is now, if it changed, and say what is new there.

    Raises:
        ValueError: params.yaml or source.json is not right; the message is for the user.
        OSError: the source is not there, or does not answer.
    """
    news: list[str] = _ask(folder, LOOK.replace("AWAY", str(AWAY)))
    return news


def model_name(folder: Path) -> str:
    """Return register.model_name of params.yaml.

    Raises:
        ValueError: params.yaml is not right; the message is for the user.
    """
    name: str = _ask(folder, NAME_MODEL)
    return name


def _ask(folder: Path, script: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env=stage_environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        message = done.stderr.strip()
        raise OSError(message) if done.returncode == AWAY else ValueError(message)
    return json.loads(done.stdout.splitlines()[-1])

"""The state of an unfinished training, on disk: whole or absent, and found again only by its own fingerprint."""

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captioning import distributed
from captioning.progress import say


class Checkpoints:
    """The last two states of one training in a folder of its own; a torn one is passed over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last, self._previous = folder / "last.pt", folder / "previous.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write `state` and the random generators' states: aside, to the disk, then renamed.

        Of processes that train together all take part and the first writes.
        """
        random_states = distributed.gather(_random_state())
        if not distributed.is_first():
            return
        aside = self.folder / "last.partial"
        with aside.open("wb") as file:
            torch.save({**state, "random": random_states}, file)
            file.flush()
            os.fsync(file.fileno())
        if self._last.exists():
            self._last.replace(self._previous)
        aside.replace(self._last)

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state and set the random generators to it; None where there is none."""
        for path in (self._last, self._previous):
            if not path.exists():
                continue
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises many kinds for a torn file
                say(
                    f"checkpoint {path.name} cannot be read ({type(error).__name__}); trying the one before it"
                )
                continue
            random_states = state.pop("random")
            if len(random_states) == distributed.num_processes():
                _set_random_state(random_states[distributed.rank()])
            else:
                say(
                    f"the training had {len(random_states)} processes and has {distributed.num_processes()} now: its "
                    "random numbers go on from new ones"
                )
                seed_everything(torch.initial_seed() + 1 + distributed.rank())
            return state
        return None

    def delete(self) -> None:
        """Remove the folder, once the training's result is safe elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, and ask torch for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed)  # libraries draw from the global generator
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory guards against reading it unwritten, which no kernel here does; it took 15 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])

"""A later champion takes over while the service runs: it is loaded aside, and put in its place between two batches."""

import logging
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from captioning.serving import models
from captioning.serving.measures import Measures
from captioning.serving.messages import CHAMPION
from captioning.serving.model_names import ModelName
from captioning.serving.models import Models

LOG = logging.getLogger(__name__)


class Takeover:
    """Keeps the models in service those that the registry names.

    Args:
        served: where they are put.
        names: what has each role.
        seconds: between two looks into the registry.
        measures: which count it.
    """

    def __init__(
        self, served: Models, names: Mapping[str, ModelName], *, seconds: float, measures: Measures
    ) -> None:
        self._served, self._names, self._seconds, self._measures = served, dict(names), seconds, measures
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="takeover", daemon=True)
        self.failures: dict[str, str] = {}
        """Why a role is not had by the version that the registry names, by role."""

    def begin(self) -> None:
        """Load every model for the first time; the champion must be there, a challenger may come later.

        Raises:
            ValueError: a model is missing or cannot be loaded.
        """
        for role, name in self._names.items():
            version = name.version()
            if version is None and not name.folder:
                if role == CHAMPION:
                    raise ValueError(name.missing())
                LOG.warning("no challenger yet", extra={"model": str(name)})
                continue
            self._put(role, name, version)

    def __enter__(self) -> Self:
        if any(name.may_change for name in self._names.values()):
            self._thread.start()
        return self

    def __exit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._has_ended.set()

    def look(self) -> None:
        """Look into the registry once, and take over what is new there; what fails changes nothing."""
        for role, name in self._names.items():
            if not name.may_change:
                continue
            try:
                self._follow(role, name)
            except Exception as error:  # of files, SQLite, MLflow, torch: none may end the service
                self._failed(role, name, error)
            else:
                self.failures.pop(role, None)

    def _look_again(self) -> None:
        while not self._has_ended.wait(self._seconds):
            self.look()

    def _follow(self, role: str, name: ModelName) -> None:
        version, served = name.version(), self._served.get(role)
        if version is None:
            if role == CHAMPION:
                raise ValueError(f"{name} is gone from the registry")
            if served:
                self._served.remove(role)
                self._measures.model_left(role)
                LOG.info("the challenger left", extra={"model": str(name), "version": served.version})
        elif served is None or served.version != version:
            self._put(role, name, version)
            self._measures.took_over(role)
            before = served.version if served else None
            LOG.info(
                "took over", extra={"role": role, "model": str(name), "version": version, "before": before}
            )

    def _put(self, role: str, name: ModelName, version: str | None) -> None:
        loaded = models.load(name, version, role)
        self._served.put(loaded)
        self._measures.model_entered(loaded)

    def _failed(self, role: str, name: ModelName, error: Exception) -> None:
        """Say it once, and try again at the next look."""
        sentence = " ".join(str(error).split())
        if self.failures.get(role) != sentence:
            self.failures[role] = sentence
            self._measures.takeover_failed(role)
            LOG.error(
                "the version before goes on, for a new one could not be loaded",
                extra={"role": role, "model": str(name), "reason": sentence},
            )

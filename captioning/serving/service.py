"""A request's pictures -> their captions by the models asked: what app.py's routes call."""

import asyncio
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from zlib import crc32

import numpy as np
import torch

from captioning.serving import answers, model_names
from captioning.serving.batching import Batches, WaitingPicture, num_batches_at_once
from captioning.serving.body import GivenPicture, Wanted
from captioning.serving.measures import Measures
from captioning.serving.messages import CHALLENGER, CHAMPION, Answer, CaptionedImage, Limits, ModelsResponse
from captioning.serving.models import LoadedModel, Models
from captioning.serving.pictures import Pictures, Taken
from captioning.serving.places import Places
from captioning.serving.previews import preview
from captioning.serving.problems import Problem
from captioning.serving.second_opinion import SecondOpinions
from captioning.serving.settings import ServiceSettings
from captioning.serving.shadowing import Shadow
from captioning.serving.takeover import Takeover

LATEST = 0.8
"""Of the time that a request may take: pictures that would be captioned later are not accepted."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A picture as models see it."""

    inputs: dict[LoadedModel, torch.Tensor]
    number: int
    """Of its pixels: what sampling draws is the same for the same picture."""
    preview: str | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, and who answers it."""

    wanted: Wanted
    models: list[LoadedModel]
    """Of ours, those that are asked."""
    opinions: list[str]
    """Second opinions that are asked."""
    shadow: LoadedModel | None

    def see(self, image: np.ndarray) -> Seen:
        """Return a picture as models see it; those of the same transform share it."""
        models = [*self.models, *([self.shadow] if self.shadow else [])]
        inputs: dict[Any, torch.Tensor] = {}
        for own in models:
            if own.captioner.transform not in inputs:
                inputs[own.captioner.transform] = own.inputs(image)
        return Seen(
            inputs={own: inputs[own.captioner.transform] for own in models},
            number=crc32(next(iter(inputs.values())).numpy().data) if inputs else 0,
            preview=preview(image) if self.wanted.preview else None,
        )


class Service:
    """Models, the queue before them, and what is counted; enter it while the service runs.

    Args:
        settings: of the service.

    Raises:
        ValueError: the champion, or another model that a folder or version names, cannot be loaded.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings, self.measures, self.models = settings, Measures(), Models()
        names = {CHAMPION: model_names.parse(settings.model)}
        if settings.challenger:
            names[CHALLENGER] = model_names.parse(settings.challenger)
        self.takeover = Takeover(self.models, names, seconds=settings.poll_seconds, measures=self.measures)
        self.takeover.begin()
        self._batches = Batches(
            batch_size=settings.batch_size,
            wait_seconds=settings.batch_wait_seconds,
            num_threads=settings.batches_at_once or num_batches_at_once(),
            measures=self.measures,
        )
        self._places = Places(
            settings.max_queue,
            "pictures are being captioned",
            lambda: self._batches.seconds_each,
            LATEST * settings.timeout_seconds,
        )
        self._shadow = Shadow(
            share=settings.shadow_share,
            batches=self._batches,
            max_waiting=settings.batch_size,
            measures=self.measures,
        )
        self._opinions = SecondOpinions(
            settings.second_opinions, timeout_seconds=settings.second_opinion_seconds
        )
        self.pictures = Pictures(settings)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            threads = stack.enter_context(ExitStack())
            threads.enter_context(self._batches)
            threads.enter_context(self.takeover)
            await stack.enter_async_context(self.pictures)
            await stack.enter_async_context(self._opinions)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def described(self, *, can_search: bool, needs_key: bool) -> ModelsResponse:
        """Return what /models says."""
        return ModelsResponse(
            models=[
                own.described(newer_version_failed=own.role in self.takeover.failures)
                for own in self._shown()
            ],
            second_opinions=self._opinions.names,
            limits=Limits(**{name: getattr(self.settings, name) for name in Limits.model_fields}),
            can_search=can_search,
            needs_key=needs_key,
        )

    async def caption(self, wanted: Wanted) -> list[CaptionedImage]:
        """Return the pictures of a request in their order, each with its answers or why it has none.

        Raises:
            Problem: 422 so many captions are not made, or a model is not in service; 503 too many pictures are in work.
        """
        asked, num = self._asked(wanted), len(wanted.pictures)
        self._places.take(num)
        self.measures.accepted.inc(num)
        try:
            return await self._caption(asked)
        finally:
            self._places.give_back(num)
            self.measures.accepted.dec(num)

    def _asked(self, wanted: Wanted) -> Asked:
        if wanted.top > self.settings.max_top:
            sentence = f"top is {wanted.top}; at most {self.settings.max_top} captions a picture are made"
            raise Problem(422, sentence)
        found = {own.role: own for own in self._shown()}
        known = [*found, *self._opinions.names]
        for name in wanted.models:
            if name not in known:
                raise Problem(422, f"no model {name[:80]!r} is in service; there are: {', '.join(known)}")
        is_shadowed = self.settings.shadow_share > 0 and CHAMPION in wanted.models
        return Asked(
            wanted=wanted,
            models=[found[name] for name in wanted.models if name in found],
            opinions=[name for name in wanted.models if name not in found],
            shadow=self.models.get(CHALLENGER) if is_shadowed else None,
        )

    async def _caption(self, asked: Asked) -> list[CaptionedImage]:
        given = asked.wanted.pictures
        taken = await self.pictures.take(given, asked.see, keep_files=bool(asked.opinions))
        images = await asyncio.gather(
            *(self._image(picture, own, asked) for picture, own in zip(given, taken, strict=True))
        )
        for own in images:
            self.measures.pictures.labels(str(own.error.status if own.error else 200)).inc()
        return images

    async def _image(self, given: GivenPicture, taken: Taken[Seen] | Problem, asked: Asked) -> CaptionedImage:
        if isinstance(taken, Problem):
            return answers.refused(given.name, taken)
        top, encoded = asked.wanted.top, taken.encoded or b""
        said = await asyncio.gather(
            *(self._answer(own, taken.seen, asked) for own in asked.models),
            *(self._opinions.ask(name, encoded, top) for name in asked.opinions),
        )
        answer_of = dict(zip([*(own.role for own in asked.models), *asked.opinions], said, strict=True))
        return CaptionedImage(
            image=given.name,
            error=None,
            answers=[answer_of[name] for name in asked.wanted.models],
            preview=taken.seen.preview if given.url else None,
        )

    async def _answer(self, model: LoadedModel, seen: Seen, asked: Asked) -> Answer:
        """Return a model's captions of a picture, once they are made; cancelled, the picture leaves the queue."""
        picture = WaitingPicture(
            model=model,
            inputs=seen.inputs[model],
            number=seen.number,
            top=asked.wanted.top,
            with_attention=asked.wanted.attention,
        )
        self._batches.put(picture)
        try:
            hypotheses = await asyncio.wrap_future(picture.hypotheses)
        except Exception:  # of torch or a device; logged where it was raised
            return answers.failed(model)
        if asked.shadow and model.role == CHAMPION and self._shadow.takes(seen.number):
            self._shadow.follow(asked.shadow, seen.inputs[asked.shadow], seen.number, hypotheses, by=model)
        return answers.answered(model, hypotheses, attention=asked.wanted.attention)

    def _shown(self) -> list[LoadedModel]:
        """Return who can be asked; in the champion's shadow, the challenger answers nobody."""
        is_shadow = self.settings.shadow_share > 0
        return [own for own in self.models.all() if not (is_shadow and own.role == CHALLENGER)]

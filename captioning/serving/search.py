"""The collection that `captioning index` wrote, as the service searches it: by words and by id, never by path."""

import io
import logging
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from captioning import home
from captioning.collection import CLOSE, OPEN, Collection, Found, open_for_search
from captioning.images import BadImage, decode
from captioning.serving.messages import CaptionPart, FoundImage
from captioning.serving.problems import Problem
from captioning.serving.settings import ServiceSettings

LOG = logging.getLogger(__name__)

THUMBNAIL_PIXELS = 256
"""Of the longer side."""
THUMBNAIL_QUALITY = 80
MOST_THUMBNAILS = 512
"""Kept in memory, some 10 KB each."""


class Search:
    """Searches the collection of a home, whenever there is one.

    Args:
        settings: which collection, and how much of it.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._folder = settings.collection or home.collection()
        self._lock = threading.Lock()
        self._opened: Collection | None = None
        self._written = 0
        self._thumbnails: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def is_there(self) -> bool:
        """Tell whether there is a collection."""
        return (self._folder / "meta.json").exists()

    def find(self, query: str, *, top: int) -> list[FoundImage]:
        """Return the pictures that a query finds, the best first.

        Raises:
            Problem: 404, there is no collection, or it cannot be opened.
        """
        return [_shown(own) for own in self._collection().search(query, top=top)]

    def thumbnail(self, picture_id: str) -> bytes:
        """Return a small JPEG of a picture of the collection.

        Raises:
            Problem: 404, there is none of this id, or its file is gone or has become unreadable.
        """
        found = self._collection().find(picture_id)
        if found is None:
            raise Problem(404, f"no picture {picture_id[:80]!r} is in the collection; /search finds some")
        path, state = found
        if kept := self._kept((path, state)):
            return kept
        try:
            encoded = Path(path).read_bytes()
            made = _thumbnail(decode(encoded))
        except (OSError, BadImage):
            sentence = (
                f"the file of picture {picture_id!r} is gone or unreadable; run `captioning index` again"
            )
            raise Problem(404, sentence) from None
        self._keep((path, state), made)
        return made

    def _collection(self) -> Collection:
        if not self.is_there():
            raise Problem(
                404, "there is no collection to search; `captioning index FOLDER` on the server makes one"
            )
        with self._lock:
            try:
                written = (self._folder / "meta.json").stat().st_mtime_ns
                if self._opened is None:
                    self._opened = open_for_search(self._folder)
                elif written != self._written:
                    self._opened.reload()
            except (OSError, ValueError) as error:
                LOG.error("the collection cannot be opened", extra={"reason": str(error)})
                sentence = "the collection cannot be opened; `captioning search` on the server says why"
                raise Problem(404, sentence) from None
            self._written = written
            return self._opened

    def _kept(self, key: tuple[str, str]) -> bytes | None:
        with self._lock:
            if key in self._thumbnails:
                self._thumbnails.move_to_end(key)
            return self._thumbnails.get(key)

    def _keep(self, key: tuple[str, str], thumbnail: bytes) -> None:
        with self._lock:
            self._thumbnails[key] = thumbnail
            while len(self._thumbnails) > MOST_THUMBNAILS:
                self._thumbnails.popitem(last=False)


def _shown(found: Found) -> FoundImage:
    return FoundImage(
        id=found.id,
        name=Path(found.path).name,
        caption=_parts(found.caption),
        score=round(found.score, 4),
        thumbnail=f"/search/thumbnails/{found.id}",
    )


def _parts(caption: str) -> list[CaptionPart]:
    """Return a caption in pieces, those that were found and those around them."""
    parts = []
    for piece in caption.split(OPEN):
        found, close, rest = piece.partition(CLOSE)
        if not close:
            found, rest = "", piece
        parts += [CaptionPart(text=found, found=True), CaptionPart(text=rest, found=False)]
    return [part for part in parts if part.text]


def _thumbnail(pixels: object) -> bytes:
    image = Image.fromarray(pixels)  # type: ignore[arg-type]
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=THUMBNAIL_QUALITY)
    return written.getvalue()

"""The pictures of reports/evaluation.html with their captions, small enough for a page of Prefect.

Prefect has no room for files of its own: a picture is an address that holds its bytes.
"""

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

MAX_SIDE_PIXELS = 160
JPEG_QUALITY = 70
"""About 4 kB a picture."""


@dataclass(kw_only=True)
class Captioned:
    """A picture and what was said of it."""

    band: str
    """Best, Median or Worst."""
    uri: str
    caption: str = ""
    score: str = ""
    references: list[str] = field(default_factory=list)


def read_pictures(page: Path) -> list[Captioned]:
    """Return the captioned pictures of a page that the evaluate stage wrote, in its order and its size."""
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.pictures


def smaller(uri: str) -> str:
    """Return the address of a JPEG again as that of a thumbnail."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        small = picture.convert("RGB")
    small.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


class _Reader(HTMLParser):
    """Finds `<h3>BAND</h3>` and, below it, `<img>`, `<p class="said">`, `<p class="score">` and `ul.references`."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Captioned] = []
        self._is_in_captions = False
        self._is_in_references = False
        self._band = ""
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self._text = []
        if tag == "section":
            self._is_in_captions = values.get("id") == "captions"
        elif tag == "img" and self._is_in_captions:
            self.pictures.append(Captioned(band=self._band, uri=values.get("src") or ""))
        elif tag == "ul":
            self._is_in_references = values.get("class") == "references"
        elif tag == "p":
            self._paragraph = values.get("class")

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if not self._is_in_captions:
            return
        text = " ".join("".join(self._text).split())
        if tag == "h3":
            self._band = text
        elif self.pictures and tag == "p" and self._paragraph == "said":
            self.pictures[-1].caption = text
        elif self.pictures and tag == "p" and self._paragraph == "score":
            self.pictures[-1].score = text
        elif self.pictures and tag == "li" and self._is_in_references:
            self.pictures[-1].references.append(text)
        elif tag == "ul":
            self._is_in_references = False

"""What requests and answers look like; the OpenAPI page shows these with their examples."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CHAMPION, CHALLENGER, SECOND_OPINION = "champion", "challenger", "second opinion"


class Message(BaseModel):
    """A part of a request or answer; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ImageSource(Message):
    """One picture: its address, or its file in base64."""

    url: str | None = Field(
        None, max_length=4096, description="http, https, or a storage address that is allowed"
    )
    base64: str | None = Field(None, description="the bytes of an image file, encoded in base64")
    name: str | None = Field(None, max_length=255, description="what the answer calls it")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.url is None) == (self.base64 is None):
            raise ValueError("give either url or base64")
        return self


class CaptionsRequest(Message):
    """Pictures, and what to answer about them."""

    images: list[ImageSource] = Field(min_length=1)
    top: int = Field(1, ge=1, description="captions a picture")
    attention: bool = Field(False, description="also the words, and where the model looked at each")
    preview: bool = Field(False, description="also a small copy of each picture that came by an address")
    models: list[Annotated[str, Field(max_length=100)]] = Field(
        [CHAMPION],
        min_length=1,
        max_length=8,
        description="who captions: champion, challenger, or the name of a second opinion (see /models)",
    )


class Attention(Message):
    """Where the model looked: one row a word, of height x width weights, row by row; each sums to 1."""

    height: int
    width: int
    weights: list[list[float]]


class Caption(Message):
    """One caption; words and attention are null unless asked for."""

    text: str
    probability: float | None
    words: list[str] | None = None
    attention: Attention | None = None


class Refusal(Message):
    """Why one picture, or one model, has no captions."""

    status: int
    title: str
    detail: str


class Answer(Message):
    """One model's captions of one picture, the most probable first."""

    model: str
    name: str
    version: str | None
    error: Refusal | None = None
    captions: list[Caption]


class CaptionedImage(Message):
    """One picture's answers, in the order of the models asked; or why there are none."""

    image: str
    error: Refusal | None
    answers: list[Answer]
    preview: str | None = None
    """A JPEG as a data: address, where it was asked for."""


class CaptionsResponse(Message):
    """The pictures in the order of the request."""

    images: list[CaptionedImage]


class ServedModel(Message):
    """A model in service."""

    model: str
    name: str
    version: str | None
    attends: bool
    method: str
    scores: dict[str, float]
    loaded_at: str
    newer_version_failed: bool = Field(
        False, description="the registry names another version, which could not be loaded; the log says why"
    )


class Limits(Message):
    """What a request may ask for."""

    max_images: int
    max_bytes: int
    max_request_bytes: int
    max_pixels: int
    max_top: int


class ModelsResponse(Message):
    """Who captions, and within which limits."""

    models: list[ServedModel]
    second_opinions: list[str]
    limits: Limits
    can_search: bool
    needs_key: bool


class CaptionPart(Message):
    """A piece of a caption, and whether the query found it."""

    text: str
    found: bool


class FoundImage(Message):
    """A picture of the collection."""

    id: str
    name: str
    caption: list[CaptionPart]
    score: float
    thumbnail: str


class SearchResponse(Message):
    """What a query found, the best first."""

    images: list[FoundImage]


class ProblemBody(BaseModel):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    images: list[CaptionedImage] | None = None

"""What the service may be told: every limit with its unit and default."""

from pathlib import Path

from pydantic import Field

from captioning.params import Settings


class ServiceSettings(Settings):
    """The settings of `captioning serve`; each is an option of the command (`max_images`: `--max-images`)."""

    host: str = Field("127.0.0.1", description="address to listen at; 0.0.0.0 is every one of this machine")
    port: int = Field(8000, ge=0, le=65535, description="port to listen at; 0 is any free one")

    model: str | None = Field(
        None, description="registered model or folder (default: register.model_name of params.yaml)"
    )
    challenger: str | None = Field(
        None, description="a second registered model or folder, captioning beside the champion where asked"
    )
    collection: Path | None = Field(
        None, description="folder that `captioning index` wrote (default: collection of this home)"
    )

    max_images: int = Field(16, ge=1, description="pictures a request")
    max_bytes: int = Field(20_000_000, ge=1, description="bytes of a picture's file")
    max_request_bytes: int = Field(64_000_000, ge=1, description="bytes of a request's body")
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of a picture, width times height")
    max_top: int = Field(10, ge=1, description="captions a picture")

    timeout_seconds: float = Field(30.0, gt=0, description="seconds a request may take, reading it included")

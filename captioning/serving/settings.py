"""What the service may be told: every limit with its unit and default."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from captioning.params import Settings
from captioning.serving.setting_values import Networks, Numbers, Opinions, Prefixes, Words


class ServiceSettings(Settings):
    """The settings of `captioning serve`; each is an option of the command (`max_images`: `--max-images`)."""

    host: str = Field("127.0.0.1", description="address to listen at; 0.0.0.0 is every one of this machine")
    port: int = Field(8000, ge=0, le=65535, description="port to listen at; 0 is any free one")

    model: str | None = Field(
        None,
        description="NAME, NAME@ALIAS or NAME/VERSION of the registry, or a folder (default: the champion of "
        "register.model_name in params.yaml)",
    )
    challenger: str | None = Field(
        None, description="a second model, named as the first, that captions beside it where asked"
    )
    shadow_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the pictures that the challenger captions unseen, to be compared",
    )
    poll_seconds: float = Field(10.0, gt=0, description="seconds between two looks for a new champion")
    collection: Path | None = Field(
        None, description="folder that `captioning index` wrote (default: collection of this home)"
    )

    max_images: int = Field(16, ge=1, description="pictures a request")
    max_bytes: int = Field(20_000_000, ge=1, description="bytes of a picture's file")
    max_request_bytes: int = Field(64_000_000, ge=1, description="bytes of a request's body")
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of a picture, width times height")
    max_top: int = Field(10, ge=1, description="captions a picture")

    max_found: int = Field(100, ge=1, description="pictures a search")
    max_memory_bytes: int = Field(
        512_000_000, ge=1, description="bytes of the bodies of all requests at a time; further ones get 503"
    )

    max_queue: int = Field(
        256, ge=1, description="pictures accepted and not yet answered; further requests get 503"
    )
    batch_size: int = Field(16, ge=1, description="pictures captioned together at most")
    batch_wait_seconds: float = Field(
        0.0, ge=0, le=1, description="seconds a batch that is not full waits for more pictures"
    )
    batches_at_once: int | None = Field(
        None,
        ge=1,
        description="batches captioned at the same time (default: 1 on a GPU, else 1 a core, up to 4)",
    )
    timeout_seconds: float = Field(30.0, gt=0, description="seconds a request may take, reading it included")
    head_seconds: float = Field(10.0, gt=0, description="seconds the head of a request may take to arrive")
    body_seconds: float = Field(20.0, gt=0, description="seconds the body of a request may take to arrive")
    stop_seconds: float = Field(
        30.0, gt=0, description="seconds that requests in work may still take once the service is told to end"
    )
    decode_seconds: float = Field(10.0, gt=0, description="seconds to decode a picture")
    decoders: int = Field(
        2, ge=1, description="pictures decoded at the same time, each in a process of its own"
    )

    fetch_urls: bool = Field(True, description="read pictures from any public http or https address")
    fetch_seconds: float = Field(10.0, gt=0, description="seconds to fetch a picture")
    fetch_ports: Numbers = Field((80, 443, 8080, 8443), description="ports that pictures are fetched from")
    max_redirects: int = Field(3, ge=0, description="redirects followed from an address")
    allowed_networks: Networks = Field(
        (), description="networks such as 10.1.2.0/24 that pictures are fetched from, too, though not public"
    )
    storage_prefixes: Prefixes = Field(
        (),
        description="prefixes such as s3://bucket/folder/ that pictures are read from (also gs, az, https)",
    )

    second_opinions: Opinions = Field(
        (), description="other captioners, each NAME=KIND:ADDRESS, of the kinds azure, captioning and mlflow"
    )
    second_opinion_seconds: float = Field(10.0, gt=0, description="seconds another captioner may take")

    keys_file: Path | None = Field(
        None, description="file of API keys, one a line; CAPTIONING_API_KEYS in the environment has them, too"
    )
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="of each API key, or each client's address where there are none (default: any number)",
    )
    burst: int = Field(20, ge=1, description="requests that may come at once before the rate counts")
    trusted_proxies: Networks = Field((), description="networks of proxies whose X-Forwarded-For is believed")
    allowed_hosts: Words = Field(
        (),
        description="names that the service is reached by; local names and IP addresses always are allowed",
    )
    cors_origins: Words = Field(
        (), description="origins such as https://example.org whose pages may use the service in a browser"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.shadow_share and not self.challenger:
            raise ValueError("--shadow-share needs a --challenger, who captions in the champion's shadow")
        for larger, smaller in (("max_queue", "max_images"), ("max_memory_bytes", "max_request_bytes")):
            if getattr(self, larger) < getattr(self, smaller):
                one, other = (f"--{name.replace('_', '-')}" for name in (larger, smaller))
                raise ValueError(
                    f"{one} ({getattr(self, larger):,}) is less than {other} ({getattr(self, smaller):,}), so a whole "
                    "request might never be taken: raise the one, or lower the other"
                )
        return self

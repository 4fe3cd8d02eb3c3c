"""What Prometheus is told at /metrics, in a registry of the service's own."""

import math

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from captioning.serving.models import LoadedModel

LATENCY_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


disable_created_metrics()  # a series more for each, which says when it began


class Measures:
    """Counts and times since the start."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "captioning_requests_total",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "captioning_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=LATENCY_SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "captioning_requests_in_flight", "Requests being answered.", registry=self._registry
        )
        self.waiting = Gauge(
            "captioning_queue_pictures", "Pictures that wait for a batch.", registry=self._registry
        )
        self.accepted = Gauge(
            "captioning_accepted_pictures", "Pictures accepted and not yet answered.", registry=self._registry
        )
        self.batch_sizes = Histogram(
            "captioning_batch_pictures", "Pictures of a batch.", buckets=BATCH_SIZES, registry=self._registry
        )
        self.batch_seconds = Histogram(
            "captioning_batch_seconds",
            "To caption a batch.",
            buckets=LATENCY_SECONDS,
            registry=self._registry,
        )
        self.captions = Counter(
            "captioning_captions_total", "Captions made.", ["model"], registry=self._registry
        )
        self.pictures = Counter(
            "captioning_pictures_total",
            "Pictures of requests, by the status of each.",
            ["status"],
            registry=self._registry,
        )
        self.models = Gauge(
            "captioning_model_info",
            "1 for each version in service.",
            ["model", "name", "version"],
            registry=self._registry,
        )
        self.takeovers = Counter(
            "captioning_takeovers_total",
            "Versions that took over, and that could not.",
            ["model", "outcome"],
            registry=self._registry,
        )
        self.shadowed = Counter(
            "captioning_shadow_pictures_total",
            "Pictures that the challenger captioned in the champion's shadow: same, different or dropped.",
            ["outcome"],
            registry=self._registry,
        )
        self.agreement = Gauge(
            "captioning_shadow_agreement",
            "Share of these with the champion's very caption.",
            registry=self._registry,
        )
        self._forget_agreement()

    def text(self) -> bytes:
        """Return all of it in Prometheus' format."""
        return generate_latest(self._registry)

    def model_entered(self, model: LoadedModel) -> None:
        """Note a version that captions from now on."""
        self.model_left(model.role)
        self._forget_agreement()
        self.models.labels(model.role, model.name, model.version or "").set(1)

    def model_left(self, role: str) -> None:
        """Forget the version that had a role."""
        self.models.remove_by_labels({"model": role})

    def took_over(self, role: str) -> None:
        """Count a version that replaced another."""
        self.takeovers.labels(role, "done").inc()

    def takeover_failed(self, role: str) -> None:
        """Count a version that could not be loaded."""
        self.takeovers.labels(role, "failed").inc()

    def shadow(self, *, is_same: bool) -> None:
        """Count a picture that both captioned."""
        self.shadowed.labels("same" if is_same else "different").inc()
        self._num_shadowed += 1
        self._num_same += is_same
        self.agreement.set(self._num_same / self._num_shadowed)

    def _forget_agreement(self) -> None:
        """Begin anew: agreement is of the versions in service."""
        self._num_shadowed = self._num_same = 0
        self.agreement.set(math.nan)

    def shadow_dropped(self) -> None:
        """Count a picture that was not captioned a second time, for the service was busy."""
        self.shadowed.labels("dropped").inc()

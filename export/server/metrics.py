"""What the server counts, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """Counters, histograms and gauges of one server, with a registry of their own."""

    def __init__(self) -> None:
        """Starts from zero."""
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "asr_serve_requests", "Requests answered.", ["method", "signature", "code"], registry=self._registry
        )
        self._seconds = prometheus_client.Histogram(
            "asr_serve_request_seconds",
            "From the request's headers to its answer.",
            ["method"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = prometheus_client.Histogram(
            "asr_serve_batch_size", "Examples of each batch.", buckets=_SIZES, registry=self._registry
        )
        self._versions = prometheus_client.Gauge(
            "asr_serve_model_version", "1 for each version that is served.", ["version"], registry=self._registry
        )
        self._waiting = prometheus_client.Gauge(
            "asr_serve_waiting_examples", "Examples that wait for a batch.", registry=self._registry
        )
        self._connections = prometheus_client.Gauge(
            "asr_serve_connections", "Connections that are open.", registry=self._registry
        )

    def watch_waiting(self, num_waiting: Callable[[], int]) -> None:
        """Says who knows how many examples wait for a batch."""
        self._waiting.set_function(num_waiting)

    def watch_connections(self, num_open: Callable[[], int]) -> None:
        """Says who knows how many connections are open."""
        self._connections.set_function(num_open)

    def count_request(self, method: str, signature: str, code: int, seconds: float) -> None:
        """Counts a request that was answered.

        Args:
            method: predict, status, metadata, metrics, or other: KServe's paths, and what is on none.
            signature: its name, empty where there is none.
            code: HTTP status.
            seconds: that it took.
        """
        self._requests.labels(method, signature, str(code)).inc()
        self._seconds.labels(method).observe(seconds)

    def count_batch(self, size: int) -> None:
        """Counts a batch of that many examples."""
        self._batches.observe(size)

    def set_versions(self, numbers: list[int]) -> None:
        """Says which versions are served."""
        self._versions.clear()
        for number in numbers:
            self._versions.labels(str(number)).set(1)

    def page(self) -> bytes:
        """The text that Prometheus reads: these metrics, and those of the process."""
        return prometheus_client.generate_latest(self._registry) + prometheus_client.generate_latest()

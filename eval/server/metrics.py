"""What Prometheus reads at /metrics."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Of one application; `endpoint` is a route's pattern, so that there are few."""

    def __init__(self, sessions: Callable[[], int], waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        seen = {"registry": self.registry, "namespace": "proccorpus_reward"}
        self.requests = Counter("requests", "Requests answered.", ["endpoint", "method", "status"], **seen)
        self.seconds = Histogram(
            "request_seconds", "From a request's head to the end of its answer.", ["endpoint"], buckets=SECONDS, **seen
        )
        self.frames = Counter("frames", "Moments scored.", **seen)
        self.failures = Counter("failures", "Moments for which there was no number.", **seen)
        self.batch = Histogram("batch_size", "Moments scored at once.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), **seen)
        self.scoring = Histogram("scoring_seconds", "Seconds that a batch took.", buckets=SECONDS, **seen)
        self.expired = Counter("sessions_expired", "Sessions forgotten because nobody used them.", **seen)
        Gauge("sessions", "Sessions open now.", **seen).set_function(sessions)
        Gauge("waiting", "Moments that wait to be scored or are scored now.", **seen).set_function(waiting)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        endpoint = getattr(route, "path", "other")
        self.requests.labels(endpoint, scope["method"] if route else "other", str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class RequestMetrics:
    """ASGI middleware that counts and times each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            self.metrics.observe(scope, status, time.perf_counter() - started)

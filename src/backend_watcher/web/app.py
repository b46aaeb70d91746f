"""
What is answered over HTTP.

| path     | answers |
|----------|---------|
| /livez   | 200: the process answers |
| /readyz  | 200: changes come and are delivered; 503 with a line for each reason why not |
| /metrics | Prometheus' exposition: `telemetry/names.py` says what is in it |

No value of a row and no text of an error is in any of them. Where the watcher listens for this machine only, a page of
another site that a browser here shows must not ask either: the name in `Host` has to be one of this machine's.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from backend_watcher.errors import WatcherError
from backend_watcher.service.faces import Inside

HOSTS = ["127.0.0.1", "localhost", "[::1]"]


def make_app(inside: Inside) -> Starlette:
    """Return the application."""

    async def live(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        found = inside.readiness()
        if found.is_ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("".join(f"{reason}\n" for reason in found.reasons), 503)

    async def metrics(request: Request) -> Response:
        try:
            text, content_type = await inside.metrics(request.headers.get("accept", ""))
        except WatcherError as error:
            return PlainTextResponse(f"{type(error).__name__}\n", 503)
        return Response(text, media_type=content_type)

    routes = [Route(path, answer) for path, answer in (("/livez", live), ("/readyz", ready), ("/metrics", metrics))]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)])

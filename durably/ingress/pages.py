"""What an ingress shows of itself: the page at its root, and OpenAPI documents.

GET /                              with `accept: text/html`: the handlers, each with a form to try it
GET /restate/openapi               the OpenAPI document of all services
GET /restate/openapi/{service}     of one
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from durably.ingress.index_page import POLICY, index_page
from durably.ingress.paths import MOUNT
from durably.runtime.gateway.describe import installed_version
from durably.runtime.gateway.openapi import openapi_document
from durably.runtime.gateway.requests import ServiceDescription, ServiceSchemas

TITLE: Final = "durably"


class DescribedRuntime(Protocol):
    """The part of a `Runtime` that is shown."""

    def describe(self) -> list[ServiceDescription]: ...
    def describe_schemas(self) -> list[ServiceSchemas]: ...


def wants_page(scope: Scope) -> bool:
    """A browser asks; a program would say that it takes everything."""
    if scope["method"] != "GET":
        return False
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def page_routes(runtime: DescribedRuntime) -> list[Route]:
    """The routes above, for an application whose scopes were made by `scope_below`."""

    def index(request: Request) -> Response:
        page = index_page(runtime.describe(), title=TITLE, root=_mount(request))
        return HTMLResponse(page, headers={"content-security-policy": POLICY, "x-content-type-options": "nosniff"})

    def openapi(request: Request) -> Response:
        wanted: str | None = request.path_params.get("service")
        services = zip(runtime.describe(), runtime.describe_schemas(), strict=True)
        chosen = [pair for pair in services if (pair[0].name == wanted if wanted else not pair[0].private)]
        if wanted and not chosen:
            raise HTTPException(404)
        document = openapi_document(
            chosen, title=wanted or TITLE, version=installed_version(), server=_mount(request) or "/"
        )
        return Response(msgspec.json.encode(document), media_type="application/json")

    return [
        Route("/", index, methods=["GET"]),
        Route("/restate/openapi", openapi, methods=["GET"]),
        Route("/restate/openapi/{service}", openapi, methods=["GET"]),
    ]


def _mount(request: Request) -> str:
    mount: str = request.scope.get(MOUNT, "")
    return mount.rstrip("/")

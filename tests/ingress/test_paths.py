from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from durably.ingress import Ingress
from durably.ingress.paths import path_segments
from tests.ingress.fake import FakeRuntime

SEGMENTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=3)

MOUNTS = SEGMENTS.filter(lambda mount: not mount[-1].endswith("/"))


def encoded(segments: list[str]) -> list[bytes]:
    return [quote(segment, safe="").encode() for segment in segments]


def scope(mount: list[str], way: list[str], **more: Any) -> dict[str, Any]:
    """What a server tells: `way` is the whole path."""
    raw = b"/" + b"/".join(encoded(way))
    root_path = "/" + "/".join(mount) if mount else ""
    return {"type": "http", "path": "/" + "/".join(way), "raw_path": raw, "root_path": root_path, **more}


@given(mount=MOUNTS, way=SEGMENTS, slash=st.sampled_from(["", "/"]))
def test_a_mount_point_is_removed_whatever_its_segments_and_those_below_hold(
    mount: list[str], way: list[str], slash: str
) -> None:
    asked = scope(mount, [*mount, *way])
    asked["root_path"] += slash
    assert path_segments(asked) == encoded(way)


@given(mount=MOUNTS, more=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1))
def test_a_mount_point_ends_with_a_segment(mount: list[str], more: str) -> None:
    way = [*mount[:-1], mount[-1] + more, "handler"]
    assert path_segments(scope(mount, way)) == encoded(way)


@given(outer=MOUNTS, mount=MOUNTS, way=SEGMENTS)
def test_what_a_proxy_has_removed_already_is_not_missed(outer: list[str], mount: list[str], way: list[str]) -> None:
    passed_on = [*mount, *way]
    assume(encoded(passed_on)[: len(outer)] != encoded(outer))
    assume("/".join(passed_on) + "/" != "/".join(outer) + "/")
    asked = scope([*outer, *mount], passed_on, app_root_path="/" + "/".join(outer))
    assume(not ("/" + "/".join(passed_on)).startswith(asked["root_path"]))
    assert path_segments(asked) == encoded(way)


@given(way=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1), min_size=1))
def test_a_server_without_raw_paths_decodes_once(way: list[str]) -> None:
    asked = scope(["api"], ["api", *way])
    del asked["raw_path"]
    assert path_segments(asked) == encoded(way)


def test_a_query_that_a_server_left_on_the_raw_path_is_no_part_of_it() -> None:
    asked = scope([], ["Counter", "what?", "add"], query_string=b"delay=1s")
    asked["raw_path"] += b"?delay=1s"
    assert path_segments(asked) == [b"Counter", b"what%3F", b"add"]


@pytest.mark.parametrize("path", ["//CartObject/Mary/checkout", "/CartObject//checkout", "/CartObject/Mary//checkout"])
async def test_an_empty_segment_is_a_bad_path(path: str) -> None:
    runtime = FakeRuntime()
    transport = httpx.ASGITransport(Ingress(runtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
        response = await client.post(f"http://durably{path}")
    assert (response.status_code, runtime.calls) == (400, [])
    assert response.json()["message"].startswith("bad path")


@pytest.mark.parametrize("path", ["/CartObject/a%2Fb/checkout", "/restate/health/"])
@pytest.mark.parametrize("mount", ["", "/Cart", "/x/größe"])
@pytest.mark.parametrize("proxied", ["", "/CartO", "/api/v1/"])
async def test_it_answers_below_any_mount_of_an_application_behind_a_proxy(path: str, mount: str, proxied: str) -> None:
    """`proxied` is what the proxy has removed, and the server is told as its root path."""
    runtime = FakeRuntime()
    outer = FastAPI()
    outer.mount(mount, Ingress(runtime))
    transport = httpx.ASGITransport(outer, root_path=proxied)
    async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
        response = await client.get(quote(mount) + path)
    assert response.status_code == 200
    if "restate" not in path:
        assert [(call.service, call.key) for call in runtime.calls] == [("CartObject", "a/b")]


async def test_mounts_may_be_nested() -> None:
    runtime = FakeRuntime()
    outer = Starlette(routes=[Mount("/a", routes=[Mount("/{tenant}", app=Ingress(runtime))])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://durably") as client:
        assert (await client.get("/a/blue/CartObject/Mary/checkout")).status_code == 200
        assert (await client.get("/a/blue/restate/health")).status_code == 200
    assert [call.key for call in runtime.calls] == ["Mary"]

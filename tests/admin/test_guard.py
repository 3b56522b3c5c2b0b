"""Pages of other sites cannot use the admin API through an operator's browser."""

from __future__ import annotations

import pytest

from durably.admin.guard import refusal

TOOLS_AND_OWN_PAGES = [
    {"host": "127.0.0.1:9070"},
    {"host": "localhost"},
    {"host": "[::1]:9070", "origin": "http://[::1]:9070"},
    {"host": "localhost:9070", "origin": "http://localhost:9070", "sec-fetch-site": "same-origin"},
    {"host": "10.0.0.3:9070", "sec-fetch-site": "none"},
]
OTHERS = [
    {"host": "localhost:9070", "origin": "http://localhost:3000"},
    {"host": "localhost:9070", "origin": "https://evil.example"},
    {"host": "localhost:9070", "origin": "null"},
    {"host": "localhost:9070", "origin": "http://[evil"},
    {"host": "localhost:9070", "sec-fetch-site": "cross-site"},
    {"host": "localhost:9070", "sec-fetch-site": "same-site"},
]
OTHER_NAMES = [
    "evil.example:9070",
    "localhost.evil.example",
    "",
    "[",
    "127.0.0.1.evil.example",
    "localhost@evil.example",
]


def of(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


@pytest.mark.parametrize("headers", TOOLS_AND_OWN_PAGES)
def test_tools_and_pages_of_its_own_are_answered(headers: dict[str, str]) -> None:
    assert refusal(of(headers), is_own_port=True) is None


@pytest.mark.parametrize("headers", OTHERS)
@pytest.mark.parametrize("is_own_port", [True, False])
def test_pages_of_other_sites_are_refused(headers: dict[str, str], is_own_port: bool) -> None:
    assert refusal(of(headers), is_own_port=is_own_port)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_name_that_can_be_pointed_here_is_refused_on_its_own_port(name: str) -> None:
    assert refusal(of({"host": name, "origin": f"http://{name}"}), is_own_port=True)


def test_where_it_is_mounted_the_host_is_the_business_of_its_program() -> None:
    assert refusal(of({"host": "ops.example", "origin": "https://ops.example"}), is_own_port=False) is None

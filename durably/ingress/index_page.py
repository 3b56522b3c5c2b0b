"""The page at the root of an ingress: what it serves, with a form for each handler to try it. `index_page` makes it.

It loads nothing from elsewhere, and its policy forbids that.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from typing import Final
from urllib.parse import quote

from durably.runtime.gateway.requests import HandlerDescription, ServiceDescription

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h2 small, summary small { font-weight: normal; opacity: .7; }
details { border: 1px solid #8886; border-radius: .4rem; margin: .5rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; } code, textarea, input, output { font: .9rem/1.4 ui-monospace, monospace; }
form { display: grid; gap: .5rem; margin: .8rem 0 .3rem; } label { display: grid; gap: .2rem; }
input, textarea { padding: .4rem; } textarea { min-height: 4.5rem; }
button { font: inherit; padding: .3rem 1rem; margin-right: .5rem; }
output { white-space: pre-wrap; overflow-wrap: anywhere; } output:empty { display: none; }
output.failed { color: #c33; } nav a { margin-right: 1rem; }
"""
_SCRIPT: Final = """
for (const form of document.forms) form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = (name) => form.elements.namedItem(name);
  const output = form.querySelector("output");
  const segments = [form.dataset.service];
  if (field("key")) segments.push(field("key").value);
  segments.push(form.dataset.handler);
  if (event.submitter.name === "send") segments.push("send");
  const headers = {};
  if (field("idempotency") && field("idempotency").value) headers["idempotency-key"] = field("idempotency").value;
  const body = field("body") ? field("body").value : "";
  if (body) headers["content-type"] = form.dataset.accepts;
  output.className = "";
  output.textContent = "…";
  try {
    const answer = await fetch(segments.map(encodeURIComponent).join("/"), {method: "POST", headers, body});
    const text = await answer.text();
    output.className = answer.ok ? "" : "failed";
    output.textContent = `${answer.status} ${text}`;
  } catch (error) {
    output.className = "failed";
    output.textContent = String(error);
  }
});
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY: Final = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page."""
OPENAPI: Final = "restate/openapi"

_KINDS: Final = {"service": "service", "object": "virtual object", "workflow": "workflow"}
_RUNS: Final = {
    "service": "", "exclusive": "alone on its key", "shared": "beside others", "workflow": "once for each id",
}  # fmt: skip


def index_page(services: Iterable[ServiceDescription], *, title: str, root: str) -> str:
    """HTML. `root` is the path that the ingress is mounted under, without a slash at its end."""
    shown = [service for service in services if not service.private]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<base href="{escape(root)}/"><meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<nav><a href="{OPENAPI}">OpenAPI</a><a href="restate/health">Health</a></nav>'
        f"{''.join(map(_section, shown)) or '<p>No handler is public.</p>'}<script>{_SCRIPT}</script></body></html>\n"
    )


def _section(service: ServiceDescription) -> str:
    handlers = "".join(_handler(service, handler) for handler in service.handlers if not handler.private)
    return (
        f"<section><h2>{escape(service.name)} <small>{_KINDS[service.kind]}</small></h2>"
        f"{_paragraph(service.documentation)}"
        f'<p><a href="{OPENAPI}/{escape(quote(service.name, safe=""))}">OpenAPI</a></p>{handlers}</section>'
    )


def _handler(service: ServiceDescription, handler: HandlerDescription) -> str:
    parameters = ", ".join(f"{name}: {kind}" for name, kind in handler.parameters.items())
    signature = f"{handler.name}({parameters}) -> {handler.returns}"
    runs = _RUNS[handler.kind]
    key = "" if service.kind == "service" else _field("key", "id" if service.kind == "workflow" else "key")
    body = "" if handler.accepts is None else _body(handler)
    idempotency = (
        "" if handler.kind == "workflow" else _field("idempotency", "idempotency key, if you like", wanted=False)
    )
    names = f'data-service="{escape(service.name)}" data-handler="{escape(handler.name)}"'
    return (
        f"<details><summary><code>{escape(signature)}</code> <small>{runs}</small></summary>"
        f"{_paragraph(handler.documentation)}"
        f'<form {names} data-accepts="{escape(handler.accepts or "")}">{key}{body}{idempotency}'
        '<div><button name="call">Call</button><button name="send">Send</button></div>'
        "<output></output></form></details>"
    )


def _body(handler: HandlerDescription) -> str:
    names = list(handler.parameters)
    what = names[0] if len(names) == 1 else f"an object of {', '.join(names)}"
    label = escape(f"{what}: {handler.accepts}")
    return f'<label>{label}<textarea name="body" spellcheck="false"></textarea></label>'


def _field(name: str, label: str, *, wanted: bool = True) -> str:
    return f'<label>{label}<input name="{name}" autocomplete="off"{" required" if wanted else ""}></label>'


def _paragraph(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part)

"""Registering a deployment at a Restate cluster: what that changes, said before it is done.

Restate looks at a deployment when it is registered. What is new there serves all invocations that begin from then on;
what is under way goes on with the deployment with which it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeVar

import httpx
import msgspec

from durably.configuration.sections import without_credentials, without_password
from durably.errors import DurablyError

T = TypeVar("T")

_SECONDS: Final = 30.0
NOTHING: Final = "nothing"


class RegistrationError(DurablyError):
    """The cluster cannot be asked, or does not take the deployment."""


class Handler(msgspec.Struct, frozen=True):
    """A handler, as Restate's admin API describes it: what of it callers and operators notice."""

    name: str
    ty: str | None = None
    public: bool = True
    input_description: str = ""
    output_description: str = ""


class Service(msgspec.Struct, frozen=True):
    """A service, an object or a workflow."""

    name: str
    ty: str
    handlers: list[Handler]
    deployment_id: str = ""
    public: bool = True
    revision: int = 0


class _Registered(msgspec.Struct):
    id: str
    services: list[Service]


class _Services(msgspec.Struct):
    services: list[Service]


class _Named(msgspec.Struct):
    name: str


class _Known(msgspec.Struct):
    id: str
    uri: str | None = None
    services: list[_Named] = []


class _Deployments(msgspec.Struct):
    deployments: list[_Known]


class _Version(msgspec.Struct):
    ingress_endpoint: str | None = None


class _Refusal(msgspec.Struct):
    message: str


class Change(msgspec.Struct, frozen=True):
    """One line of what a registration does."""

    kind: Literal["+", "~", "-"]
    """Added, changed, removed."""
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


class Plan(msgspec.Struct, frozen=True):
    """What registering a deployment would do."""

    changes: Sequence[Change]
    replaces: bool
    """Another deployment is registered at this address: what it has begun goes on with the new code."""
    is_breaking: bool
    """Something that callers may use is gone, or is of another kind."""


class Cluster:
    """A Restate cluster, by its admin API."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        try:
            self._url, credentials = without_credentials(url.rstrip("/"))
        except ValueError:
            raise RegistrationError(
                f"'{without_password(url)}' is no address. Write http://127.0.0.1:9070, for example."
            ) from None
        self._shown = without_password(self._url)
        authorization = credentials if token is None else f"Bearer {token}"
        headers = {} if authorization is None else {"authorization": authorization}
        # A cluster on this machine is not behind the proxy that the environment may name.
        self._http = httpx.Client(timeout=_SECONDS, headers=headers, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def plan(self, uri: str) -> Plan:
        """Look at the deployment that listens there, and compare it with what is registered.

        Raises:
            RegistrationError: the cluster does not answer, or cannot reach the deployment.
        """
        found = self._post({"uri": uri, "force": True, "breaking": True, "dry_run": True})
        known = {one.name: one for one in self._get("/services", _Services).services}
        there = [one for one in self._get("/deployments", _Deployments).deployments if _same(one.uri, uri)]
        changes = changes_between(found.services, known)
        of_this_address = {one.name for deployment in there for one in deployment.services}
        # A service that another address serves by now stays.
        ids = {deployment.id for deployment in there}
        gone = [name for name in of_this_address if name in known and known[name].deployment_id in ids]
        served = {one.name for one in found.services}
        removed = [Change("-", f"{name} (registered at this address)") for name in sorted(gone) if name not in served]
        is_breaking = any(one.kind == "-" or "was" in one.what for one in changes)
        return Plan([*changes, *removed], bool(there), is_breaking)

    def register(self, uri: str, plan: Plan) -> str:
        """Carry out what was planned; the id of the deployment.

        Raises:
            RegistrationError: the cluster does not take it.
        """
        return self._post({"uri": uri, "force": plan.replaces, "breaking": plan.is_breaking}).id

    def ingress_url(self) -> str | None:
        """Where calls come in, as the cluster tells it; None: it does not."""
        return self._get("/version", _Version).ingress_endpoint

    def _post(self, body: Mapping[str, object]) -> _Registered:
        return self._ask("POST", "/deployments", _Registered, body)

    def _get(self, path: str, kind: type[T]) -> T:
        return self._ask("GET", path, kind, None)

    def _ask(self, method: str, path: str, kind: type[T], body: Mapping[str, object] | None) -> T:
        try:
            answered = self._http.request(method, f"{self._url}{path}", json=body)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise RegistrationError(
                f"No admin API of Restate answers at {self._shown}: {str(error) or type(error).__name__}. It listens "
                "on port 9070 unless it is told otherwise."
            ) from error
        try:
            if answered.is_success:
                return msgspec.json.decode(answered.content, type=kind)
            refusal = msgspec.json.decode(answered.content, type=_Refusal).message
        except msgspec.MsgspecError:
            raise RegistrationError(
                f"{self._shown} answers with {answered.status_code} and what no admin API of Restate says. Give "
                "--register the address of the admin API, such as http://127.0.0.1:9070."
            ) from None
        raise RegistrationError(f"Restate does not take the deployment: {refusal}")


def changes_between(found: Sequence[Service], known: Mapping[str, Service]) -> list[Change]:
    """What differs between the services of a deployment and those that are registered, by their names."""
    changes: list[Change] = []
    for service in found:
        before = known.get(service.name)
        if before is None:
            names = ", ".join(sorted(one.name for one in service.handlers))
            changes.append(Change("+", f"{service.name} ({_kind(service.ty)}): {names}"))
            continue
        if before.ty != service.ty:
            changes.append(Change("~", f"{service.name} is a {_kind(service.ty)}, and was a {_kind(before.ty)}"))
        if before.public != service.public:
            changes.append(Change("~", f"{service.name} becomes {'public' if service.public else 'private'}"))
        changes += _changes_of_handlers(service, before)
    return changes


def _changes_of_handlers(service: Service, before: Service) -> list[Change]:
    changes: list[Change] = []
    were = {one.name: one for one in before.handlers}
    for handler in service.handlers:
        name, was = f"{service.name}/{handler.name}", were.pop(handler.name, None)
        if was is None:
            changes.append(Change("+", name))
        elif was.ty != handler.ty:
            changes.append(Change("~", f"{name} is {_kind(handler.ty)}, and was {_kind(was.ty)}"))
        elif was != handler:
            told = [
                *([] if was.public == handler.public else ["public" if handler.public else "private"]),
                *(
                    []
                    if was.input_description == handler.input_description
                    else [f"takes {handler.input_description or NOTHING}"]
                ),
                *(
                    []
                    if was.output_description == handler.output_description
                    else [f"gives {handler.output_description or NOTHING}"]
                ),
            ]
            changes.append(Change("~", f"{name}: {', '.join(told)}"))
    return [*changes, *(Change("-", f"{service.name}/{name}") for name in were)]


def _kind(ty: str | None) -> str:
    return {"VirtualObject": "virtual object", None: "a handler"}.get(ty, (ty or "").lower())


def _same(registered: str | None, uri: str) -> bool:
    return registered is not None and registered.rstrip("/") == uri.rstrip("/")

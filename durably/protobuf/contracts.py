"""The services of a `.proto` as contracts: what is generated, before it is text.

Names on the wire are those of the `.proto`: `helloworld.Greeter`, `SayHello`. Only the method `Run` of a workflow is
`run`, as durably calls it. Attributes in Python are in snake case.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal, TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from durably.actors.definition.definition import RESERVED_NAMES, SERVICE_NAME
from durably.actors.handlers import HANDLER_NAME, HIDING_NAMES
from durably.ids import RUN
from durably.protobuf import options_pb2

Kind: TypeAlias = Literal["service", "object", "workflow"]
Place: TypeAlias = tuple[int, ...]
"""Where something stands in a file, in protobuf's numbers."""

KINDS: Final[Mapping[int, Kind]] = {
    options_pb2.SERVICE: "service",
    options_pb2.OBJECT: "object",
    options_pb2.WORKFLOW: "workflow",
}
SERVICES: Final = FileDescriptorProto.SERVICE_FIELD_NUMBER
METHODS: Final = ServiceDescriptorProto.METHOD_FIELD_NUMBER

PACKAGE: Final = "durably"
TAKEN_NAMES: Final = frozenset({PACKAGE, "annotations"})
"""What a generated class cannot be called: what the generated module imports, beside the modules of messages."""
TAKEN_ATTRIBUTES: Final = frozenset({PACKAGE, "key", *HIDING_NAMES})
"""What a handler cannot be called in a generated class: `durably` is the module there."""

_WORD_BORDER: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class GenerationError(Exception):
    """What a file asks for cannot be generated; names the file and the place in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A handler."""

    name: str
    """On the wire."""
    attribute: str
    shared: bool
    request: str
    """The class in Python, from its module on: `shop.cart_pb2.AddRequest`."""
    response: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A class of actors that is to be implemented."""

    name: str
    """On the wire."""
    class_name: str
    kind: Kind
    methods: Sequence[Method]
    comment: str

    @property
    def client_name(self) -> str:
        return f"{self.class_name.rstrip('_')}Client"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractFile:
    """What is generated for one file."""

    source: str
    modules: Sequence[str]
    """What it imports for the messages."""
    contracts: Sequence[Contract]


class MessageNames:
    """The classes of all messages that a run of protoc knows, by their full name in protobuf."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._found: dict[str, tuple[str, str]] = {}
        for file in files:
            package = f".{file.package}." if file.package else "."
            for message in file.message_type:
                self._add(module_of(file.name), package + message.name, message.name, message)

    def _add(self, module: str, full_name: str, name: str, message: DescriptorProto) -> None:
        self._found[full_name] = (module, name)
        for nested in message.nested_type:
            self._add(module, f"{full_name}.{nested.name}", f"{name}.{nested.name}", nested)

    def find(self, full_name: str, where: str) -> tuple[str, str]:
        """Its module, and its class with the module.

        Raises:
            GenerationError: it has a name that Python's syntax does not allow.
        """
        module, name = self._found[full_name]
        wrong = next(filter(keyword.iskeyword, f"{module}.{name}".split(".")), None)
        if wrong is not None:
            raise GenerationError(
                f"{where} has the message {full_name[1:]}, and {wrong!r} is a keyword of Python, so its class "
                f"{module}.{name} cannot be named. Give it another name."
            )
        return module, f"{module}.{name}"


def module_of(file: str) -> str:
    """The module that protoc's own generator writes for a file."""
    return file.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"


def target_of(file: str) -> str:
    """The file that is generated: beside that module, under another name."""
    return str(PurePosixPath(module_of(file).replace(".", "/")).with_suffix("")).removesuffix("_pb2") + "_durably.py"


def contracts_in(file: FileDescriptorProto, names: MessageNames) -> ContractFile:
    """What the services of a file are in Python.

    Raises:
        GenerationError: one of them cannot be a class of actors.
    """
    comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
    reader = _Reader(file, names, comments)
    contracts = [reader.contract(service, (SERVICES, at)) for at, service in enumerate(file.service)]
    taken: set[str] = set()
    for contract in contracts:
        for name in (contract.class_name, contract.client_name):
            if name in taken:
                raise GenerationError(
                    f"{file.name}: {contract.name} would be generated as {name!r}, as another service of the file is. "
                    "Give one of them another name, or a file of its own."
                )
            if name in reader.roots:
                raise GenerationError(
                    f"{file.name}: the client of {contract.name} would be generated as {name!r}, and messages are "
                    "imported from a package of that name. Give the service or the folder another name."
                )
            taken.add(name)
    return ContractFile(source=file.name, modules=sorted(reader.modules), contracts=contracts)


class _Reader:
    """Reads one file."""

    def __init__(self, file: FileDescriptorProto, names: MessageNames, comments: Mapping[Place, str]) -> None:
        self._file = file
        self._names = names
        self._comments = comments
        everything = [(service, method) for service in file.service for method in service.method]
        self.modules = {module for service, method in everything for module, _ in self._types(service, method)}
        self.roots = frozenset(module.partition(".")[0] for module in self.modules)
        """What no name in the generated module may hide."""

    def contract(self, service: ServiceDescriptorProto, place: Place) -> Contract:
        name = self._name_of(service)
        where = f"{self._file.name}: {name}"
        number: Any = service.options.Extensions[options_pb2.kind]
        kind = KINDS.get(number)
        if kind is None:
            raise GenerationError(f"{where} has an unknown (durably.kind). Use SERVICE, OBJECT or WORKFLOW.")
        if not SERVICE_NAME.fullmatch(name) or name in RESERVED_NAMES:
            raise GenerationError(f"{where} has a name that cannot stand in a path. Give it another one.")
        methods = [
            self._method(service, method, kind, (*place, METHODS, at)) for at, method in enumerate(service.method)
        ]
        _check_attributes(methods, where)
        if kind == "workflow" and not any(method.name == RUN for method in methods):
            raise GenerationError(
                f"{where} is a WORKFLOW without a method Run, which is what executes once for each id. Add it."
            )
        return Contract(
            name=name,
            class_name=_free(service.name, TAKEN_NAMES | self.roots),
            kind=kind,
            methods=methods,
            comment=self._comments.get(place, ""),
        )

    def _name_of(self, service: ServiceDescriptorProto) -> str:
        return f"{self._file.package}.{service.name}" if self._file.package else service.name

    def _where(self, service: ServiceDescriptorProto, method: MethodDescriptorProto) -> str:
        return f"{self._file.name}: {self._name_of(service)}.{method.name}"

    def _types(self, service: ServiceDescriptorProto, method: MethodDescriptorProto) -> list[tuple[str, str]]:
        """The modules and classes of what a method takes and gives."""
        where = self._where(service, method)
        return [self._names.find(name, where) for name in (method.input_type, method.output_type)]

    def _method(
        self, service: ServiceDescriptorProto, method: MethodDescriptorProto, kind: Kind, place: Place
    ) -> Method:
        where = self._where(service, method)
        if method.client_streaming or method.server_streaming:
            raise GenerationError(
                f"{where} is a streaming method, and a durable handler takes one message and answers with one. Make it "
                "unary, or move it to a service in a file for which protoc-gen-durably does not run."
            )
        shared: Any = method.options.Extensions[options_pb2.shared]
        is_run = kind == "workflow" and method.name.lower() == RUN
        name = RUN if is_run else method.name
        if not HANDLER_NAME.fullmatch(name):
            raise GenerationError(f"{where} has a name that cannot stand in a path. Give it another one.")
        if shared and kind == "service":
            raise GenerationError(
                f"{where} has the option (durably.shared), and a service has no state to share. Leave it out, or write "
                "`option (durably.kind) = OBJECT;` in the service."
            )
        if shared and is_run:
            raise GenerationError(
                f"{where} has the option (durably.shared), and it is what a workflow executes once. Leave it out."
            )
        (_, request), (_, response) = self._types(service, method)
        return Method(
            name=name,
            attribute=_free(_WORD_BORDER.sub("_", name).lower(), TAKEN_ATTRIBUTES | self.roots),
            shared=not is_run if kind == "workflow" else bool(shared),
            request=request,
            response=response,
            comment=self._comments.get(place, ""),
        )


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, marked where Python or the generated code uses it for something else."""
    return f"{name}_" if keyword.iskeyword(name) or name in taken else name


def _check_attributes(methods: Iterable[Method], where: str) -> None:
    known: dict[str, Method] = {}
    for method in methods:
        other = known.setdefault(method.attribute, method)
        if other is not method:
            raise GenerationError(
                f"{where} has the methods {other.name} and {method.name}, and both would be {method.attribute!r} in "
                "Python. Give one of them another name."
            )

"""`protoc-gen-durably`: a plugin of protoc that writes a contract and a client for each service of a `.proto`.

    protoc -I. -I"$(protoc-gen-durably --proto-path)" --python_out=. --pyi_out=. --durably_out=. shop.proto

`--durably_opt=serde=binary` makes the binary form of messages what goes over the wire and into the store, instead of
their JSON. What cannot be generated is an error of protoc that names the file and the method.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from durably.protobuf.contracts import GenerationError, MessageNames, contracts_in, target_of
from durably.protobuf.rendering import SerdeName, render

PROTO_PATH: Final = Path(__file__).parents[2]
"""Where protoc finds `durably/protobuf/options.proto`."""

USAGE: Final = """\
protoc-gen-durably is run by protoc, which finds it on the PATH:

    protoc -I. -I"$(protoc-gen-durably --proto-path)" --python_out=. --pyi_out=. --durably_out=. shop.proto

--durably_opt=serde=binary makes the binary form of messages what is sent and stored, instead of their JSON.
--proto-path prints the folder for -I in which durably/protobuf/options.proto is.
"""


def main() -> None:
    """Answer protoc, or say how to be run."""
    arguments = sys.argv[1:]
    if arguments == ["--proto-path"]:
        sys.stdout.write(f"{PROTO_PATH}\n")
    elif arguments or sys.stdin.isatty():
        sys.stdout.write(USAGE)
        sys.exit(0 if arguments in (["--help"], ["-h"]) else 2)
    else:
        request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
        sys.stdout.buffer.write(respond(request).SerializeToString())


def respond(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The files that protoc writes, or the reason why there are none."""
    response = CodeGeneratorResponse()
    _say_what_is_understood(response)
    try:
        serde = _serde(request.parameter)
        names = MessageNames(request.proto_file)
        wanted = set(request.file_to_generate)
        for file in request.proto_file:
            if file.name in wanted and file.service:
                made = response.file.add()
                made.name = target_of(file.name)
                made.content = render(contracts_in(file, names), serde)
    except GenerationError as error:
        del response.file[:]
        response.error = str(error)
    return response


def _say_what_is_understood(response: Any) -> None:
    """Nothing here depends on the fields of messages, so optional ones and all editions are fine."""
    response.supported_features = response.FEATURE_PROTO3_OPTIONAL | response.FEATURE_SUPPORTS_EDITIONS
    response.minimum_edition = EARLIEST_EDITION
    response.maximum_edition = LATEST_EDITION


EARLIEST_EDITION, LATEST_EDITION = 998, 1001
"""From proto2 to edition 2024, in protobuf's numbers."""


def _serde(parameter: str) -> SerdeName:
    chosen: SerdeName = "json"
    for one in filter(None, parameter.split(",")):
        match one.strip():
            case "serde=json":
                chosen = "json"
            case "serde=binary":
                chosen = "binary"
            case unknown:
                raise GenerationError(
                    f"protoc-gen-durably does not know the option {unknown!r}. It takes serde=json, which is what it "
                    "does if nothing is said, and serde=binary: --durably_opt=serde=binary."
                )
    return chosen


if __name__ == "__main__":
    main()

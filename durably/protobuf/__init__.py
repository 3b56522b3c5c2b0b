"""Protobuf messages as values: a Serde for their binary form, and one for their JSON. Needs the extra `protobuf`.

    class Greeter(Service, serde=ProtobufSerde): ...

`protoc-gen-durably` (`durably.protobuf.plugin`) generates contracts and clients from the services of a `.proto`.
"""

try:
    import google.protobuf as _protobuf
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "durably.protobuf needs protobuf: pip install 'durably[protobuf]'.", name=error.name
    ) from None

from durably.protobuf.serdes import ProtobufJsonSerde as ProtobufJsonSerde
from durably.protobuf.serdes import ProtobufSerde as ProtobufSerde

__all__ = ["ProtobufJsonSerde", "ProtobufSerde"]

del _protobuf

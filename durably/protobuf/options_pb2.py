"""`options.proto` for Python: what the generated code of a `.proto` that imports it imports.

It is written by hand, because what protoc generates is for one version of protobuf and those after it. A test compares
the two.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import (
    descriptor_pb2,  # pyright: ignore[reportUnusedImport]  # noqa: F401 - the pool has to know what is extended
    text_format,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default

FILE: Final = """
name: "durably/protobuf/options.proto"
package: "durably"
dependency: "google/protobuf/descriptor.proto"
enum_type {
  name: "Kind"
  value { name: "SERVICE" number: 0 }
  value { name: "OBJECT" number: 1 }
  value { name: "WORKFLOW" number: 2 }
}
extension {
  name: "kind"
  extendee: ".google.protobuf.ServiceOptions"
  number: 51210
  label: LABEL_OPTIONAL
  type: TYPE_ENUM
  type_name: ".durably.Kind"
  json_name: "kind"
}
extension {
  name: "shared"
  extendee: ".google.protobuf.MethodOptions"
  number: 51210
  label: LABEL_OPTIONAL
  type: TYPE_BOOL
  json_name: "shared"
}
syntax: "proto3"
"""

Default().AddSerializedFile(text_format.Parse(FILE, FileDescriptorProto()).SerializeToString())

DESCRIPTOR = Default().FindFileByName("durably/protobuf/options.proto")

kind: Any = DESCRIPTOR.extensions_by_name["kind"]
shared: Any = DESCRIPTOR.extensions_by_name["shared"]

SERVICE, OBJECT, WORKFLOW = 0, 1, 2

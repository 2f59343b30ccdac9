"""Recorded steps, with only that taken apart which is looked at.

To read a field of a message costs many times what it costs to parse it, and a message within a message more. A view has
the same form on the wire as what it shows; in it what is stored as it comes is bytes, and all that few steps have is in
one `oneof`, so that one look tells whether there is any of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Protocol, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dalsegno.v1.execution_pb2 import InvocationKind, InvocationState
from dalsegno.v1.execution_service_pb2 import ImportedStep, ImportedSteps, StepSpec

_PACKAGE = "dalsegno.views"
_REST = "rest"


class SpecView(Protocol):
    """What most steps have of the protocol's `StepSpec`."""

    @property
    def invocation_id(self) -> str: ...
    @property
    def definition(self) -> bytes: ...
    @property
    def code_digest(self) -> str: ...
    @property
    def inputs(self) -> bytes: ...


class _View(Protocol):
    def HasField(self, name: str) -> bool: ...
    def WhichOneof(self, name: str) -> str | None: ...


class MessageOfSpec(SpecView, _View, Protocol):
    """The same, in a message."""


class StepView(_View, Protocol):
    """What most steps have of the protocol's `ImportedStep`."""

    step: MessageOfSpec
    kind: InvocationKind.ValueType
    state: InvocationState.ValueType
    outputs: bytes
    started_at: bytes
    finished_at: bytes
    attempt: int


def viewed(batch: ImportedSteps) -> Sequence[StepView]:
    """Return the steps of a message."""
    # Serialized anew, each part comes once: where a client wrote one in pieces, they are one by now.
    return cast("Sequence[StepView]", _Steps.FromString(batch.SerializeToString()).steps)  # type: ignore[attr-defined]


def has_rest(view: MessageOfSpec | StepView) -> bool:
    """Whether there is anything that views do not show."""
    return view.WhichOneof(_REST) is not None


def _views() -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    _add_view(file, StepSpec.DESCRIPTOR, {"invocation_id", "definition", "code_digest", "inputs"})
    shown = {"step", "kind", "state", "outputs", "started_at", "finished_at", "attempt"}
    _add_view(file, ImportedStep.DESCRIPTOR, shown, kept={"step": StepSpec.DESCRIPTOR})
    ImportedSteps.DESCRIPTOR.CopyToProto(file.message_type.add())
    file.message_type[-1].field[0].type_name = f".{_PACKAGE}.{ImportedStep.DESCRIPTOR.name}"
    return file


def _add_view(
    file: FileDescriptorProto, of: Descriptor, shown: Set[str], *, kept: Mapping[str, Descriptor] | None = None
) -> None:
    """Add the view of a message, with the messages in it that are kept as views of their own."""
    view = file.message_type.add()
    of.CopyToProto(view)
    view.oneof_decl.add(name=_REST)
    for field in view.field:
        inner = kept.get(field.name) if kept is not None else None
        if inner is not None:
            field.type_name = f".{_PACKAGE}.{inner.name}"
        elif field.type == field.TYPE_ENUM:
            field.ClearField("type_name")
            field.type = field.TYPE_INT32
        elif field.type == field.TYPE_MESSAGE or field.label == field.LABEL_REPEATED:
            field.ClearField("type_name")
            field.type, field.label = field.TYPE_BYTES, field.LABEL_OPTIONAL
        if field.name not in shown:
            field.oneof_index = 0


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_views())
_Steps = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{ImportedSteps.DESCRIPTOR.name}"))

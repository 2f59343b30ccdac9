"""Values as callers give them for inputs and overrides: plain, by reference, or in the forms that JSON has for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from dalsegno.arguments import signature_of
from dalsegno.client.artifacts import Artifact, ArtifactRef
from dalsegno.client.storage import Uploads
from dalsegno.errors import Problem, UsageError
from dalsegno.payloads import encode_named, inline_payload
from dalsegno.v1.value_pb2 import Value

ARTIFACT_KEY = "$artifact"
VALUE_KEY = "$value"


def artifact_of(value: object, *, admits_uuid: bool = False) -> ArtifactRef | None:
    """Return the artifact that a value refers to; None for a plain value.

    Args:
        value: What the caller gave.
        admits_uuid: Whether the type of the input has UUIDs among its values, so that one is a value itself.

    Raises:
        UsageError: If ``{"$artifact": …}`` holds no UUID.
    """
    match value:
        case ArtifactRef():
            return value
        case Artifact():
            return value.ref()
        case UUID() if not admits_uuid:
            return ArtifactRef(value)
        case dict() if value.keys() == {ARTIFACT_KEY}:
            return ArtifactRef(value[ARTIFACT_KEY])
    return None


def plain_of(value: Any) -> Any:
    """Return a plain value without its wrapping ``{"$value": …}``."""
    return value[VALUE_KEY] if type(value) is dict and value.keys() == {VALUE_KEY} else value


def value_message(
    value: object, uploads: Uploads, what: str, *, admits_uuid: bool = False, checked: bool = False
) -> Value:
    """Return the message for a value.

    Args:
        value: What the caller gave.
        uploads: Takes the content of a large one.
        what: How errors name it, such as ``overrides["checkpoint.train"]``.
        admits_uuid: See `artifact_of`.
        checked: See `Uploads.encoded`.

    Raises:
        UsageError: If it has no codec, or is too large.
    """
    reference = artifact_of(value, admits_uuid=admits_uuid)
    if reference is not None:
        # Only the planner knows what was recorded, and whether it has UUIDs among its values.
        uuid = inline_payload(encode_named(value, what)) if isinstance(value, UUID) else None
        return Value(artifact_id=str(reference.id), uuid=uuid)
    return Value(payload=uploads.encoded(plain_of(value), what, checked=checked))


def loaded(value: object, get: Callable[[ArtifactRef], Artifact], *, admits_uuid: bool) -> Any:
    """Return the Python value that a caller's value stands for, loading the artifact that it refers to."""
    reference = artifact_of(value, admits_uuid=admits_uuid)
    return plain_of(value) if reference is None else get(reference).load()


class KnownTypes:
    """The types of a function's inputs, as today's code has them.

    Args:
        function: The function; None where its code is not here, and nothing is known.
    """

    def __init__(self, function: Callable[..., Any] | None) -> None:
        self._function = function
        self._annotations: Mapping[str, Any] | None = None

    def admits_uuid(self, name: str) -> bool:
        """Return whether the type of an input is known to have UUIDs among its values."""
        annotation = self._annotation(name)
        if annotation in (None, Any, object):
            return False
        from dalsegno.schemas import UNKNOWN, validate

        return annotation is not UNKNOWN and not validate(UUID(int=0), annotation)

    def problems(self, values: Mapping[str, object], field: str) -> list[Problem]:
        """Return what does not fit: values of the wrong type, as far as the types are known.

        Args:
            values: Plain values and references; of references nothing is known.
            field: How problems name the mapping.
        """
        from dalsegno.schemas import validate

        found: list[Problem] = []
        for name, value in values.items():
            annotation = self._annotation(name)
            if annotation is None or artifact_of(value, admits_uuid=self.admits_uuid(name)) is not None:
                continue
            found += validate(plain_of(value), annotation, f'{field}["{name}"]')
        return found

    def unknown(self, names: Mapping[str, object]) -> list[str]:
        """Return the names that the function has no parameter for."""
        if self._function is None:
            return []
        return [name for name in names if name not in signature_of(self._function).parameters]

    def _annotation(self, name: str) -> Any:
        if self._function is None:
            return None
        if self._annotations is None:
            from dalsegno.schemas import input_annotations

            self._annotations = input_annotations(self._function)
        return self._annotations.get(name)


def require_names(values: object, field: str) -> Mapping[str, object]:
    """Return a mapping by name.

    Raises:
        UsageError: If it is anything else.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise UsageError(
            f"{field} must be a dict with texts as keys, not {values!r}",
            reason="INVALID_REQUEST",
            fields={"field": field},
        )
    return values

"""What a wait asks, and what its answer becomes in the body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dalsegno.errors import UsageError, WaitTimeoutError
from dalsegno.schemas import from_json, json_schema
from dalsegno.v1.execution_pb2 import FAILURE_ORIGIN_USER_CODE, Failure
from dalsegno.values import encode


def schema_text(schema: object) -> str:
    """Return the JSON Schema of an answer as text; empty for a gate.

    Args:
        schema: A type, a Pydantic model, a JSON Schema as a dict, or None.

    Raises:
        UsageError: If it has no JSON Schema.
    """
    if schema is None:
        return ""
    if isinstance(schema, Mapping):
        return json_text(schema)
    found = json_schema(schema)
    if found is None:
        raise UsageError(
            f"wait(schema={schema!r}): this has no JSON Schema; give a type, a Pydantic model or a JSON Schema",
            reason="NO_SCHEMA",
        )
    return json.dumps(found, sort_keys=True)


def json_text(value: Mapping[str, object] | None) -> str:
    """Return plain data as JSON text; empty for None.

    Raises:
        UsageError: If it has no codec.
    """
    return "" if value is None else encode(dict(value)).data.decode()


def answer_of(value: Any, schema: object) -> Any:
    """Return an answer as the body gets it: an instance of the type that was asked for."""
    if schema is None or isinstance(schema, Mapping):
        return value
    if isinstance(schema, type) and isinstance(value, schema):
        return value
    return from_json(value, schema, "the answer")


def aborted(invocation_id: str) -> Failure:
    """Return why a body ends whose gate was answered with false."""
    return Failure(
        origin=FAILURE_ORIGIN_USER_CODE,
        message=f"wait {invocation_id!r} was answered with false: abort",
        exception_type="dalsegno.errors:ExecutionError",
        invocation_id=invocation_id,
    )


def timed_out(invocation_id: str) -> WaitTimeoutError:
    """Return what a body gets whose wait was not answered in time."""
    return WaitTimeoutError(
        f"wait {invocation_id!r} was not answered before its deadline", fields={"wait": invocation_id}
    )

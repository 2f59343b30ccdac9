"""The parts of a record that steps and headers share: times, failures, options, definitions, waits."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from dalsegno.records.places import Misfit, unknown_key
from dalsegno.records.values import ValueReader, value_form
from dalsegno.timeouts import duration, seconds_of
from dalsegno.v1 import definition_pb2, execution_pb2, wait_service_pb2
from dalsegno.v1.definition_pb2 import Definition, StepOptions
from dalsegno.v1.execution_pb2 import Attempt, Failure
from dalsegno.v1.wait_service_pb2 import Wait

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FAILURE_TEXTS = ("message", "exception_type", "traceback", "invocation_id", "reason")
_FAILURE_KEYS = frozenset({*_FAILURE_TEXTS, "origin", "attempt", "exception_args", "divergence"})
_ATTEMPT_KEYS = frozenset({"attempt", "executor", "started_at", "finished_at", "failure"})
_OPTION_SECONDS: tuple[Literal["timeout", "retry_delay", "max_retry_delay"], ...] = (
    "timeout",
    "retry_delay",
    "max_retry_delay",
)
_OPTION_NAMES = ("retry_on", "no_retry_on")
_OPTION_KEYS = frozenset({"outputs", "retries", "retry_jitter", *_OPTION_SECONDS, *_OPTION_NAMES})
_DEFINITION_KEYS = frozenset(
    {"kind", "module", "name", "digest", "input_schemas", "required_inputs", "outputs", "output_schemas"}
)
_ONLY_TEXTS = frozenset({str})
_WAIT_TIMES = ("asked_at", "deadline", "answered_at")
_WAIT_KEYS = frozenset({"question", "schema", "metadata", "status", "answered_by", *_WAIT_TIMES})


def checked_dict(value: Any, known: Collection[str]) -> dict[str, Any]:
    """Return a dict that has no other keys than these.

    Raises:
        Misfit: If it has, or is no dict.
    """
    if type(value) is not dict:
        raise Misfit(f"must be an object, not {value!r}")
    wrong = unknown_key(value, known)
    if wrong is not None:
        raise wrong
    return value


def text_of(value: Any) -> str:
    """Return a text.

    Raises:
        Misfit: If it is none.
    """
    if not isinstance(value, str):
        raise Misfit(f"must be a text, not {value!r}")
    return value


def texts_of(value: Any) -> list[str]:
    """Return a list of texts.

    Raises:
        Misfit: If it is anything else.
    """
    if not isinstance(value, list | tuple):
        raise Misfit(f"must be a list of texts, not {value!r}")
    return [text_of(one) for one in value]


def mapping_of(value: Any, path: str = "") -> Mapping[str, Any]:
    """Return a mapping of texts to anything.

    Raises:
        Misfit: If it is none.
    """
    if (type(value) is dict or isinstance(value, Mapping)) and _ONLY_TEXTS.issuperset(map(type, value)):
        return value
    raise Misfit(f"must be an object, not {value!r}", path)


def listed(value: Any) -> list[Any]:
    """Return a list.

    Raises:
        Misfit: If it is none.
    """
    if not isinstance(value, list | tuple):
        raise Misfit(f"must be a list, not {value!r}")
    return list(value)


def enum_of(value: Any, values: Callable[[str], int], prefix: str, known: Collection[str]) -> Any:
    """Return the number that a message has for a word.

    Raises:
        Misfit: If it is not one of those that are known.
    """
    if value not in known:
        wrong = "is missing; it is one of" if value is None else f"{value!r} is none of"
        raise Misfit(f"{wrong} {', '.join(known)}")
    return values(f"{prefix}{value.upper()}")


def word_of(name: str, prefix: str) -> str:
    """Return the word that a record has for a value of a message's enum."""
    return name.removeprefix(prefix).lower()


def fill_time(message: Timestamp, value: Any) -> None:
    """Put a time into a message.

    Raises:
        Misfit: If it is none.
    """
    try:
        moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
        message.FromDatetime(moment.astimezone(dt.UTC) if moment.tzinfo else moment)
    except (TypeError, ValueError):
        raise Misfit(f"{value!r} is no time; write it as 2024-05-01T12:00:00Z") from None


def time_form(message: Timestamp) -> str:
    """Return a time as it is written."""
    return (_EPOCH + dt.timedelta(0, message.seconds, message.nanos // 1_000)).isoformat()


def fill_failure(message: Failure, value: Any, values: ValueReader) -> None:
    """Put a failure into a message.

    Raises:
        Misfit: If it is none.
    """
    if isinstance(value, str):
        value = {"message": value}
    given = checked_dict(value, _FAILURE_KEYS)
    if "origin" in given:
        words = [word_of(name, "FAILURE_ORIGIN_") for name in execution_pb2.FailureOrigin.keys()[1:]]
        message.origin = enum_of(given["origin"], execution_pb2.FailureOrigin.Value, "FAILURE_ORIGIN_", words)
    for name in _FAILURE_TEXTS:
        if name in given:
            setattr(message, name, text_of(given[name]))
    if "attempt" in given:
        message.attempt = whole_of(given["attempt"])
    if "exception_args" in given:
        values.fill(message.exception_args, given["exception_args"])
    if "divergence" in given:
        try:
            json_format.ParseDict(given["divergence"], message.divergence)
        except json_format.ParseError as error:
            raise Misfit(str(error), ".divergence") from error


def failure_form(message: Failure) -> dict[str, Any]:
    """Return a failure as it is written."""
    form: dict[str, Any] = {}
    if message.origin:
        form["origin"] = word_of(execution_pb2.FailureOrigin.Name(message.origin), "FAILURE_ORIGIN_")
    form |= {name: getattr(message, name) for name in (*_FAILURE_TEXTS, "attempt") if getattr(message, name)}
    if message.HasField("exception_args"):
        form["exception_args"] = value_form(message.exception_args)
    if message.HasField("divergence"):
        form["divergence"] = json_format.MessageToDict(message.divergence, preserving_proto_field_name=True)
    return form


def fill_attempt(message: Attempt, value: Any, values: ValueReader) -> None:
    """Put an attempt that failed into a message.

    Raises:
        Misfit: If it is none.
    """
    given = checked_dict(value, _ATTEMPT_KEYS)
    message.attempt = whole_of(given.get("attempt", 0))
    message.executor = text_of(given.get("executor", ""))
    for name in ("started_at", "finished_at"):
        if given.get(name) is not None:
            fill_time(getattr(message, name), given[name])
    if given.get("failure") is not None:
        fill_failure(message.failure, given["failure"], values)


def attempt_form(message: Attempt) -> dict[str, Any]:
    """Return an attempt that failed as it is written."""
    form: dict[str, Any] = {"attempt": message.attempt, "executor": message.executor}
    form |= {name: time_form(getattr(message, name)) for name in ("started_at", "finished_at") if _has(message, name)}
    if message.HasField("failure"):
        form["failure"] = failure_form(message.failure)
    return {name: one for name, one in form.items() if one}


def flag_of(value: Any) -> bool:
    """Return a truth value.

    Raises:
        Misfit: If it is none.
    """
    if type(value) is not bool:
        raise Misfit(f"must be true or false, not {value!r}")
    return value


def whole_of(value: Any) -> int:
    """Return a whole number from 0.

    Raises:
        Misfit: If it is none.
    """
    if type(value) is not int or not 0 <= value < 2**31:
        raise Misfit(f"must be a whole number from 0, not {value!r}")
    return value


def fill_options(message: StepOptions, value: Any) -> None:
    """Put the options of a step into a message.

    Raises:
        Misfit: If they are none.
    """
    given = checked_dict(value, _OPTION_KEYS)
    message.outputs.extend(texts_of(given.get("outputs", ())))
    message.retries = whole_of(given.get("retries", 0))
    for name in _OPTION_NAMES:
        getattr(message, name).extend(texts_of(given.get(name, ())))
    if "retry_jitter" in given:
        message.retry_jitter = _part_of(given["retry_jitter"])
    for name in _OPTION_SECONDS:
        seconds = given.get(name)
        if seconds is not None:
            if type(seconds) not in (int, float) or not 0 <= seconds < 1e9:
                raise Misfit(f"must be a number of seconds, not {seconds!r}", f".{name}")
            getattr(message, name).CopyFrom(duration(seconds))


def options_form(message: StepOptions) -> dict[str, Any]:
    """Return the options of a step as they are written; those that are by default are left out."""
    form: dict[str, Any] = {}
    if list(message.outputs) not in ([], ["output"]):
        form["outputs"] = list(message.outputs)
    if message.retries:
        form["retries"] = message.retries
    form |= {name: seconds_of(getattr(message, name)) for name in _OPTION_SECONDS if message.HasField(name)}
    if message.HasField("retry_jitter"):
        form["retry_jitter"] = message.retry_jitter
    form |= {name: list(getattr(message, name)) for name in _OPTION_NAMES if getattr(message, name)}
    return form


def _part_of(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise Misfit(f"must be a number from 0 to 1, not {value!r}", ".retry_jitter")
    return float(value)


def fill_definition(message: Definition, value: Any) -> None:
    """Put a definition into a message.

    Raises:
        Misfit: If it is none.
    """
    given = checked_dict(value, _DEFINITION_KEYS)
    kinds = ("flow", "pipeline", "step")
    message.kind = enum_of(given.get("kind"), definition_pb2.DefinitionKind.Value, "DEFINITION_KIND_", kinds)
    message.module = text_of(given.get("module", ""))
    message.name = text_of(given.get("name"))
    message.digest = text_of(given.get("digest"))
    message.required_inputs.extend(texts_of(given.get("required_inputs", ())))
    message.outputs.extend(texts_of(given.get("outputs", ())))
    message.input_schemas.update(_schema_texts(given, "input_schemas"))
    message.output_schemas.update(_schema_texts(given, "output_schemas"))


def _schema_texts(given: Mapping[str, Any], key: str) -> dict[str, str]:
    schemas = given.get(key, {})
    if type(schemas) is not dict:
        raise Misfit(f"must be an object, not {schemas!r}", f".{key}")
    return {name: "" if schema is None else json.dumps(schema, sort_keys=True) for name, schema in schemas.items()}


def definition_form(message: Definition) -> dict[str, Any]:
    """Return a definition as it is written."""
    form: dict[str, Any] = {
        "kind": word_of(definition_pb2.DefinitionKind.Name(message.kind), "DEFINITION_KIND_"),
        "module": message.module,
        "name": message.name,
        "digest": message.digest,
    }
    for key, schemas in (("input_schemas", message.input_schemas), ("output_schemas", message.output_schemas)):
        if schemas:
            form[key] = {name: json.loads(schemas[name]) if schemas[name] else None for name in sorted(schemas)}
    if message.required_inputs:
        form["required_inputs"] = list(message.required_inputs)
    if message.outputs:
        form["outputs"] = list(message.outputs)
    return form


def fill_wait(message: Wait, value: Any) -> None:
    """Put what was asked into a message.

    Raises:
        Misfit: If it is none.
    """
    given = checked_dict(value, _WAIT_KEYS)
    message.question = text_of(given.get("question", ""))
    message.answered_by = text_of(given.get("answered_by", ""))
    for name in ("schema", "metadata"):
        if given.get(name) is not None:
            setattr(message, name, json.dumps(given[name], sort_keys=True))
    if "status" in given:
        words = ("answered", "timed_out", "aborted")
        message.state = enum_of(given["status"], wait_service_pb2.WaitState.Value, "WAIT_STATE_", words)
    for name in _WAIT_TIMES:
        if given.get(name) is not None:
            fill_time(getattr(message, name), given[name])


def wait_form(message: Wait) -> dict[str, Any]:
    """Return what was asked as it is written."""
    form: dict[str, Any] = {"status": word_of(wait_service_pb2.WaitState.Name(message.state), "WAIT_STATE_")}
    form |= {name: getattr(message, name) for name in ("question", "answered_by") if getattr(message, name)}
    form |= {name: json.loads(text) for name in ("schema", "metadata") if (text := getattr(message, name))}
    return form | {name: time_form(getattr(message, name)) for name in _WAIT_TIMES if _has(message, name)}


def _has(message: Message, name: str) -> bool:
    return message.HasField(name)

"""Flows, pipelines and steps as the messages that announce and name them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from dalsegno.arguments import required_parameters, signature_of
from dalsegno.decorators import Decorated, Flow, Pipeline, Step, StepSettings
from dalsegno.limits import Concurrency
from dalsegno.schemas import input_schemas, output_schemas
from dalsegno.steps import MAX_RETRY_DELAY, RETRY_DELAY, RETRY_JITTER
from dalsegno.timeouts import duration, seconds_of

if TYPE_CHECKING:
    from dalsegno.v1.definition_pb2 import Definition, DefinitionKind, DefinitionRef, StepOptions


def kind_of(decorated: Decorated[..., Any]) -> DefinitionKind.ValueType:
    """Return what a decorated object is."""
    from dalsegno.v1 import definition_pb2

    match decorated:
        case Flow():
            return definition_pb2.DEFINITION_KIND_FLOW
        case Pipeline():
            return definition_pb2.DEFINITION_KIND_PIPELINE
        case Step():
            return definition_pb2.DEFINITION_KIND_STEP
    raise AssertionError(decorated)


def definition_ref(decorated: Decorated[..., Any], *, pinned: bool) -> DefinitionRef:
    """Return the name of a definition.

    Args:
        decorated: The flow, pipeline or step.
        pinned: Whether exactly this version of its code is meant.
    """
    from dalsegno.v1.definition_pb2 import DefinitionRef

    digest = decorated.digest if pinned else ""
    return DefinitionRef(module=decorated.module, name=decorated.name, pinned_digest=digest)


def definition_of(decorated: Decorated[..., Any]) -> Definition:
    """Return a definition with the digest of its code and the schemas of its parameters and outputs."""
    from dalsegno.v1.definition_pb2 import Definition

    return Definition(
        kind=kind_of(decorated),
        module=decorated.module,
        name=decorated.name,
        digest=decorated.digest,
        input_schemas=_schema_texts(decorated.function),
        required_inputs=required_parameters(decorated.function),
        outputs=decorated.options.outputs if isinstance(decorated, Step) else (),
        output_schemas=_output_schema_texts(decorated) if isinstance(decorated, Step) else {},
    )


def _schema_texts(function: Callable[..., Any]) -> dict[str, str]:
    # Every parameter is named, `*args` and `**kwargs` too: by these names a change of the signature is seen.
    schemas = input_schemas(function)
    return {
        name: json.dumps(schemas[name], sort_keys=True) if schemas.get(name) is not None else ""
        for name in signature_of(function).parameters
    }


def _output_schema_texts(step: Step[..., Any]) -> dict[str, str]:
    schemas = output_schemas(step.function)
    return {
        name: json.dumps(schema, sort_keys=True)
        for name, schema in schemas.items()
        if schema is not None and name in step.options.outputs
    }


def step_options(settings: StepSettings) -> StepOptions:
    """Return the message for the settings of a step."""
    from dalsegno.v1.definition_pb2 import StepOptions

    options = StepOptions(outputs=settings.outputs, retries=settings.retries)
    if settings.timeout is not None:
        options.timeout.CopyFrom(duration(settings.timeout))
    if settings.retry_delay != RETRY_DELAY:
        options.retry_delay.CopyFrom(duration(settings.retry_delay))
    if settings.max_retry_delay != MAX_RETRY_DELAY:
        options.max_retry_delay.CopyFrom(duration(settings.max_retry_delay))
    if settings.retry_jitter != RETRY_JITTER:
        options.retry_jitter = settings.retry_jitter
    options.retry_on.extend(settings.retry_on)
    options.no_retry_on.extend(settings.no_retry_on)
    if settings.concurrency is not None:
        options.concurrency.name = settings.concurrency.name
        options.concurrency.most = settings.concurrency.most
    return options


def settings_of(options: StepOptions) -> StepSettings:
    """Return the settings that a message says."""

    def seconds(name: Literal["timeout", "retry_delay", "max_retry_delay"], default: float | None) -> Any:
        return seconds_of(getattr(options, name)) if options.HasField(name) else default

    return StepSettings(
        options.retries,
        seconds("timeout", None),
        seconds("retry_delay", RETRY_DELAY),
        tuple(options.outputs) or ("output",),
        seconds("max_retry_delay", MAX_RETRY_DELAY),
        options.retry_jitter if options.HasField("retry_jitter") else RETRY_JITTER,
        tuple(options.retry_on),
        tuple(options.no_retry_on),
        Concurrency(options.concurrency.name, options.concurrency.most) if options.HasField("concurrency") else None,
    )

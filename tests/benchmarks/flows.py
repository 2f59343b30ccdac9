"""The user code that is measured: steps that do nothing, in the shapes that the budgets speak of."""

from __future__ import annotations

from dalsegno import flow, pipeline, step


@step
def no_op() -> int:
    """Takes nothing and does nothing."""
    return 1


@step
def increment(value: int) -> int:
    """The link of a chain."""
    return value + 1


@flow
def chain_flow(length: int) -> int:
    """A chain whose body makes one durable call after the other."""
    value = 0
    for _ in range(length):
        value = increment(value)
    return value


@pipeline
def chain_pipeline(length: int) -> int:
    """The same chain as a fixed graph."""
    value = 0
    for _ in range(length):
        value = increment(value)
    return value


@pipeline
def independent(count: int) -> None:
    """Steps that wait for nothing."""
    for _ in range(count):
        no_op()

"""What ends a body from outside its own code.

These are no errors, and no ``except Exception`` catches them. A body that catches them all the same is ended anyway:
its next durable call raises again, and what it returns is not looked at.
"""

from __future__ import annotations

from dalsegno.v1.execution_pb2 import Failure
from dalsegno_executor.runner.matching import Divergence


class BodyEnd(BaseException):
    """A body is to end here."""


class Suspension(BodyEnd):
    """The body cannot go on before a wait is answered."""

    def __init__(self, wait: int) -> None:
        super().__init__(wait)
        self.wait = wait


class Diverged(BodyEnd):
    """The body does not repeat what is recorded."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence)
        self.divergence = divergence


class Refused(BodyEnd):
    """The body may not go on: the planner could not record a call of it, or somebody has answered a gate with false."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HandedBack(BodyEnd):
    """The task goes back, or is not this executor's any more."""

"""What the composition's worker serves, until you mount a module of your own."""

from dalsegno import flow, step


@step
def greet(name: str) -> str:
    return f"hello, {name}"


@flow
def welcome(name: str = "world") -> str:
    return greet(name)

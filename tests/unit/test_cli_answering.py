"""Asking a person what an execution waits for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from rich.console import Console, RenderableType

from dalsegno.cli.answering import ask_until_accepted, parse_answer, prompt_of, schema_text
from dalsegno.cli.views import WaitView
from dalsegno.errors import Problem, StateError, UsageError, WaitValidationError

MODEL: Mapping[str, object] = {"type": "object", "properties": {"score": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "line", "answer"),
    [
        (None, "Y", True),
        (None, "abort", False),
        ({"type": "boolean"}, "no", False),
        ({"type": "string"}, "as it is ", "as it is "),
        ({"enum": ["red", "green"]}, "red", "red"),
        ({"type": "integer"}, " 3 ", 3),
        (MODEL, '{"score": 3}', {"score": 3}),
    ],
)
def test_answers_are_read(schema: Mapping[str, object] | None, line: str, answer: object) -> None:
    assert parse_answer(line, schema) == answer


@pytest.mark.parametrize(("schema", "line"), [(None, "perhaps"), ({"type": "integer"}, ""), (MODEL, "{")])
def test_what_is_no_answer_is_refused(schema: Mapping[str, object] | None, line: str) -> None:
    with pytest.raises(UsageError):
        parse_answer(line, schema)


def test_a_bad_answer_is_asked_for_again() -> None:
    shown: list[str] = []
    lines = iter(["three", "-1", "3"])

    def show(renderable: RenderableType) -> None:
        console = Console(width=80)
        with console.capture() as capture:
            console.print(renderable)
        shown.append(capture.get())

    def send(answer: object) -> str:
        if answer == -1:
            problem = Problem("value", "-1 is less than the minimum of 0")
            raise WaitValidationError('it asks for {"type": "integer", "minimum": 0}', problems=[problem])
        return f"took {answer}"

    wait = WaitView("score", "pending", "How good is it?", {"type": "integer", "minimum": 0})
    assert ask_until_accepted(wait, show=show, read=lambda _: next(lines), send=send) == "took 3"
    text = "".join(shown)
    assert text.count("How good is it?") == 1
    assert "is not JSON" in text
    assert "that is no answer:\n  - value: -1 is less than the minimum of 0" in text
    assert text.count("minimum") == 2, "what is asked for is said once"


def test_a_wait_that_has_ended_is_not_asked_for_again() -> None:
    def send(answer: object) -> None:
        raise StateError("answered already")

    with pytest.raises(StateError):
        ask_until_accepted(WaitView("go", "pending"), show=lambda _: None, read=lambda _: "y", send=send)


def test_the_schema_is_shown_in_words_where_it_is_simple() -> None:
    assert schema_text({"type": "integer", "title": "Score"}) == "a whole number"
    assert schema_text({"enum": ["a", 1]}) == 'one of "a", 1'
    assert schema_text(MODEL) == 'a JSON object with\n  "score": a whole number, may be left out'
    assert schema_text({"type": "array", "items": {"type": "string"}, "default": []}) == "a list, each item a text"
    assert '"minimum"' in schema_text({"type": "array", "items": {"type": "integer", "minimum": 0}})
    assert '"minimum"' in schema_text({"type": "integer", "minimum": 0})
    assert [prompt_of(one) for one in (None, {"type": "string"}, MODEL)] == ["[y/n] ", "text> ", "JSON> "]

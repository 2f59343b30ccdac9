"""The tour that ``dalsegno demo`` takes: record a pipeline and a flow, look at a plan, replay, compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from dalsegno.cli.command_name import command_name
from dalsegno.cli.documents import Document, details_document, plan_document
from dalsegno.cli.plan_table import plan_table
from dalsegno.cli.prose import Page
from dalsegno.cli.session import Session
from dalsegno.cli.tables import steps_table
from dalsegno.cli.views import ExecutionView, StepView
from dalsegno.cli.wording import count_text, seconds_text
from dalsegno.demo.article import Publication, article
from dalsegno.demo.digits import Counts, Labels, digits
from dalsegno.states import InvocationState

HELD_BACK, LOOSE = 0.001, 0.1
"""Strengths of the two models."""

TOPIC = "where a repeat sends the player"
OTHER_NOTES = [
    "Dal segno al fine: go back to the sign, and play on until the word fine.",
    "Dal segno al coda: go back to the sign, and leave for the coda where it says so.",
]
"""What research would rather have found."""


@dataclass(frozen=True, slots=True)
class Run:
    """An execution that has ended, as the tour shows it."""

    execution: ExecutionView
    steps: Sequence[StepView]

    @property
    def name(self) -> str:
        """The name by which commands know it."""
        return self.execution.name

    @property
    def ran(self) -> list[str]:
        """The steps that ran in this execution, rather than being reused."""
        return [step.invocation_id for step in self.steps if step.state is InvocationState.COMPLETED]

    @property
    def ran_text(self) -> str:
        """What ran, in words."""
        everything = len(self.ran) == len(self.steps)
        return f"all {count_text(len(self.steps), 'step')}" if everything else ", ".join(self.ran)

    @property
    def document(self) -> Document:
        """The run for programs."""
        return details_document(self.execution, self.steps, ())


def take_the_tour(page: Page, session: Session) -> Document:
    """Run both parts, print them, and return what happened as a document."""
    digits_part, article_part = _Digits(page, session), _Article(page, session)
    parts: Document = {"pipeline": digits_part.play(), "flow": article_part.play()}
    _say_what_next(page, digits_part.replay, article_part.replay)
    return parts


class _Part:
    """One half of the tour: an original, a plan, a replay."""

    def __init__(self, page: Page, session: Session) -> None:
        self._page = page
        self._session = session

    def _read(self, exec_id: str) -> Run:
        return Run(self._session.execution(exec_id), self._session.steps(exec_id, limit=100))

    def _planned(self, source: Run, **request: Any) -> Document:
        plan = self._session.plan(source.execution.exec_id, **request)
        self._page.draw(plan_table(plan))
        return plan_document(plan)

    def _replayed(self, source: Run, **request: Any) -> Run:
        with self._page.busy("replaying"):
            replay = self._session.client.executions.replay(source.execution.exec_id, **request)
            self._session.client.executions.wait(replay.exec_id)
        return self._read(str(replay.exec_id))

    def _compare(self, original: Run, replay: Run, rows: Sequence[tuple[str, str, str]]) -> None:
        self._page.compare(
            ("original", "replay"),
            [
                ("run", original.name, replay.name),
                ("what ran", original.ran_text, replay.ran_text),
                ("took", seconds_text(original.execution.seconds), seconds_text(replay.execution.seconds)),
                *rows,
            ],
        )


class _Digits(_Part):
    """The pipeline."""

    replay: Run

    def play(self) -> Document:
        self._page.heading("1 · A pipeline on real data")
        self._page.say(
            "scikit-learn brings 1,797 handwritten digits along. `dalsegno.demo.digits` is a pipeline that learns to "
            "read them: six steps, each decorated with `@step`, in one function decorated with `@pipeline`."
        )
        self._page.code(f"run = digits(strength={HELD_BACK})")
        with self._page.busy("running the pipeline"):
            original = self._read(str(digits(strength=HELD_BACK).exec_id))
        self._page.draw(steps_table(original.steps))
        self._page.say(
            f"{original.name} is recorded: every step with its inputs and outputs, and what it took from which "
            f"other. It reads {_share(original)} of the test images rightly. Would a model do better that may "
            "follow the data more closely? Only `train` has to change, so that is the sign. First the plan, which "
            "runs nothing:"
        )
        self._page.code(
            f'client.executions.plan("{original.name}", from_="train", strength={LOOSE})',
        )
        plan = self._planned(original, from_="train", strength=LOOSE)
        self._page.say("That is what was meant, so now for real, with `replay` in place of `plan`:")
        self.replay = self._replayed(original, from_="train", strength=LOOSE)
        self._compare(original, self.replay, _digit_rows(original, self.replay))
        return {"original": original.document, "plan": plan, "replay": self.replay.document}


class _Article(_Part):
    """The flow."""

    replay: Run

    def play(self) -> Document:
        self._page.heading("2 · A flow, with another history")
        self._page.say(
            "A `@flow` is an ordinary function: it calls steps as it goes, and each call is recorded. "
            "`dalsegno.demo.article` researches a topic, writes a draft and publishes it."
        )
        self._page.code(f'handle = article.run("{TOPIC}")\nhandle.wait()')
        with self._page.busy("running the flow"):
            handle = article.run(TOPIC)
            handle.wait()
            original = self._read(str(handle.exec_id))
        self._page.draw(steps_table(original.steps))
        self._page.say(
            "Say that research had found something else. Its output is replaced by notes of ours, and the flow is "
            "replayed from `write_draft`; research itself does not run again:"
        )
        self._page.code(
            f'client.executions.replay("{original.name}", from_="write_draft",\n'
            '                         overrides={"checkpoint.research": other_notes})'
        )
        overrides = {"checkpoint.research": OTHER_NOTES}
        plan = self._planned(original, from_="write_draft", overrides=overrides)
        self.replay = self._replayed(original, from_="write_draft", overrides=overrides)
        self._compare(original, self.replay, _article_rows(original, self.replay))
        return {"original": original.document, "plan": plan, "replay": self.replay.document}


def _digit_rows(original: Run, replay: Run) -> list[tuple[str, str, str]]:
    both = (original, replay)
    strengths = [f"{run.execution.inputs['strength']}" for run in both]
    wrong = [_wrong(_matrix(run)) for run in both]
    confused = [_most_confused(_matrix(run)) for run in both]
    return [
        ("strength", strengths[0], strengths[1]),
        ("read rightly", _share(original), _share(replay)),
        ("read wrongly", wrong[0], wrong[1]),
        ("most confused", confused[0], confused[1]),
    ]


def _article_rows(original: Run, replay: Run) -> list[tuple[str, str, str]]:
    before, after = _publication(original), _publication(replay)
    return [
        ("words", str(before["words"]), str(after["words"])),
        ("text", before["text"], after["text"]),
    ]


def _share(run: Run) -> str:
    accuracy, _ = cast("tuple[float, Counts]", run.execution.result)
    return f"{accuracy:.1%}"


def _matrix(run: Run) -> Labels:
    _, matrix = cast("tuple[float, Counts]", run.execution.result)
    return np.array(matrix)


def _wrong(matrix: Labels) -> str:
    return f"{matrix.sum() - np.trace(matrix)} of {matrix.sum()}"


def _most_confused(matrix: Labels) -> str:
    mistakes = matrix - np.diag(np.diag(matrix))
    shown, read = np.unravel_index(np.argmax(mistakes), mistakes.shape)
    return f"{shown} read as {read}, {count_text(int(mistakes[shown, read]), 'time')}"


def _publication(run: Run) -> Publication:
    return cast("Publication", run.execution.result)


def _say_what_next(page: Page, pipeline: Run, flow: Run) -> None:
    command = command_name()
    page.heading("What you could type next")
    changes, topic = _quoted({"strength": 0.01}), _quoted({"topic": "coda"})
    replay = f"{command} executions replay {pipeline.name} --from train \\\n      --args {changes}"
    page.commands(
        [
            ("every run that is recorded", f"{command} executions list"),
            ("one of them: inputs, steps, what was reused from where", f"{command} executions get {flow.name}"),
            ("its graph", f"{command} executions graph {pipeline.name}"),
            ("what a replay of the replay would do", f"{replay} --dry-run"),
            ("that replay itself", f"{replay} --wait"),
            ("the flow on a topic of yours", f"{command} run dalsegno.demo.article:article --args {topic}"),
        ]
    )


def _quoted(value: Mapping[str, object]) -> str:
    return f"'{json.dumps(value)}'"

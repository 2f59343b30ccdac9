"""What user code writes while it runs is taken, and nothing else; what it prints appears where it did before."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from dalsegno import flow, step
from dalsegno.v1.executor_service_pb2 import TaskToken, WrittenLine
from dalsegno.v1.log_pb2 import LogLine
from dalsegno_executor.runner.log_capture import LONGEST_LINE, Who, Writer, capture
from tests.unit.executor_side import RunnerTalk, body_task, embedded, step_task

TOKEN = TaskToken(execution_id=b"e" * 16, number=3, epoch=1)
log = logging.getLogger("training")


@pytest.fixture
def lines() -> Iterator[list[LogLine]]:
    """Lines that a writer in this thread has kept."""
    kept: list[LogLine] = []

    def keep(written: WrittenLine) -> None:
        assert written.token == TOKEN
        kept.append(written.line)

    capture()
    with Writer(lambda: Who(TOKEN, 3, "train_2", 4), keep):
        yield kept


def texts(lines: list[LogLine]) -> list[tuple[str, str]]:
    return [(line.level, line.text) for line in lines]


def test_prints_become_lines_and_still_appear(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[WrittenLine] = []
    print("before")
    with Writer(lambda: Who(TOKEN, 3, "train_2", 4), kept.append):
        print("one", "and", 2)
        print("no end", end="")
        print("to stderr", file=sys.stderr)
        sys.stdout.writelines([" … ", "it\nlast"])
    print("after")
    lines = [one.line for one in kept]
    assert texts(lines) == [
        ("stdout", "one and 2"),
        ("stderr", "to stderr"),
        ("stdout", "no end … it"),
        ("stdout", "last"),
    ]
    first = lines[0]
    assert (first.number, first.invocation_id, first.attempt, first.logger) == (3, "train_2", 4, "")
    said = capsys.readouterr()
    assert said.out == "before\none and 2\nno end … it\nlastafter\n"
    assert said.err == "to stderr\n"


def test_prints_above_a_live_display_come_once_and_without_it() -> None:
    terminal = Console(force_terminal=True, stderr=True)
    kept: list[WrittenLine] = []
    capture()
    with terminal.status("working"), Writer(lambda: Who(TOKEN, 3, "train_2", 4), kept.append):
        print("one")
        print("two …", end="", flush=True)
        print("three", file=sys.stderr)
        print(" and a half")
    assert texts([one.line for one in kept]) == [("stdout", "one"), ("stderr", "three"), ("stdout", "two … and a half")]


def test_records_come_once_whatever_prints_them(lines: list[LogLine], capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.propagate = False
    try:
        log.warning("loss %.1f", 0.5)
        log.info("not enabled")
        try:
            raise LookupError("gone")
        except LookupError:
            log.exception("failed")
    finally:
        log.removeHandler(handler)
        log.propagate = True
    assert texts(lines)[0] == ("WARNING", "loss 0.5")
    assert lines[1].text.startswith("failed\nTraceback")
    assert lines[1].text.endswith("LookupError: gone")
    assert [line.logger for line in lines] == ["training"] * 2
    assert capsys.readouterr().err.startswith("loss 0.5\nfailed\nTraceback")


def test_a_record_whose_arguments_do_not_fit_harms_nobody(
    lines: list[LogLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    log.warning("%d of %d", 1)
    assert lines[0].text == "%d of %d (its arguments do not fit)"


def test_the_handler_of_last_resort_and_basic_config_work_as_without(
    lines: list[LogLine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    log.warning("unconfigured")
    assert capsys.readouterr().err == "unconfigured\n"
    monkeypatch.setattr(root, "level", root.level)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s!%(message)s", stream=sys.stderr)
    log.info("configured")
    assert capsys.readouterr().err == "INFO!configured\n"
    assert texts(lines) == [("WARNING", "unconfigured"), ("INFO", "configured")]


def test_long_lines_are_cut_and_say_so(lines: list[LogLine]) -> None:
    print("x" * LONGEST_LINE)
    print("é" * LONGEST_LINE)
    for _ in range(50):
        print("y" * 1000, end="")
    print()
    assert lines[0].text == "x" * LONGEST_LINE
    assert lines[1].text == "é" * (LONGEST_LINE // 2) + f" … (cut: {LONGEST_LINE:,} characters)"
    assert lines[2].text == "y" * LONGEST_LINE + " … (cut: 50,000 characters)"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["windows\r\n"], "windows"),
        (["10%", "\r20%", "\r30%\n"], "30%"),
        (["10%\r", "20%\r", "30%\n"], "30%"),
        (["done\r", "\n"], "done"),
        (["half \udc80\n"], "half \\udc80"),
    ],
)
def test_how_a_line_ends(lines: list[LogLine], pieces: list[str], expected: str) -> None:
    writer = Writer(lambda: Who(TOKEN, 3, "", 1), lambda written: lines.append(written.line))
    for piece in pieces:
        writer.printed("stdout", piece)
    assert texts(lines) == [("stdout", expected)]


def test_threads_write_their_own_lines_and_nothing_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[WrittenLine] = []
    said, ended = threading.Event(), threading.Event()
    writer = Writer(lambda: Who(TOKEN, 3, "train", 1), kept.append)

    def side() -> None:
        writer.begin()
        print("from the side")
        said.set()
        ended.wait()
        print("too late")

    with writer:
        print("in ", end="")
        thread = threading.Thread(target=side)
        thread.start()
        said.wait()
        print("the middle")
    ended.set()
    thread.join()
    assert [one.line.text for one in kept] == ["from the side", "in the middle"]


# In a runner.


@step
def train(x: int) -> int:
    print(f"x is {x}")
    thread = threading.Thread(target=log.warning, args=("in a thread",))
    thread.start()
    thread.join()
    return x


@step
async def train_later(x: int) -> int:
    await asyncio.sleep(0)
    print(f"later, x is {x}")
    return x


@step
def quiet() -> int:
    return 1


@flow
def training(x: int) -> int:
    print("begin")
    value = train(x)
    print("end")
    return value


@flow
async def training_later(x: int) -> int:
    print("begin")
    values = await asyncio.gather(train_later(x), train_later(x + 1))
    print("end")
    return sum(values)


def written(talk: RunnerTalk) -> tuple[list[WrittenLine], str]:
    """All lines up to the last report of a task, and what it was; the planner's part is played."""
    lines: list[WrittenLine] = []
    while True:
        message = talk.message()
        lines += message.log_lines.lines
        for report in message.reports.reports:
            kind = report.WhichOneof("kind")
            assert kind is not None
            if kind != "call":
                return lines, kind
            if report.report_id:
                talk.ack(report)


def who(lines: list[WrittenLine]) -> list[tuple[int, str, int, str]]:
    return [(one.line.number, one.line.invocation_id, one.line.attempt, one.line.text) for one in lines]


def test_the_lines_of_a_step_come_before_its_report() -> None:
    with embedded(train, quiet) as talk:
        talk.give(step_task(quiet))
        assert written(talk) == ([], "completed")
        talk.give(step_task(train, number=5, attempt=2, x=7))
        lines, kind = written(talk)
    assert kind == "completed"
    assert who(lines) == [(5, "train", 2, "x is 7"), (5, "train", 2, "in a thread")]
    assert {one.token.number for one in lines} == {5}
    assert [one.line.level for one in lines] == ["stdout", "WARNING"]


def test_lines_of_a_body_and_of_what_it_calls_are_told_apart() -> None:
    with embedded(training, train) as talk:
        talk.give(body_task(training, epoch=3, x=7))
        lines, kind = written(talk)
    assert kind == "returned"
    assert who(lines) == [
        (0, "", 3, "begin"),
        (1, "train", 1, "x is 7"),
        (1, "train", 1, "in a thread"),
        (0, "", 3, "end"),
    ]
    assert {one.token.number for one in lines} == {0}


def test_lines_of_an_async_body_and_of_what_it_awaits_are_told_apart() -> None:
    with embedded(training_later, train_later) as talk:
        talk.give(body_task(training_later, x=7))
        lines, _ = written(talk)
    assert who(lines) == [
        (0, "", 1, "begin"),
        (1, "train_later", 1, "later, x is 7"),
        (2, "train_later_2", 1, "later, x is 8"),
        (0, "", 1, "end"),
    ]


@step
def runs_on(folder: str) -> None:
    print("on its way")
    Path(folder, "go").read_text()  # a FIFO: waits for its writer


def test_lines_of_a_long_step_do_not_wait_for_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    with embedded(runs_on) as talk:
        talk.give(step_task(runs_on, folder=str(tmp_path)))
        assert who(list(talk.expect("log_lines").log_lines.lines)) == [(1, "runs_on", 1, "on its way")]
        (tmp_path / "go").write_text("go")
        assert talk.report().WhichOneof("kind") == "completed"

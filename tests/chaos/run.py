"""One run: the system is started, worked with and harmed; then it settles, and is checked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from dalsegno import Client
from tests.chaos import journal
from tests.chaos.checker import Checker, Findings, lines
from tests.chaos.monkey import Monkey
from tests.chaos.schedule import LEASE_S, Fault, schedule
from tests.chaos.system import PROJECT, System
from tests.chaos.tables import Tables
from tests.chaos.workload import MOST_RETRIES, Customer, Work, killed

_SETTLES_WITHIN_S = 90.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        seed: Decides the faults, their times, and what is asked.
        seconds: How long there are faults.
        planners, workers, customers: How many of each.
        programs: How many programs each customer chooses from.
    """

    seed: int
    seconds: float
    planners: int = 3
    workers: int = 3
    customers: int = 6
    programs: int = 60


@dataclass
class Report:
    """What came of a run."""

    options: Options
    faults: list[Fault]
    findings: Findings
    text: str
    figures: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything is as it must be."""
        return not self.findings.found


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Run, and check."""
    faults = schedule(options.seed, options.seconds)
    system = System(folder, options.planners, options.workers)
    work = Work(Event(), say)
    began = time.monotonic()
    log: list[str] = []

    def note(what: str) -> None:
        log.append(f"[{time.monotonic() - began:7.2f}] {what}")
        say(log[-1])

    work.say = note
    try:
        customers = [
            Customer(number, options.seed, system.address, options.programs, work)
            for number in range(options.customers)
        ]
        system.start()
        began = time.monotonic()
        for customer in customers:
            customer.start()
        Monkey(system, note).rampage(faults, options.seconds, Event())
        note("the faults are over")
        work.over.set()
        for customer in customers:
            customer.join()
        return _settled(options, faults, system, work, log, note)
    finally:
        system.stop()


def _settled(
    options: Options, faults: list[Fault], system: System, work: Work, log: list[str], note: Callable[[str], None]
) -> Report:
    settled_from = time.monotonic()
    with Client(system.address, PROJECT) as client, Tables(system.dsn) as tables:
        findings = Findings()
        for surprise in work.surprises:
            findings.add("", surprise)
        for execution, why in _settle(client, tables).items():
            findings.add(execution, why)
        note(f"settled after {time.monotonic() - settled_from:.1f} s")
        stayed = system.drain_workers()
        for name in stayed:
            findings.add("", f"{name} did not end when it was told to")
        left = _left_over(tables)
        if any(left.values()):
            findings.add("", f"left over once no worker is there: {left}")
        runs = list(journal.read(system.journal))
        checker = Checker(client, tables, runs, work.begun)
        for execution, found in checker.check().found.items():
            findings.found[execution].extend(found)
        text = "\n".join(
            [
                f"seed {options.seed}, {options.seconds:g} s, {options.planners} planners, {options.workers} workers",
                "", "what was done:", *log, "", "what is wrong:", *lines(findings, tables, runs),
            ]
        )  # fmt: skip
        states = Counter(tables.executions().values())
        figures = {
            "faults": len(faults), "executions": states.total(), **states, "results": checker.accepted,
            "runs": len(runs), "cut short": sum(run.finished is None for run in runs),
            "failed attempts": tables.failed_attempts(),
        }  # fmt: skip
        return Report(options, faults, findings, text, figures)


def _settle(client: Client, tables: Tables) -> dict[str, str]:
    """Wait until every execution has ended or waits; return those that do neither."""
    deadline = time.monotonic() + _SETTLES_WITHIN_S
    retries: Counter[str] = Counter()
    while time.monotonic() < deadline:
        under_way = tables.under_way()
        if under_way:
            _look_again(client, str(under_way[0]["id"]))
            continue
        # Killed under the same step again and again: it says so, and goes on when it is retried.
        again = [one for one in client.executions.list(status="failed") if killed(one)]
        again = [one for one in again if retries[one.exec_id] < MOST_RETRIES]
        if not again:
            return {}
        for one in again:
            retries[one.exec_id] += 1
            client.executions.retry(one)
    return {str(row["id"]): f"is still {row['state']}" for row in tables.under_way()}


def _look_again(client: Client, execution: str) -> None:
    try:
        client.executions.wait(execution, _LOOK_S)
    except TimeoutError:
        return


def _left_over(tables: Tables) -> dict[str, int]:
    """Wait until the leases of the workers that were killed have run out, and return what is left."""
    deadline = time.monotonic() + 3 * LEASE_S
    while any((left := dict(tables.left_over())).values()) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return left

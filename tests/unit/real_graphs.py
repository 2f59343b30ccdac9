"""Graphs of production runs of Nextflow, Pegasus and Makeflow, from WfInstances, and random replays of them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.plan_oracle import Request, Step

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "wfinstances"
NAMES = (
    "1000genome-chameleon-2ch-100k",
    "blast-chameleon-large",
    "montage-chameleon-2mass-05d",
    "montage-chameleon-dss-05d",
    "rnaseq-dirt02",
    "soykb-chameleon-20fastq-20ch",
    "viralrecon-dirt02",
)
MODES = ("from", "overrides", "changed_code", "skip", "skip_successful", "everything")


def real_steps(name: str) -> list[Step]:
    """The steps of a run, each after those upstream of it; outputs are taken, or every third time only waited for."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        pytest.skip(f"the graphs of real runs are not here: {path}")
    waiting = {one["id"]: one for one in json.loads(path.read_text())["steps"]}
    steps: list[Step] = []
    known: set[str] = set()
    while waiting:
        ready = [one for one in waiting.values() if known.issuperset(one["upstream"])]
        for one in ready:
            upstream = sorted(one["upstream"])
            steps.append(Step(one["id"], one["name"], frozenset(upstream[:2] + upstream[3:]), frozenset(upstream[2:3])))
            known.add(waiting.pop(one["id"])["id"])
    return steps


def with_a_past(steps: list[Step], chance: random.Random) -> list[Step]:
    """The same run where some steps failed or never ran, some ran with other code, and some read flow inputs."""
    failing = {one.id for one in chance.sample(steps, 2)}
    found: dict[str, Step] = {}
    for step in steps:
        healthy = all(found[one].succeeded for one in step.takes | step.after)
        found[step.id] = replace(
            step,
            succeeded=healthy and step.id not in failing,
            changed=chance.random() < 0.05,
            reads=frozenset(["lr"] if chance.random() < 0.05 else []),
        )
    return list(found.values())


def real_request(steps: list[Step], mode: str, chance: random.Random) -> Request:
    """A random replay; what it skips is mostly what can be skipped."""
    ids = [one.id for one in steps]
    consumed = sorted({up for one in steps for up in one.takes})
    others = mode not in ("everything", "changed_code")
    return Request(
        mode,
        chosen=frozenset(chance.sample(ids, chance.randint(1, 3))) if mode == "from" else frozenset(),
        skipped=_closed(steps, chance) if mode == "skip" else frozenset(),
        overridden=frozenset(chance.sample(consumed, chance.randint(0, 2))) if others else frozenset(),
        step_inputs=frozenset(chance.sample(ids, int(mode == "overrides" or chance.random() < 0.5)) if others else ()),
        rerun_changed_code=mode == "changed_code" or chance.random() < 0.3,
        inputs=frozenset(["lr"] if chance.random() < 0.3 else ()),
    )


def _closed(steps: list[Step], chance: random.Random) -> frozenset[str]:
    by_id = {one.id: one for one in steps}
    waiting = chance.sample([one.id for one in steps if one.succeeded], 3)
    if chance.random() < 0.2:
        return frozenset(waiting)
    closed = set(waiting)
    while waiting:
        step = by_id[waiting.pop()]
        waiting.extend((step.takes | step.after) - closed)
        closed |= step.takes | step.after
    return frozenset(closed)

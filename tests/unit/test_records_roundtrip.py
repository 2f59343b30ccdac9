"""Any record is written as it was read, whatever its steps have of what they may have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_records import DIGEST, Shelf, again

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | TEXTS
# A dict of one key may look like a form: the examples of test_records have those.
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
TIMES = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
FAILURES = st.fixed_dictionaries(
    {"message": TEXTS}, optional={"traceback": TEXTS, "attempt": st.integers(1, 9), "origin": st.just("user_code")}
)
ATTEMPTS = st.fixed_dictionaries(
    {"attempt": st.integers(1, 9)},
    optional={"executor": TEXTS, "started_at": TIMES, "finished_at": TIMES, "failure": FAILURES},
)
FIELDS = {
    "kind": st.just("wait"),
    "module": st.just("elsewhere"),
    "code_digest": st.just(DIGEST),
    "options": st.fixed_dictionaries({"retries": st.integers(1, 9)}, optional={"timeout": st.just(1.5)}),
    "started_at": TIMES,
    "finished_at": TIMES,
    "failure": FAILURES,
    "wait": st.fixed_dictionaries({"status": st.just("answered")}, optional={"question": TEXTS, "asked_at": TIMES}),
    "yielded": st.integers(1, 9),
    "attempt": st.integers(2, 9),
    "failed_attempts": st.lists(ATTEMPTS, min_size=1, max_size=3),
    "output_overridden": st.just(True),
    "overridden_inputs": st.lists(TEXTS, min_size=1, max_size=2),
    "stale_inputs": st.just(True),
    "original_call_id": st.uuids().map(str),
    "returned": st.dictionaries(TEXTS, VALUES, max_size=2),
}


def bindings(earlier: Sequence[str]) -> st.SearchStrategy[Any]:
    plain = st.builds(lambda value: {"value": value}, VALUES) | st.builds(lambda name: {"flow_input": name}, TEXTS)
    if earlier:
        plain |= st.builds(lambda step, name: {"step": step, "output": name}, st.sampled_from(earlier), TEXTS)
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3) | st.builds(lambda items: {"tuple": items}, st.lists(inner, max_size=3))
        ),
        max_leaves=4,
    )


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    ids = draw(st.lists(TEXTS.filter(str.strip), max_size=4, unique=True))
    for place, invocation_id in enumerate(ids):
        earlier = ids[:place]
        required = {
            "invocation_id": st.just(invocation_id),
            "name": TEXTS.filter(str.strip),
            "status": st.sampled_from(["completed", "failed", "cancelled", "not_reached"]),
            "inputs": st.dictionaries(TEXTS, bindings(earlier), max_size=3),
            "outputs": st.dictionaries(TEXTS, VALUES, max_size=2),
        }
        after = {"after": st.lists(st.sampled_from(earlier), min_size=1, max_size=2)} if earlier else {}
        steps.append(draw(st.fixed_dictionaries(required, optional={**FIELDS, **after})))
    return {"flow": "any", "kind": draw(st.sampled_from(["flow", "pipeline"])), "inputs": {}, "steps": steps}


@pytest.mark.semantics("9", "digests, times, types and failures are optional and survive a round trip")
@given(records())
@settings(max_examples=40)
def test_any_record_survives(record: dict[str, Any]) -> None:
    assert again(record, Shelf(inline_limit=1 << 16)) == record

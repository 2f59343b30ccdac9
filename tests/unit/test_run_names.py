"""Names of runs."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dalsegno_planner.core.run_names import BITS, run_name


@given(st.integers(min_value=0, max_value=2**BITS - 1))
def test_a_name_reads_well_and_is_always_the_same(bits: int) -> None:
    assert re.fullmatch(r"[a-z]+-[a-z]+-[1-9][0-9]{3}", run_name(bits))
    assert run_name(bits) == run_name(bits)


def test_names_differ() -> None:
    spread = [run_name(bits * 7_919_777) for bits in range(2_000)]
    assert len(set(spread)) > 1_990

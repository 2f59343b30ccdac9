"""The SQL of the planner: what is written is run."""

from __future__ import annotations

from pathlib import Path

import pytest

import dalsegno_planner
from dalsegno_planner.store.sql import load

_PLANNER = Path(dalsegno_planner.__file__).parent
_SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in _PLANNER.rglob("*.py"))


@pytest.mark.parametrize("module", sorted(path.stem for path in (_PLANNER / "store" / "queries").glob("*.sql")))
def test_every_query_is_run(module: str) -> None:
    assert f'load("{module}")' in _SOURCE
    assert [name for name in load(module) if f'"{name}"' not in _SOURCE] == []

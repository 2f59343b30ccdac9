"""Fixtures of the tests that talk to a planner in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.rpc.serving import Serving, serving


@pytest.fixture
async def planner(database: str, tmp_path: Path) -> AsyncIterator[Serving]:
    """A planner with a database of its own."""
    async with serving(database, tmp_path) as running:
        yield running


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to the planner's database, to see what is stored."""
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()

"""What store tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.store.graphs import Database, connect


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Database]:
    """A connection to the test's database."""
    opened = await connect(database)
    yield opened
    await opened.close()

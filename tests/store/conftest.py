"""What store tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dalsegno_planner.store.pool import Pool, open_pool
from tests.store.graphs import Database, connect
from tests.store.ledger import Ledger


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Database]:
    """A connection to the test's database."""
    opened = await connect(database)
    yield opened
    await opened.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """The pool of a planner."""
    opened = await open_pool(database, max_size=10)
    yield opened
    await opened.close()


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    """A hand on the dispatch functions of the test's database."""
    opened = await Ledger.open(database)
    yield opened
    await opened.connection.close()

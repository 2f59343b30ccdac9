"""An engine that the tests of the Python surface share; their own process runs their code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dalsegno import Client
from dalsegno.local import down
from dalsegno.local.home import HOME_VARIABLE
from tests.postgres import reachable_folder


@pytest.fixture(scope="package", autouse=True)
def engine() -> Iterator[None]:
    """The engine that everything here runs on."""
    with reachable_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder / "home"))
        patch.setenv("DALSEGNO_PROJECT", "surface")
        patch.delenv("DALSEGNO_ADDRESS", raising=False)
        yield
        down()


@pytest.fixture(scope="package")
def client(engine: None) -> Iterator[Client]:
    """A client of it."""
    with Client() as opened:
        yield opened

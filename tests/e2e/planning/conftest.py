"""An engine that these tests share; their own process runs their code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dalsegno import Client, Execution
from dalsegno.local import down, engine
from dalsegno.local.home import HOME_VARIABLE, EngineHome
from dalsegno.local.state import EngineState
from tests.e2e.oracle.tables import Tables
from tests.e2e.planning.programs import fan, fan_flow, ran
from tests.postgres import reachable_folder


@pytest.fixture(scope="package")
def client() -> Iterator[Client]:
    """A client of the engine that everything here runs on."""
    with reachable_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder / "home"))
        patch.setenv("DALSEGNO_PROJECT", "planning")
        patch.delenv("DALSEGNO_ADDRESS", raising=False)
        patch.setattr(engine, "_used", {})
        with Client() as opened:
            yield opened
        down()


@pytest.fixture(scope="package")
def tables(client: Client) -> Iterator[Tables]:
    """The tables of that engine."""
    next(client.executions.list(), None)  # starts it
    state = EngineState.read(EngineHome.from_environment().state_file)
    assert state is not None
    opened = Tables(state.database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def pipeline_run(client: Client) -> Execution:
    """A finished run of `fan`."""
    return fan()


@pytest.fixture(scope="package")
def flow_run(client: Client) -> Execution:
    """A finished run of the same as a flow."""
    return client.executions.wait(fan_flow.run(), 60)


@pytest.fixture(params=["pipeline", "flow"])
def run(request: pytest.FixtureRequest) -> Execution:
    """A finished run of either. What has run until now is forgotten."""
    found: Execution = request.getfixturevalue(f"{request.param}_run")
    ran.clear()
    return found

"""Fixtures of every level.

Postgres: tests take ``database`` (a fresh one with the planner's schema), ``empty_database`` (a fresh one
without) or ``postgres`` (the server). By default ``tests/store``, where every statement is, runs on the embedded
PostgreSQL 18 and on the system's 15, the oldest that is supported, and everything else on 18.
``--postgres=15``, ``18`` or ``both`` runs all of them there. Where 15 is not installed its tests are skipped
and say so.

Hypothesis: the same examples every time. ``HYPOTHESIS_PROFILE=random`` draws others.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.postgres import EMBEDDED_MAJOR, OLDEST_MAJOR, PostgresServer, find_postgres, running_postgres

# Servers are started beside planners that run in this process. A fork would start gRPC's threads anew before it becomes
# Postgres, and end with them. What tests start is what users start: for this process alone.
with pytest.MonkeyPatch.context() as _environment:
    _environment.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    import grpc  # noqa: F401 - reads the setting

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

_ON_BOTH_BY_DEFAULT = ("tests", "store")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        choices=[str(OLDEST_MAJOR), str(EMBEDDED_MAJOR), "both"],
        help="PostgreSQL to test on (default: 18 for everything, and 15 too for tests/store)",
    )

    parser.addoption(
        "--rows",
        type=int,
        default=50_000,
        help="how many invocations the graph has on which statements are looked at (make test-million: 1,000,000)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgres" in metafunc.fixturenames:
        majors = _majors(metafunc)
        ids = [f"postgres{major}" for major in majors]
        metafunc.parametrize("postgres", majors, ids=ids, indirect=True, scope="session")


def _majors(metafunc: pytest.Metafunc) -> list[int]:
    chosen = metafunc.config.getoption("postgres")
    if chosen in (str(OLDEST_MAJOR), str(EMBEDDED_MAJOR)):
        return [int(chosen)]
    place = metafunc.definition.path.relative_to(metafunc.config.rootpath)
    on_both = chosen == "both" or place.parts[:2] == _ON_BOTH_BY_DEFAULT
    return [EMBEDDED_MAJOR, OLDEST_MAJOR] if on_both else [EMBEDDED_MAJOR]


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[dict[int, PostgresServer]]:
    """The servers that have been started; they all stop at the end of the session."""
    with ExitStack() as stack:
        servers = _Servers(stack)
        yield servers


class _Servers(dict[int, PostgresServer]):
    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, major: int) -> PostgresServer:
        installation = find_postgres(major)
        if installation is None:
            pytest.skip(f"PostgreSQL {major} is not installed (Debian: apt install postgresql-{major})")
        self[major] = self._stack.enter_context(running_postgres(installation))
        return self[major]


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, postgres_servers: dict[int, PostgresServer]) -> PostgresServer:
    """The server of the major version that the test runs on."""
    return postgres_servers[request.param]


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The connection string of a database of the test's own, with the planner's schema."""
    name = postgres.create_database(migrated=True)
    yield postgres.dsn(name)
    postgres.drop_meanwhile(name)


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[str]:
    """The connection string of a database of the test's own, with nothing in it."""
    name = postgres.create_database(migrated=False)
    yield postgres.dsn(name)
    postgres.drop_meanwhile(name)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Interrupts are heeded, by what a test starts too, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""Several planners: whoever does not get an answer turns to the next."""

from __future__ import annotations

import functools
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from dalsegno import Client
from dalsegno.errors import UsageError
from dalsegno.planner_addresses import PlannerAddresses
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest, ExecutionServiceListResponse
from dalsegno_executor.executor import USAGE
from dalsegno_executor.worker import run
from tests.names import NameServer

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@contextmanager
def listing(address: str, asked: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Serve lists of executions, and tell who is asked; the port is chosen where the address has none."""

    def answer(request: ExecutionServiceListRequest, context: grpc.ServicerContext) -> ExecutionServiceListResponse:
        asked()
        return ExecutionServiceListResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    method = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=ExecutionServiceListRequest.FromString,
        response_serializer=ExecutionServiceListResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler("dalsegno.v1.ExecutionService", {"List": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(address)
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture
def answering() -> Iterator[str]:
    with listing("127.0.0.1:0") as port:
        yield f"127.0.0.1:{port}"


def test_turns_go_round() -> None:
    addresses = PlannerAddresses("a:1, b:2,,c:3")
    seen = []
    for _ in range(6):
        seen.append(addresses.current)
        addresses.turn()
    assert sorted(seen[:3]) == ["a:1", "b:2", "c:3"]
    assert seen[3:] == seen[:3]


def test_of_a_list_any_may_be_the_first() -> None:
    """So that those who are given the same one spread over it. By chance it is another way once in 10^17 runs."""
    assert {PlannerAddresses("a:1,b:2,c:3").current for _ in range(100)} == {"a:1", "b:2", "c:3"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere this machine has no 127.0.0.2")
def test_calls_are_spread_over_all_addresses_of_a_name() -> None:
    asked: list[str] = []
    with ExitStack() as stack:
        port = 0
        for host in HOSTS:
            port = stack.enter_context(listing(f"{host}:{port}", functools.partial(asked.append, host)))
        named = stack.enter_context(NameServer(HOSTS)).target(port)
        client = stack.enter_context(Client(named))
        while len(set(asked)) < len(HOSTS):  # those that are connected already have their turns meanwhile
            assert list(client.executions.list()) == []
        del asked[:]
        for _ in range(3 * len(HOSTS)):
            assert list(client.executions.list()) == []
    assert Counter(asked) == dict.fromkeys(HOSTS, 3)


def test_a_client_finds_the_planner_that_answers(answering: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        nobody = f"127.0.0.1:{silent.getsockname()[1]}"
        for _ in range(4):
            assert list(Client(f"{nobody},{answering}").executions.list()) == []


@pytest.mark.parametrize("address", ["localhost:99999", "localhost:0", "a:1,https://b:70000"])
def test_a_port_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="give one from 1 to 65535"):
        Client(address)


def test_a_worker_with_such_an_address_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["flows", "--address", "localhost:99999"]) == USAGE
    said = capsys.readouterr()
    assert (said.out + said.err).splitlines() == [
        "dalsegno worker: the planner's address 'localhost:99999' has a port that is none: give one from 1 to 65535"
    ]


@pytest.mark.parametrize("address", ["unix:/tmp/planner:99999", "localhost", "[::1]:7317", "https://h:443"])
def test_other_addresses_are_left_alone(address: str) -> None:
    assert PlannerAddresses(address).current == address

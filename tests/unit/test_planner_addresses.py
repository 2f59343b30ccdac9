"""Several planners: whoever does not get an answer turns to the next."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from dalsegno import Client
from dalsegno.errors import UsageError
from dalsegno.planner_addresses import PlannerAddresses
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest, ExecutionServiceListResponse
from dalsegno_executor.executor import USAGE
from dalsegno_executor.worker import run


@pytest.fixture
def answering() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    listing = grpc.unary_unary_rpc_method_handler(
        lambda request, context: ExecutionServiceListResponse(),
        request_deserializer=ExecutionServiceListRequest.FromString,
        response_serializer=ExecutionServiceListResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler("dalsegno.v1.ExecutionService", {"List": listing})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_turns_go_round() -> None:
    addresses = PlannerAddresses("a:1, b:2,,c:3")
    seen = []
    for _ in range(6):
        seen.append(addresses.current)
        addresses.turn()
    assert sorted(seen[:3]) == ["a:1", "b:2", "c:3"]
    assert seen[3:] == seen[:3]


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

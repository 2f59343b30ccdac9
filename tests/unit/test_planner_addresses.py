"""Several planners: whoever does not get an answer turns to the next."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from dalsegno import Client
from dalsegno.planner_addresses import PlannerAddresses
from dalsegno.v1.execution_service_pb2 import ExecutionServiceListRequest, ExecutionServiceListResponse


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

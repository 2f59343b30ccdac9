"""The client: everything that a planner can be asked for, from Python."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from dalsegno.client.artifacts import Artifacts
from dalsegno.client.connection import Connection, refuse_client_inside
from dalsegno.client.execution_api import Executions
from dalsegno.client.executions import Execution
from dalsegno.client.reach import Reach
from dalsegno.client.replay_request import request_of_configuration
from dalsegno.client.storage import Storage

__all__ = ["Client", "shared_client"]


class Client:
    """A client of one planner.

    Attributes:
        executions: Reads, replays, answers and ends executions.
        artifacts: Reads and stores values.

    Args:
        address: Where the planner is: ``host:port``, ``https://host:port`` or ``unix:/path``. Where none is
            given it is ``DALSEGNO_ADDRESS``, and without that the local engine, which is started if need be.
        project: The project that names live in; by default that of the working directory.

    Raises:
        ContextError: Inside a body or a step.
    """

    def __init__(self, address: str | None = None, project: str | None = None) -> None:
        refuse_client_inside()
        connection = Connection(address, project)
        self.reach = Reach(connection, Storage(connection))
        self.executions = Executions(self.reach)
        self.artifacts = Artifacts(connection, self.reach.storage)

    @property
    def address(self) -> str:
        """Where the planner is."""
        return self.reach.connection.address

    @property
    def project(self) -> str:
        """The project that names live in."""
        return self.reach.project

    def replay_pipeline_run(
        self, name_id_or_prefix: object, run_configuration: Mapping[str, Any] | None = None
    ) -> Execution:
        """Replay a run of a pipeline as it is recorded, and return the replay without waiting for it.

        Args:
            name_id_or_prefix: The run: its name, its ID or a unique prefix of it.
            run_configuration: ``steps_to_skip`` (invocation IDs), ``skip_successful_steps``, ``parameters``
                and ``step_input_overrides``; other keys are refused. Without any, everything re-executes.

        Raises:
            UsageError: If the configuration is wrong, or the run is none of a pipeline.
            NotFoundError: If there is no such run.
        """
        from dalsegno.client.pipeline_replays import source_run

        request = request_of_configuration(run_configuration)
        source = source_run(self.reach, name_id_or_prefix, None, None)
        return self.executions.replay_request(source, request)

    def close(self) -> None:
        """Close the connection."""
        self.reach.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        connection = self.reach.connection
        where = "the local engine" if connection.is_local_engine else connection.address
        return f"<Client of {where}, project {self.project!r}>"


_lock = threading.Lock()
_shared: dict[tuple[str | None, str], Client] = {}


def shared_client() -> Client:
    """Return the client that flows and pipelines of this process use, as the environment says it now."""
    fresh = Connection()
    key = (None if fresh.is_local_engine else fresh.address, fresh.project)
    with _lock:
        if key not in _shared:
            _shared[key] = Client(key[0], key[1])
        return _shared[key]

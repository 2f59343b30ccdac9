"""Where planners are: one address, or several of which any serves."""

from __future__ import annotations

import random
import re

from dalsegno.errors import UsageError

LOAD_BALANCING = ("grpc.lb_policy_name", "round_robin")
"""Option of a channel: of a name with several addresses, streams and calls are spread over all that answer."""


_PORT = re.compile(r":(\d+)$")
_LAST_PORT = 65_535


class PlannerAddresses:
    """The addresses that a setting names, separated by commas, and the one that is used at present.

    Which one is used first is left to chance, so that clients and executors spread over the planners.

    Args:
        text: ``host:port``, ``https://host:port`` or ``unix:/path``, or several of these.

    Raises:
        UsageError: If a port is none; gRPC would take the rest of its division by 65,536.
    """

    def __init__(self, text: str) -> None:
        self._all = [address for part in text.split(",") if (address := part.strip())] or [text]
        for address in self._all:
            _check_port(address)
        random.shuffle(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def current(self) -> str:
        """The address to use."""
        return self._all[0]

    def turn(self) -> None:
        """Turn to the next one: this one does not answer."""
        self._all.append(self._all.pop(0))


def _check_port(address: str) -> None:
    port = None if address.startswith("unix:") else _PORT.search(address)
    if port is not None and not 0 < int(port[1]) <= _LAST_PORT:
        raise UsageError(
            f"the planner's address {address!r} has a port that is none: give one from 1 to {_LAST_PORT}",
            reason="INVALID_ADDRESS",
            fields={"address": address},
        )

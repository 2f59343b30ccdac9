"""Where a planner serves: binding to it, and what to say where that fails."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import grpc

from dalsegno.errors import BackendError

_UNIX = "unix:"
_PROBE_TIMEOUT = 1.0


class AddressError(BackendError):
    """The planner cannot serve where it was told to."""

    default_reason = "ADDRESS_IN_USE"


def bind(server: grpc.aio.Server, address: str) -> str:
    """Bind a server to an address.

    Args:
        server: Not started yet.
        address: ``host:port``, with port 0 for any free one, or ``unix:/path``.

    Returns:
        The address that clients use.

    Raises:
        AddressError: Something else serves there, or nothing can.
    """
    if address.startswith(_UNIX):
        return _bind_unix(server, Path(address.removeprefix(_UNIX)))
    _check_port(address)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _cannot_bind(address, error) from None
    return f"{address.rpartition(':')[0]}:{port}"


def _check_port(address: str) -> None:
    """Refuse an address that cannot be served on, and say why: gRPC tells that to standard error only."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            why = f"{host} is not an address of this machine; set DALSEGNO_LISTEN to one that is"
        elif error.errno == errno.EADDRINUSE:
            why = f"port {port} is in use; stop what serves there, or set DALSEGNO_LISTEN to another address"
        else:
            why = f"{error.strerror or error}; set DALSEGNO_LISTEN to another address"
        raise AddressError(
            f"cannot serve on {address}: {why}, such as 127.0.0.1:0 for any free port", fields={"address": address}
        ) from None


def _bind_unix(server: grpc.aio.Server, path: Path) -> str:
    address = f"{_UNIX}{path}"
    if not path.parent.is_dir():
        raise AddressError(f"cannot serve on {address}: the folder {path.parent} does not exist; create it")
    if path.exists():
        _remove_stale(path, address)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise _cannot_bind(address, error) from None
    finally:
        os.umask(before)
    path.chmod(0o600)
    return address


def _remove_stale(path: Path, address: str) -> None:
    """Remove the socket of a process that is gone; gRPC would remove that of a living one too."""
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise AddressError(
            f"cannot serve on {address}: a file that is not a socket is there; remove it, or serve elsewhere"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise AddressError(f"cannot serve on {address}: {error}") from None
    raise AddressError(
        f"cannot serve on {address}: another process serves there; stop it, or set DALSEGNO_LISTEN to another address",
        fields={"address": address},
    )


def _cannot_bind(address: str, error: RuntimeError) -> AddressError:
    port = address.rpartition(":")[2]
    return AddressError(
        f"cannot serve on {address}: port {port} is in use, or the address is not one of this machine; stop "
        "what serves there, or set DALSEGNO_LISTEN to another address such as 127.0.0.1:0 for any free port",
        fields={"address": address},
    )

"""Ports that a server of ours could listen on, and who has the others."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from popcorn_ml.errors import ConfigError


def require_port(host: str, port: int, command: str = "popcorn ui") -> None:
    """Refuse a port that a web server could not listen on.

    Dagster would go on with the daemon alone, and the page would be another program's.

    Args:
        command: that is told of, and is to be given another.

    Raises:
        ConfigError: it is taken, or is not ours to take; or the host is none of this machine's.
    """
    reason = _why_not(host, port)
    if reason is None:
        return
    if reason.errno != errno.EADDRINUSE:
        raise ConfigError(
            f"cannot listen on {host}, port {port}",
            where=command,
            found=reason.strerror or str(reason),
            remedy=f"{command} --host ADDRESS --port NUMBER; for this machine alone, 127.0.0.1 "
            "and a number above 1023",
        )
    raise ConfigError(
        f"port {port} of {host} is taken",
        where=command,
        found=_listener(port),
        remedy=f"end that program, or {command} --port {next(free_ports(host, port), 'NUMBER')}",
    )


def free_ports(host: str, port: int) -> Iterator[int]:
    """Ports above one that a server could listen on."""
    return (other for other in range(port + 1, 65_536) if _why_not(host, other) is None)


def _why_not(host: str, port: int) -> OSError | None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _listener(port: int) -> str:
    """The process that listens on a port, as far as it may be seen."""
    import psutil

    for process in psutil.process_iter(["name", "cmdline"]):
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            command = " ".join(process.info["cmdline"] or [process.info["name"]])
            return f"process {process.pid}: {command[:100]}"
    return "a program of another user"

"""A Postgres server of a test's own: real, on this machine, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD, DATABASE = "popcorn", "s3cret/&%", "dagster"
PASSWORD_ESCAPED = "s3cret%2F%26%25"
ACCOUNT = "postgres"


@dataclass(frozen=True)
class Server:
    port: int

    def url(self, password: str = PASSWORD_ESCAPED, database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"


def binaries() -> Path | None:
    """The folder with Postgres' own programs; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("postgres")
    folders += [Path(found).resolve().parent] if found else []
    needed = ("initdb", "postgres")
    return next((f for f in folders if all((f / name).is_file() for name in needed)), None)


def why_not() -> str | None:
    """What stands in the way of a server here; None: nothing."""
    if binaries() is None:
        return "no Postgres on this machine: apt-get install postgresql"
    if os.geteuid() == 0 and not _account():
        return f"Postgres does not run as root, and there is no user {ACCOUNT}"
    return None


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None


@contextmanager
def serving() -> Iterator[Server]:
    """A server with one database and a user who needs the password to come in."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="popcorn-postgres-"))
    account = _account() if os.geteuid() == 0 else None
    as_user = {"user": account.pw_uid, "group": account.pw_gid} if account else {}
    try:
        (folder / "password").write_text(PASSWORD)
        if account:
            for path in (folder, folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        run = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **as_user}
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", USER, "--auth=scram-sha-256",
             f"--pwfile={folder / 'password'}", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, timeout=120, **run,
        )  # fmt: skip
        port = _free_port()
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", "-p", str(port), "-F",
                 "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"],
                stdout=log, stderr=subprocess.STDOUT, **run,
            )  # fmt: skip
        try:
            _make_database(server, port, folder)
            yield Server(port)
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_database(server: subprocess.Popen, port: int, folder: Path) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, (folder / "log").read_text()
        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres"
            )
            break
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""`popcorn ui` tries its port before anything is started."""

import socket

import pytest
from click.testing import CliRunner

from popcorn_assets.commands.ports import require_port
from popcorn_assets.commands.running import ui
from popcorn_ml.errors import ConfigError


@pytest.mark.parametrize(
    ("listens", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")],
)
def test_a_port_that_is_taken_is_named_with_another(listens, asked):
    with socket.create_server((listens, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of {asked} is taken") as caught:
            require_port(asked, port)
        assert "process" in str(caught.value.found)
        other = int(caught.value.remedy.rpartition(" ")[2])
        assert other > port
    require_port(asked, other)
    require_port(asked, port)


def test_the_command_ends_before_it_starts_anything(place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = CliRunner().invoke(ui, ["--port", str(port)])
    assert isinstance(done.exception, ConfigError)
    assert "popcorn ui --port" in str(done.exception)
    for wrong in ("0", "65536", "web"):
        assert CliRunner().invoke(ui, ["--port", wrong]).exit_code == 2


def test_an_address_that_is_not_this_machines():
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        require_port("192.0.2.1", 3000)
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host"):
        require_port("no.such.host.invalid", 3000)

"""Pictures by reference: what the web server shows of the store, and nothing else of it."""

from __future__ import annotations

import http.client
import io
import socket
import threading
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import numpy as np
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from PIL import Image

from popcorn_assets.runs.pictures import ComputeLogs, picture_of
from popcorn_assets.show import markdown_image, shown_picture
from popcorn_assets.store.versions import Address, Store

ADDRESS = Address("hectare_map", "demo", 2021)


def png(side: int = 600) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def publish(store: Store, address: Address, **manifest) -> Path:
    with store.draft(address) as draft:
        (draft / "picture.png").write_bytes(png())
        (draft / "secret.png").write_bytes(b"not to be shown")
        return store.publish(address, draft, {"checks": [], **manifest}).path


@pytest.fixture
def version(place) -> Path:
    return publish(Store(place.data), ADDRESS)


@pytest.fixture
def web(place):
    """Asks Dagster's own web server over the place for a path, as it is written."""
    import uvicorn
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster_webserver.webserver import DagsterWebserver

    with (
        place.instance() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        app = DagsterWebserver(context).create_asgi_app()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()

        def ask(path: str) -> tuple[int, str, bytes]:
            connection = http.client.HTTPConnection(*listening.getsockname(), timeout=30)
            connection.request("GET", quote(path, safe="/%"))
            reply = connection.getresponse()
            return reply.status, reply.headers["content-type"] or "", reply.read()

        yield ask
        server.should_exit = True
        thread.join(20)


def test_a_picture_is_told_by_its_address_and_the_web_server_has_it(place, version, web):
    with place.instance() as instance:
        assert isinstance(instance.compute_log_manager, ComputeLogs)
        told = shown_picture(version / "picture.png", instance)
    assert told == f"![picture](/logs/pictures/hectare_map/demo/2021/{version.name}/png)"
    status, kind, content = web(told[len("![picture](") : -1])
    assert (status, kind) == (200, "image/png")
    assert content == (version / "picture.png").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "hectare_map/demo/2021/{version}/../{version}/png",
        "hectare_map/demo/2021/../2021/{version}/png",
        "../../../../etc/passwd/png",
        "%2e%2e/%2e%2e/etc/passwd/png",
        "hectare_map/demo/2021/{version}/json",
        "hectare_map/demo/2021/{version}/secret/png",
        "hectare_map/demo/2021/LATEST/png",
        "hectare_map/demo/2021/0123456789abcdef/png",
        "hectare_map/demo/{version}/png",
        "hectare_map/demo/\u0662\u0660\u0662\u0661/{version}/png",
        "hectare_map/demo/9999/{version}/png",
        "Hectare_map/demo/2021/{version}/png",
        "/etc/png",
        "png",
        "",
    ],
)
def test_nothing_else_is_shown(place, version, web, path):
    (place.data / "secret.png").write_bytes(b"not to be shown")
    _, kind, content = web(f"/logs/pictures/{path.format(version=version.name)}")
    assert b"not to be shown" not in content
    assert b"root:" not in content
    assert not kind.startswith("image/")


def test_a_link_out_of_a_version_is_not_followed(place, version):
    version.chmod(0o700)
    (version / "picture.png").unlink()
    (place.data / "other.png").write_bytes(b"not to be shown")
    (version / "picture.png").symlink_to(place.data / "other.png")
    assert picture_of(("hectare_map", "demo", "2021", version.name)) is None


def test_logs_are_where_they_were(place):
    with place.instance() as instance:
        logs = instance.compute_log_manager
        with logs.open_log_stream(["run", "compute_logs", "step"], ComputeIOType.STDOUT) as out:
            out.write("said by a step")
        found = logs.get_log_data(["run", "compute_logs", "step"])
    assert b"said by a step" in found.stdout


def test_behind_another_server_the_address_has_its_path(place, version, monkeypatch):
    monkeypatch.setenv("POPCORN_WEBSERVER", "https://maps.example.org/popcorn/")
    with place.instance() as instance:
        assert "(/popcorn/logs/pictures/" in shown_picture(version / "picture.png", instance)


def test_without_that_web_server_a_small_picture_is_embedded(version, tmp_path):
    """Also of a store elsewhere: in a run of a program's own, or with other compute logs."""
    with dg.DagsterInstance.ephemeral() as instance:
        told = shown_picture(version / "picture.png", instance)
        assert shown_picture(tmp_path / "none.png", instance) is None
    assert told.startswith("![picture](data:image/png;base64,")
    whole = (version / "picture.png").stat().st_size
    assert whole > 1_000_000 > 250_000 > len(told)  # noise, which nothing makes small
    flat = io.BytesIO()
    Image.new("RGB", (800, 800), "red").save(flat, "PNG")
    assert len(markdown_image(flat.getvalue())) < 2_000


def test_unpartitioned_versions_have_pictures_too(place):
    version = publish(Store(place.data), Address("builtup_extractor"))
    assert picture_of(("builtup_extractor", version.name)) == version / "picture.png"


def test_a_rejected_version_is_looked_at(place, version):
    failed = {"name": "sums", "passed": False, "severity": "error", "message": "people are lost"}
    with Store(place.data).draft(ADDRESS) as draft:
        (draft / "picture.png").write_bytes(png(20))
        rejected = Store(place.data).publish(ADDRESS, draft, {"checks": [failed]}).path
    assert picture_of(("hectare_map", "demo", "2021", rejected.name)) == rejected / "picture.png"

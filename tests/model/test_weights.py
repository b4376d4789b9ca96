"""Weights on disk: only the right ones load, and nothing half-written is left."""

from __future__ import annotations

import json
import pickle
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from popcorn_ml.errors import WeightsError
from popcorn_ml.model.importing import fetch_extractor, import_extractor, import_published_member
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, from_extractor
from popcorn_ml.model.published import (
    PUBLISHED_BYTES,
    PUBLISHED_SHA256,
    PUBLISHED_URL,
    published_key,
)
from popcorn_ml.model.stored import extractor_shapes, occupancy_shapes, read_card
from popcorn_ml.model.weights import (
    fingerprint,
    load_extractor,
    load_occupancy,
    save_extractor,
    save_occupancy,
    tensors_of,
)


@pytest.fixture
def published(reference_dir: Path) -> Path:
    return reference_dir / "builtup_extractor.pt"


@pytest.fixture
def member(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    model = from_extractor(BuiltupExtractor(), 0.3, seed=1600)
    return save_occupancy(model, tmp_path / "member" / "occupancy.safetensors", {"seed": 1600})


def test_published_weights_are_frozen_and_convert_without_loss(published, tmp_path):
    model = load_extractor(published)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    path = import_extractor(published, tmp_path / "kept")
    assert path == tmp_path / "kept" / "extractor.safetensors"
    assert fingerprint(load_extractor(path)) == fingerprint(model)
    card = json.loads((tmp_path / "kept" / "extractor.json").read_text())
    assert card["source_sha256"] == PUBLISHED_SHA256
    assert card["licence"] == "Apache-2.0"
    assert path.stat().st_size == card["bytes"] < 150_000
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "extractor.json",
        "extractor.safetensors",
    ]
    again = import_extractor(path, tmp_path / "copy" / "other.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_every_published_tensor_is_known_and_strangers_are_not(published):
    network = torch.load(published, map_location="cpu", weights_only=True)["network"]
    names = [published_key(key) for key in network]
    kept = [name for name in names if name is not None]
    assert len(kept) == len(set(kept)) == 134
    with pytest.raises(KeyError):
        published_key("sar_stream.inc.conv.conv.2.weight")


@pytest.mark.parametrize("harm", ["altered", "truncated", "missing"])
def test_published_weights_that_are_not(published, tmp_path, harm):
    path = tmp_path / "weights.pt"
    content = bytearray(published.read_bytes())
    if harm == "altered":
        content[300_000] ^= 1
    if harm != "missing":
        path.write_bytes(content[: 400_000 if harm == "truncated" else None])
    with pytest.raises(WeightsError) as raised:
        import_extractor(path, tmp_path / "kept")
    assert str(path) in str(raised.value)
    if harm != "missing":
        assert PUBLISHED_SHA256 in str(raised.value)
        assert raised.value.remedy
    assert not (tmp_path / "kept").exists()


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return (Path.touch, (ran,))

    path = tmp_path / "last_model.pth"
    path.write_bytes(pickle.dumps({"model": Attack()}))
    torch.save({"model": Attack()}, tmp_path / "zip.pth")
    for file in (path, tmp_path / "zip.pth"):
        with pytest.raises(WeightsError, match="cannot be read"):
            import_published_member(file, tmp_path / "kept")
    assert not ran.exists()
    assert not (tmp_path / "kept").exists()


def test_a_member_round_trip(member):
    model = load_occupancy(member.parent)
    assert not model.training
    assert fingerprint(model) == fingerprint(load_occupancy(member))
    assert read_card(member)["seed"] == 1600
    before = member.read_bytes()
    save_occupancy(model, member, {"seed": 1600})
    assert member.read_bytes() == before


@pytest.mark.parametrize("harm", ["altered", "truncated", "no card", "other card", "broken card"])
def test_safetensors_that_are_not_what_their_card_says(member, harm):
    card = member.parent / "card.json"
    if harm == "altered":
        content = bytearray(member.read_bytes())
        content[-1] ^= 1
        member.write_bytes(content)
    elif harm == "truncated":
        member.write_bytes(member.read_bytes()[:-100])
    elif harm == "no card":
        card.unlink()
    elif harm == "other card":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": "0" * 64}))
    else:
        card.write_text("{")
    with pytest.raises(WeightsError) as raised:
        load_occupancy(member)
    assert str(member.parent) in str(raised.value)


def test_weights_of_another_architecture(member, tmp_path):
    with pytest.raises(WeightsError, match="another architecture"):
        load_extractor(member)
    small = save_extractor(BuiltupExtractor(), tmp_path / "e" / "extractor.safetensors", {})
    with pytest.raises(WeightsError, match="another architecture"):
        load_occupancy(small)


def test_weights_that_are_not_finite(tmp_path):
    model = OccupancyModel()
    with torch.no_grad():
        model.head[0].weight[0, 0] = float("nan")
    path = save_occupancy(model, tmp_path / "nan" / "occupancy.safetensors", {})
    with pytest.raises(WeightsError, match="not finite"):
        load_occupancy(path)


def test_a_published_member_is_imported(published, tmp_path):
    """Built here as Bag-of-POPCORN's files are described, from the published extractor."""
    network = torch.load(published, map_location="cpu", weights_only=True)["network"]
    start = from_extractor(load_extractor(published), 0.2, seed=3)
    state = {f"unetmodel.{k}": v for k, v in network.items()}
    state |= {f"building_extractor.{k}": v for k, v in network.items()}
    state |= {k: v for k, v in start.state_dict().items() if k.startswith("head.")}
    file = tmp_path / "last_model.pth"
    torch.save({"model": state, "epoch": 100}, file)
    path = import_published_member(file, tmp_path / "kept", {"seed": 1600})
    assert fingerprint(load_occupancy(path)) == fingerprint(start)
    card = read_card(path)
    assert card["seed"] == 1600
    assert card["extractor_fingerprint"] == fingerprint(load_extractor(published))

    key = "building_extractor.fusion_out_conv.conv.bias"
    torch.save({"model": state | {key: state[key] + 1}}, file)
    with pytest.raises(WeightsError, match="another extractor"):
        import_published_member(file, tmp_path / "other")
    state["temperature"] = torch.zeros(1)
    torch.save({"model": state}, file)
    with pytest.raises(WeightsError, match="temperature"):
        import_published_member(file, tmp_path / "other")
    torch.save({"weights": state}, file)
    with pytest.raises(WeightsError, match="no key 'model'"):
        import_published_member(file, tmp_path / "other")
    assert not (tmp_path / "other").exists()


class Server:
    """A web server on this machine that answers with given bytes."""

    def __init__(self) -> None:
        self.answer = b""
        self.status = 200
        self.promised: int | None = None
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(outer.status)
                length = len(outer.answer) if outer.promised is None else outer.promised
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.pt"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def test_fetching_once(published, server, tmp_path):
    server.answer = published.read_bytes()
    target, seen = tmp_path / "weights" / "extractor.pt", []
    assert fetch_extractor(target, server.url, progress=lambda *a: seen.append(a)) == target
    assert seen[-1] == (PUBLISHED_BYTES, PUBLISHED_BYTES)
    load_extractor(target)
    fetch_extractor(target, server.url)
    assert server.asked == 1
    assert [p.name for p in target.parent.iterdir()] == ["extractor.pt"]


@pytest.mark.parametrize("harm", ["another file", "cut off", "refused", "endless"])
def test_a_download_gone_wrong_leaves_nothing(published, server, tmp_path, monkeypatch, harm):
    server.answer = published.read_bytes()
    if harm == "another file":
        server.answer = b"<html>log in first</html>"
    elif harm == "cut off":
        server.promised, server.answer = len(server.answer), server.answer[:1000]
    elif harm == "refused":
        server.status = 403
    else:
        monkeypatch.setattr("popcorn_ml.model.importing.MAX_DOWNLOAD_BYTES", 100_000)
        server.answer *= 2
    target = tmp_path / "weights" / "extractor.pt"
    with pytest.raises(WeightsError) as raised:
        fetch_extractor(target, server.url)
    assert server.url in str(raised.value)
    assert raised.value.remedy
    assert not list(target.parent.iterdir())


def test_no_network_says_what_to_do(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/weights.pt"
    with pytest.raises(WeightsError, match="popcorn weights import"):
        fetch_extractor(tmp_path / "extractor.pt", url)
    assert not list(tmp_path.iterdir())


def test_the_published_address_is_fixed_to_a_commit():
    assert "c7b0208" in PUBLISHED_URL
    assert PUBLISHED_URL.startswith("https://")


@pytest.mark.parametrize(
    ("network", "shapes"),
    [(BuiltupExtractor, extractor_shapes), (OccupancyModel, occupancy_shapes)],
)
def test_shapes_known_without_torch_are_the_networks_own(network, shapes):
    state = tensors_of(network())
    assert {name: value.shape for name, value in state.items()} == shapes()
    assert {value.dtype for value in state.values()} == {np.dtype("float32")}

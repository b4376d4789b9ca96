"""A local Earth Engine for the real client: its REST paths, and the few functions that are used.

Serves the discovery document and the list of algorithms that the client's package ships, evaluates
expressions pixel by pixel over scenes on disk (an item collection as `popcorn_ml.simulate` writes
it), runs exports into an in-memory bucket, and gives out access tokens for a service account. It
shares no code with the graph builder. Faults are injected by a function that sees every request.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import ee
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

BAND_FILES = {"B2": "B02", "B3": "B03", "B4": "B04", "B8": "B08", "SCL": "SCL"}
ACCESS_TOKEN = "ya29.canary-access-token"


class Archive:
    """The images, made of a STAC item collection: S2_SR_HARMONIZED, cloud probability, S1_GRD.

    Args:
        items: the collection on disk.
        without_probability: ids of Sentinel-2 images that have no cloud probability image.
        probability: (scene classes) -> cloud probability in per cent.
    """

    def __init__(
        self,
        items: Path,
        without_probability: set[str] | None = None,
        probability: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.folder = items.parent
        self.probability = probability or (lambda scl: np.where(np.isin(scl, (4, 5, 6, 7)), 10, 90))
        self.images: dict[str, dict[str, Any]] = {}
        for item in json.loads(items.read_text())["features"]:
            said = item["properties"]
            moment = datetime.fromisoformat(said["datetime"].replace("Z", "+00:00"))
            shared = {
                "system:index": item["id"],
                "system:time_start": round(moment.timestamp() * 1000),
            }
            if item["collection"] == "sentinel-2-l2a":
                self._add(
                    "COPERNICUS/S2_SR_HARMONIZED",
                    item,
                    {
                        **shared,
                        "SPACECRAFT_NAME": said["platform"],
                        "MGRS_TILE": said["s2:mgrs_tile"],
                        "PROCESSING_BASELINE": said["s2:processing_baseline"],
                        "GENERATION_TIME": said["s2:generation_time"],
                        "SENSING_ORBIT_NUMBER": said.get("sat:relative_orbit"),
                        "CLOUDY_PIXEL_PERCENTAGE": said.get("eo:cloud_cover"),
                    },
                )
                if item["id"] not in (without_probability or set()):
                    self._add("COPERNICUS/S2_CLOUD_PROBABILITY", item, shared)
            else:
                self._add(
                    "COPERNICUS/S1_GRD",
                    item,
                    {
                        **shared,
                        "platform_number": "A",
                        "orbitProperties_pass": said["sat:orbit_state"].upper(),
                        "relativeOrbitNumber_start": said.get("sat:relative_orbit"),
                        "instrumentMode": said["sar:instrument_mode"],
                        "transmitterReceiverPolarisation": said["sar:polarizations"],
                    },
                )

    def _add(self, collection: str, item: dict, properties: dict) -> None:
        self.images[f"{collection}/{item['id']}"] = {"item": item, "properties": properties}

    def bands(self, name: str) -> tuple[str, ...]:
        """Band names of an image."""
        if "S2_SR" in name:
            return tuple(BAND_FILES)
        return ("probability",) if "CLOUD" in name else ("VV", "VH")

    def read(self, name: str, band: str, grid: dict) -> tuple[np.ndarray, np.ndarray]:
        """Values and mask of a band on a pixel grid, nearest neighbour."""
        item = self.images[name]["item"]
        if band in ("VV", "VH"):
            received = self.images[name]["properties"]["transmitterReceiverPolarisation"]
            assert band in received, f"{name} has no band {band}"
            power = self._pixels(item["assets"][band.lower()]["href"], grid, -32768.0)
            mask = power > 0
            return 10 * np.log10(np.where(mask, power, 1)), mask
        if band == "probability":
            scl = self._pixels(item["assets"]["SCL"]["href"], grid, 0)
            return self.probability(scl).astype(float), scl > 0
        numbers = self._pixels(item["assets"][BAND_FILES[band]]["href"], grid, 0).astype(float)
        mask = numbers > 0
        if band != "SCL" and item["properties"]["s2:processing_baseline"] >= "04.00":
            numbers = np.maximum(numbers - 1000, 0)  # what "harmonised" means
        return numbers, mask

    def _pixels(self, href: str, grid: dict, nodata: float) -> np.ndarray:
        t, size = grid["affineTransform"], grid["dimensions"]
        target = Affine(
            t["scaleX"], t.get("shearX", 0), t["translateX"],
            t.get("shearY", 0), t["scaleY"], t["translateY"],
        )  # fmt: skip
        with rasterio.open(self.folder / href) as dataset:
            out = np.full((size["height"], size["width"]), nodata, dataset.dtypes[0])
            reproject(
                rasterio.band(dataset, 1),
                out,
                dst_transform=target,
                dst_crs=grid["crsCode"],
                src_nodata=nodata,
                dst_nodata=nodata,
                resampling=Resampling.nearest,
                tolerance=0,
            )
        return out


Image = dict[str, tuple[np.ndarray, np.ndarray]]


class Evaluator:
    """Works out an expression, for one pixel grid."""

    def __init__(self, archive: Archive, expression: dict, grid: dict | None = None) -> None:
        self.archive, self.values, self.grid = archive, expression["values"], grid
        self.result = expression["result"]
        self.known: dict[str, Any] = {}
        self.called: Counter[str] = Counter()

    def run(self) -> Any:
        return self.reference(self.result, {})

    def reference(self, name: str, scope: dict) -> Any:
        if scope:  # inside a function a value may depend on its arguments
            return self.node(self.values[name], scope)
        if name not in self.known:
            self.known[name] = self.node(self.values[name], scope)
        return self.known[name]

    def node(self, node: dict, scope: dict) -> Any:
        ((kind, held),) = node.items()
        match kind:
            case "constantValue":
                return held
            case "integerValue":
                return int(held)
            case "valueReference":
                return self.reference(held, scope)
            case "argumentReference":
                return scope[held]
            case "arrayValue":
                return [self.node(one, scope) for one in held["values"]]
            case "dictionaryValue":
                return {k: self.node(v, scope) for k, v in held["values"].items()}
            case "functionDefinitionValue":
                return lambda *given: self.reference(
                    held["body"], dict(zip(held["argumentNames"], given, strict=True))
                )
            case "functionInvocationValue":
                name = held["functionName"]
                self.called[name] += 1
                given = {k: self.node(v, scope) for k, v in held["arguments"].items()}
                return getattr(self, "f_" + name.replace(".", "_"))(**given)
        raise NotImplementedError(kind)

    # Collections and features

    def f_ImageCollection_load(self, id: str) -> list[dict]:
        found = [v for k, v in self.archive.images.items() if k.rpartition("/")[0] == id]
        return sorted(found, key=lambda image: image["properties"]["system:index"])

    def f_Collection_filter(self, collection: list, filter: Callable) -> list:
        return [one for one in collection if filter(one)]

    def f_DateRange(self, start: int, end: int) -> tuple[int, int]:
        return start, end

    def f_Filter_dateRangeContains(self, leftValue: tuple, rightField: str) -> Callable:
        return lambda one: leftValue[0] <= one["properties"][rightField] < leftValue[1]

    def f_Filter_intersects(self, leftField: str, rightValue: dict) -> Callable:
        boxes = rightValue["geometry"]

        def meets(one: dict) -> bool:
            w, s, e, n = one["item"]["bbox"]
            return any(
                w <= east and west <= e and s <= north and south <= n
                for west, south, east, north in boxes
            )

        return meets

    def f_Filter_equals(self, leftField: str, rightValue: Any) -> Callable:
        return lambda one: one["properties"][leftField] == rightValue

    def f_Filter_listContains(self, leftField: str, rightValue: Any) -> Callable:
        return lambda one: rightValue in one["properties"][leftField]

    def f_GeometryConstructors_Polygon(self, coordinates: list, geodesic: bool) -> list:
        lons, lats = zip(*coordinates[0], strict=True)
        return [(min(lons), min(lats), max(lons), max(lats))]

    def f_GeometryConstructors_MultiPolygon(self, coordinates: list, geodesic: bool) -> list:
        return [b for c in coordinates for b in self.f_GeometryConstructors_Polygon(c, geodesic)]

    def f_Feature(self, geometry: Any, metadata: dict | None = None) -> dict:
        return {"geometry": geometry, "properties": metadata or {}}

    def f_Image_geometry(self, feature: dict) -> dict:
        item = feature["item"]
        return item["geometry"] or _ring(item["bbox"])

    def f_Element_get(self, object: dict, property: str) -> Any:
        return object["properties"].get(property)

    def f_Collection_map(self, collection: list, baseAlgorithm: Callable) -> list:
        return [baseAlgorithm(one) for one in collection]

    # Images

    def f_Image_load(self, id: str) -> Image:
        return _Lazy(self.archive, id, self.grid)

    def f_Image_constant(self, value: float) -> Image:
        size = self.grid["dimensions"]
        shape = size["height"], size["width"]
        return {"constant": (np.full(shape, float(value)), np.ones(shape, bool))}

    def f_Image_select(self, input: Image, bandSelectors: list[str]) -> Image:
        return {band: input[band] for band in bandSelectors}

    def f_Image_rename(self, input: Image, names: list[str]) -> Image:
        return dict(zip(names, input.values(), strict=True))

    def f_Image_addBands(self, dstImg: Image, srcImg: Image) -> Image:
        return {**dstImg, **srcImg}

    def _both(self, image1: Image, image2: Image, work: Callable) -> Image:
        ((value, mask),) = image2.values()
        return {k: (work(v, value), m & mask) for k, (v, m) in image1.items()}

    def f_Image_lt(self, image1: Image, image2: Image) -> Image:
        return self._both(image1, image2, lambda a, b: (a < b).astype(float))

    def f_Image_max(self, image1: Image, image2: Image) -> Image:
        return self._both(image1, image2, np.maximum)

    def f_Image_add(self, image1: Image, image2: Image) -> Image:
        return self._both(image1, image2, np.add)

    def f_Image_multiply(self, image1: Image, image2: Image) -> Image:
        return self._both(image1, image2, np.multiply)

    def f_Image_floor(self, value: Image) -> Image:
        return {k: (np.floor(v), m) for k, (v, m) in value.items()}

    def f_Image_clamp(self, input: Image, low: float, high: float) -> Image:
        return {k: (np.clip(v, low, high), m) for k, (v, m) in input.items()}

    def f_Image_updateMask(self, image: Image, mask: Image) -> Image:
        ((allowed, known),) = mask.values()
        return {k: (v, m & known & (allowed != 0)) for k, (v, m) in image.items()}

    def f_Image_remap(self, image: Image, defaultValue: float, to: list, **named: list) -> Image:
        ((values, mask),) = image.values()
        out = np.full(values.shape, float(defaultValue))
        for old, new in zip(named["from"], to, strict=True):
            out[values == old] = new
        return {"remapped": (out, mask)}

    def f_Image_unmask(self, input: Image, value: Image, sameFootprint: bool = True) -> Image:
        assert sameFootprint is False, "outside every footprint, the mask would stay"
        ((filler, _),) = value.values()
        return {k: (np.where(m, v, filler), np.ones_like(m)) for k, (v, m) in input.items()}

    def f_Image_toUint16(self, value: Image) -> Image:
        return {k: (np.clip(v, 0, 65535).astype(np.uint16), m) for k, (v, m) in value.items()}

    def f_Reducer_min(self) -> str:
        return "min"

    def f_Image_reduce(self, image: Image, reducer: str) -> Image:
        assert reducer == "min"
        values = np.stack([np.where(m, v, np.inf) for v, m in image.values()]).min(axis=0)
        return {"min": (values, np.isfinite(values))}

    def f_ImageCollection_fromImages(self, images: list[Image]) -> list[Image]:
        return images

    def f_ImageCollection_mosaic(self, collection: list[Image]) -> Image:
        out = {k: (v.copy(), m.copy()) for k, (v, m) in collection[0].items()}
        for image in collection[1:]:
            for band, (values, mask) in image.items():
                out[band] = (np.where(mask, values, out[band][0]), out[band][1] | mask)
        return out

    def f_reduce_median(self, collection: list[Image]) -> Image:
        out = {}
        for band in collection[0]:
            stack = np.stack([np.where(i[band][1], i[band][0], np.nan) for i in collection])
            mask = ~np.isnan(stack).all(axis=0)
            stack[:, ~mask] = 0
            out[band] = (np.nanmedian(stack, axis=0), mask)
        return out

    def f_reduce_count(self, collection: list[Image]) -> Image:
        return {
            band: (
                np.sum([image[band][1] for image in collection], axis=0).astype(float),
                np.ones_like(collection[0][band][1]),
            )
            for band in collection[0]
        }


class _Lazy(dict):
    """An image of the archive whose bands are read when they are selected."""

    def __init__(self, archive: Archive, name: str, grid: dict) -> None:
        super().__init__()
        self.archive, self.name, self.grid = archive, name, grid

    def __missing__(self, band: str) -> tuple[np.ndarray, np.ndarray]:
        self[band] = self.archive.read(self.name, band, self.grid)
        return self[band]


Fault = Callable[[str, int], Any]
"""(path, number of this request) -> None, a status code, "cut", or (status, message)."""


class EarthEngineServer:
    """The server. `fault` may be replaced while it runs; `seen` counts requests by path."""

    def __init__(self, archive: Archive, project: str = "p") -> None:
        self.archive, self.project = archive, project
        self.fault: Fault = lambda path, number: None
        self.seen: Counter[str] = Counter()
        self.tokens_given = 0
        self.grids: list[dict] = []
        self.exports: dict[str, dict] = {}
        self.bucket: dict[str, bytes] = {}
        self.polls_until_done = 2
        self.export_error: str | None = None
        self.refuse_known_ids = False
        self.most_parallel = self._parallel = 0
        self.page = 7
        self._lock = threading.Lock()
        shipped = Path(ee.__file__).parent / "tests"
        self.algorithms = (shipped / "algorithms.json").read_bytes()
        document = (shipped / "cloud_api_discovery_document.json").read_text()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        described = json.loads(document.replace("v1alpha", "v1"))
        for key in ("rootUrl", "baseUrl", "mtlsRootUrl"):
            if key in described:
                described[key] = f"{self.url}/"
        self.discovery = json.dumps(described).encode()
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def key_file(self, path: Path) -> Path:
        """Write the key of a service account that this server gives tokens to."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        path.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": self.project,
                    "private_key_id": "canary-key-id",
                    "private_key": text,
                    "client_email": "popcorn@example.iam.gserviceaccount.com",
                    "client_id": "1",
                    "token_uri": f"{self.url}/token",
                }
            )
        )
        return path

    # What requests ask for

    def pixels(self, body: dict) -> bytes:
        self.grids.append(body["grid"])
        image = Evaluator(self.archive, body["expression"], body["grid"]).run()
        return _npy(image)

    def features(self, body: dict) -> dict:
        found = Evaluator(self.archive, body["expression"]).run()
        start = int(body.get("pageToken") or 0)
        page = [
            {"type": "Feature", "geometry": one["geometry"], "properties": one["properties"]}
            for one in found[start : start + self.page]
        ]
        answer: dict[str, Any] = {"type": "FeatureCollection", "features": page}
        if start + self.page < len(found):
            answer["nextPageToken"] = str(start + self.page)
        return answer

    def export(self, body: dict) -> dict:
        """Starts an export, or finds the one of the same request id."""
        name = f"projects/{self.project}/operations/{body['requestId']}"
        with self._lock:
            if name not in self.exports:
                self.exports[name] = {"body": body, "polls": 0, "error": self.export_error}
            elif self.refuse_known_ids:
                raise FileExistsError("request id already used")
        return {"name": name, "metadata": self._metadata(body, "PENDING")}

    def _metadata(self, body: dict, state: str) -> dict:
        return {"state": state, "description": body["description"]}

    def operations(self) -> dict:
        return {
            "operations": [
                {"name": name, "metadata": self._metadata(held["body"], "RUNNING")}
                for name, held in self.exports.items()
            ]
        }

    def operation(self, name: str) -> dict:
        held = self.exports[name]
        held["polls"] += 1
        if held["polls"] < self.polls_until_done:
            return {"name": name, "metadata": {"state": "RUNNING"}}
        if held["error"]:  # for ever, whatever becomes of what was wrong
            return {
                "name": name,
                "done": True,
                "metadata": {"state": "FAILED"},
                "error": {"code": 3, "message": held["error"]},
            }
        if not held.get("written"):
            self._write_export(held["body"])
            held["written"] = True
        return {"name": name, "done": True, "metadata": {"state": "SUCCEEDED"}}

    def _write_export(self, body: dict) -> None:
        options = body["fileExportOptions"]
        prefix = options["cloudStorageDestination"]["filenamePrefix"]
        grid = body["grid"]
        side = options["geoTiffOptions"]["tileDimensions"]
        size, t = grid["dimensions"], grid["affineTransform"]
        for row in range(0, size["height"], side["height"]):
            for col in range(0, size["width"], side["width"]):
                part = {
                    "crsCode": grid["crsCode"],
                    "dimensions": {
                        "width": min(side["width"], size["width"] - col),
                        "height": min(side["height"], size["height"] - row),
                    },
                    "affineTransform": {
                        **t,
                        "translateX": t["translateX"] + col * t["scaleX"],
                        "translateY": t["translateY"] + row * t["scaleY"],
                    },
                }
                image = Evaluator(self.archive, body["expression"], part).run()
                name = f"{prefix}-{row:010d}-{col:010d}.tif"
                self.bucket[name] = _geotiff(image, part)


def _npy(image: Image) -> bytes:
    first = next(iter(image.values()))[0]
    out = np.zeros(first.shape, [(k, v.dtype.newbyteorder("<")) for k, (v, _) in image.items()])
    for band, (values, mask) in image.items():
        out[band] = np.where(mask, values, 0)
    body = io.BytesIO()
    np.save(body, out)
    return body.getvalue()


def _geotiff(image: Image, grid: dict) -> bytes:
    t = grid["affineTransform"]
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            dtype="uint16",
            count=len(image),
            crs=grid["crsCode"],
            transform=Affine(t["scaleX"], 0, t["translateX"], 0, t["scaleY"], t["translateY"]),
            **grid["dimensions"],
        ) as out:
            for place, (values, mask) in enumerate(image.values(), start=1):
                out.write(np.where(mask, values, 0).astype(np.uint16), place)
        return memory.read()


def _ring(box: list) -> dict:
    w, s, e, n = box
    return {"type": "Polygon", "coordinates": [[[w, s], [e, s], [e, n], [w, n], [w, s]]]}


def _handler(server: EarthEngineServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            held = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                self._answer(json.loads(held))
            except ValueError:
                self._answer({"form": held.decode()})

        def _answer(self, body: dict) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            with server._lock:
                kind = re.sub(r"^/v1/projects/[^/]+/", "", path)
                server.seen[kind] += 1
                number = server.seen[kind]
                server._parallel += 1
                server.most_parallel = max(server.most_parallel, server._parallel)
            try:
                fault = server.fault(kind, number)
                if fault == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "100000")
                    self.end_headers()
                    self.wfile.write(b"\x93NUMPY half an ans")
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                elif fault is not None:
                    status, message = fault if isinstance(fault, tuple) else (fault, "injected")
                    self._send(json.dumps({"error": {"code": status, "message": message}}), status)
                else:
                    self._serve(kind, parse_qs(parts.query), body)
            except (BrokenPipeError, ConnectionResetError):
                pass
            except Exception as error:
                self._send(json.dumps({"error": {"code": 400, "message": repr(error)}}), 400)
            finally:
                with server._lock:
                    server._parallel -= 1

        def _serve(self, kind: str, query: dict, body: dict) -> None:
            if kind == "/$discovery/rest":
                return self._send(server.discovery)
            if kind == "/token":
                server.tokens_given += 1
                return self._send(
                    json.dumps(
                        {
                            "access_token": ACCESS_TOKEN,
                            "expires_in": 3600,
                            "token_type": "Bearer",
                        }
                    )
                )
            if self.headers.get("Authorization") != f"Bearer {ACCESS_TOKEN}":
                return self._send(json.dumps({"error": {"code": 401, "message": "who?"}}), 401)
            if kind == "algorithms":
                return self._send(server.algorithms)
            if kind == "image:computePixels":
                return self._send(server.pixels(body), kind="application/octet-stream")
            if kind == "table:computeFeatures":
                return self._send(json.dumps(server.features(body)))
            if kind == "image:export":
                return self._send(json.dumps(server.export(body)))
            if kind == "operations":
                return self._send(json.dumps(server.operations()))
            if kind.startswith("operations/"):
                return self._send(json.dumps(server.operation(f"projects/{server.project}/{kind}")))
            if kind.startswith("/storage/v1/b/"):
                prefix = query.get("prefix", [""])[0]
                return self._send(json.dumps({"items": [
                    _blob(name, held) for name, held in sorted(server.bucket.items())
                    if name.startswith(prefix)
                ]}))  # fmt: skip
            if kind.startswith("/download/storage/v1/b/"):
                return self._send(
                    server.bucket[kind.split("/o/", 1)[1]], kind="application/octet-stream"
                )
            raise NotImplementedError(kind)

        def _send(
            self, body: str | bytes, status: int = 200, kind: str = "application/json"
        ) -> None:
            held = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(held)))
            self.end_headers()
            self.wfile.write(held)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def _blob(name: str, held: bytes) -> dict:
    import google_crc32c

    crc = base64.b64encode(google_crc32c.Checksum(held).digest()).decode()
    return {
        "name": name,
        "bucket": "bucket",
        "size": str(len(held)),
        "crc32c": crc,
        "md5Hash": base64.b64encode(hashlib.md5(held).digest()).decode(),
        "generation": "1",
    }

"""The agencies' services on this machine: answers as they document them, files, and faults.

One server is all of them, each below a path of its own; POPCORN_MIRRORS sends the product here. The
country is that of tests/census/place.py, twelve units with people, published by each agency in its
own way.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from rasterio.transform import Affine

from tests.census import place

YEAR = 2020
PEOPLE = place.TOTAL
KEY = "canary-census-key-0123456789abcdef0123"


class Cut:
    """A connection that ends after some bytes of a file whose whole size was announced."""

    def __init__(self, after: int) -> None:
        self.after = after


class Drip:
    """A connection that gives a few bytes at a time, and takes for ever."""

    pause_s = 0.02


class Services:
    """The server.

    Attributes:
        files: path with query (without the key) -> contents.
        faults: path -> what happens instead, one a request until they are used up: a status, a
            status with headers, a `Cut`, a `Drip`, or other bytes.
        seen: requests, as path, query and headers.
        forms: path -> "gzip" or "chunked", how it is sent.
        ranges: whether parts of a file are given.
        key: without it the census's data API sends to a web page.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Any]] = {}
        self.forms: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.ranges = True
        self.key: str | None = None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def mirrors(self) -> str:
        """What POPCORN_MIRRORS says."""
        names = {
            "geoboundaries": "gb", "lfs": "lfs", "hdx": "hdx", "us_census_files": "tiger",
            "us_census_data": "data", "worldpop": "wp",
        }  # fmt: skip
        return " ".join(f"{name}={self.url}/{path}" for name, path in names.items())

    def asked(self, part: str) -> int:
        """How many requests had this in their path."""
        return sum(part in path for path, _ in self.seen)

    # The agencies

    def geoboundaries(self, **changes: Any) -> str:
        """Publish boundaries with geoBoundaries; the path of the file."""
        path = "/wmgeolab/geoBoundaries/raw/9469f09/gbOpen/PLC/ADM2/geoBoundaries-PLC-ADM2.geojson"
        answer = {
            "boundaryID": "PLC-ADM2-1", "boundaryName": "Place", "boundaryISO": "PLC",
            "boundaryYearRepresented": "2019", "boundaryType": "ADM2",
            "boundarySource": "Statistics Place", "admUnitCount": "12", "buildDate": "Dec 12, 2023",
            "boundaryLicense": "Creative Commons Attribution 4.0 International (CC BY 4.0)",
            "licenseSource": "example.org/terms", "gjDownloadURL": self.url + path,
            "simplifiedGeometryGeoJSON": self.url + path.replace(".geojson", "_simplified.geojson"),
            **changes,
        }  # fmt: skip
        self.files["/gb/api/current/gbOpen/PLC/ADM2/"] = json.dumps(answer).encode()
        frame = _frame()
        shapes = frame.assign(shapeName=frame["name"], shapeISO="", shapeType="ADM2")
        shapes["shapeID"] = [f"{k}B{k * 77}" for k in range(len(frame))]
        columns = ["shapeName", "shapeISO", "shapeID", "shapeType", "geometry"]
        self.files[path] = shapes[columns].to_json().encode()
        return path

    def cod_boundaries(self, members: dict[str, bytes] | None = None, **changes: Any) -> str:
        """Publish boundaries as COD-AB; the path of the archive."""
        path = "/hdx/dataset/1/resource/2/download/plc_admin_boundaries.geojson.zip"
        frame = _frame()
        named = {
            "adm2_name": frame["name"], "adm2_pcode": _pcodes(frame), "adm1_name": frame["parent"],
            "adm1_pcode": frame["parent"].map({"Nord": "PL01", "Sud": "PL02"}),
        }  # fmt: skip
        areas = gpd.GeoDataFrame(named, geometry=frame.geometry, crs=frame.crs)
        upper = areas.dissolve("adm1_pcode", as_index=False)[
            ["adm1_pcode", "adm1_name", "geometry"]
        ]
        lines = areas.assign(geometry=areas.boundary)
        given = members or {
            "plc_admin1.geojson": upper.to_json().encode(),
            "plc_admin2.geojson": areas.to_json().encode(),
            "plc_adminlines2.geojson": lines.to_json().encode(),
            "__MACOSX/._plc_admin2.geojson": b"\x00\x05\x16\x07",
        }
        self.files[path] = zipped(given)
        resources = [
            self._resource("plc_admin_boundaries.gdb.zip", "Geodatabase", "/hdx/none"),
            self._resource("plc_admin_boundaries.shp.zip", "SHP", "/hdx/none"),
            self._resource("plc_admin_boundaries.geojson.zip", "GeoJSON", path, **changes),
        ]
        self._package("cod-ab-plc", resources)
        return path

    def cod_counts(self, header: Sequence[str] | None = None, **changes: Any) -> str:
        """Publish counts as COD-PS, of 2019 and 2020; the path of the newer table."""
        names = header or ["ADM1_EN", "ADM1_PCODE", "ADM2_EN", "ADM2_PCODE", "F_TL", "M_TL", "T_TL"]
        tags = ["#adm1+name", "#adm1+code", "#adm2+name", "#adm2+code", "#p+f", "#p+m", "#p+t"]
        rows = [
            [u.parent, f"PL0{1 + (u.parent == 'Sud')}", u.name, f"PL{u.id}", u.people // 2,
             u.people - u.people // 2, u.people]
            for u in place.units()
        ]  # fmt: skip
        path = "/hdx/dataset/3/resource/4/download/plc_admpop_adm2_2020.csv"
        older = path.replace("2020", "2019")
        self.files[path] = table([names, tags, *rows])
        self.files[older] = table([names, tags, *([*r[:-1], r[-1] - 1] for r in rows)])
        resources = [
            self._resource("plc_admpop_adm1_2020.csv", "CSV", "/hdx/none"),
            self._resource("plc_admpop_adm2_2019.csv", "CSV", older),
            self._resource("plc_admpop_adm2_2020.csv", "CSV", path, **changes),
        ]
        self._package("cod-ps-plc", resources)
        return path

    def cod_boundaries_as_shapefiles(self) -> str:
        """As `cod_boundaries`, in one archive of shapefiles of each level."""
        path = "/hdx/dataset/1/resource/2/download/plc_adm_2006_nisr_shp.zip"
        frame = _frame()
        columns = {
            "ADM2_EN": frame["name"], "ADM2_PCODE": _pcodes(frame), "ADM1_EN": frame["parent"],
            "ADM1_PCODE": frame["parent"].map({"Nord": "PL01", "Sud": "PL02"}),
        }  # fmt: skip
        areas = gpd.GeoDataFrame(columns, geometry=frame.geometry, crs=frame.crs)
        upper = areas.dissolve("ADM1_PCODE", as_index=False)[["ADM1_PCODE", "ADM1_EN", "geometry"]]
        members: dict[str, bytes] = {}
        for level, layer in ((1, upper), (2, areas)):
            with zipfile.ZipFile(io.BytesIO(shapefile(layer, f"plc_adm{level}_2006_nisr"))) as held:
                members |= {name: held.read(name) for name in held.namelist()}
        self.files[path] = zipped(members)
        self._package("cod-ab-plc", [self._resource("plc_adm_2006_nisr_shp.zip", "SHP", path)])
        return path

    def cod_counts_as_workbook(self) -> str:
        """As `cod_counts`, in one workbook with a sheet a level."""
        import openpyxl

        path = "/hdx/dataset/3/resource/4/download/plc_admpop_2020.xlsx"
        book = openpyxl.Workbook()
        upper = book.active
        upper.title = "plc_admpop_adm1_2020"
        upper.append(["ADM1_EN", "ADM1_PCODE", "T_TL"])
        upper.append(["Nord", "PL01", 1])
        sheet = book.create_sheet("plc_admpop_adm2_2020")
        sheet.append(["ADM1_EN", "ADM1_PCODE", "ADM2_EN", "ADM2_PCODE", "T_TL"])
        for u in place.units():
            sheet.append([u.parent, f"PL0{1 + (u.parent == 'Sud')}", u.name, f"PL{u.id}", u.people])
        out = io.BytesIO()
        book.save(out)
        self.files[path] = out.getvalue()
        self._package("cod-ps-plc", [self._resource("plc_admpop_2020.xlsx", "XLSX", path)])
        return path

    def _resource(self, name: str, kind: str, path: str, **changes: Any) -> dict[str, Any]:
        body = self.files.get(path, b"")
        return {
            "name": name, "format": kind, "description": "", "url": self.url + path,
            "download_url": self.url + path, "url_type": "upload", "size": len(body) or 1,
            "hash": "", "last_modified": "2024-01-18T21:36:29", **changes,
        }  # fmt: skip

    def _package(self, name: str, resources: list[dict[str, Any]]) -> None:
        result = {
            "name": name, "title": name, "license_id": "cc-by-igo",
            "license_title": "Creative Commons Attribution for Intergovernmental Organisations",
            "dataset_date": "[2019-01-01T00:00:00 TO 2020-12-31T23:59:59]",
            "dataset_source": "Statistics Place", "resources": resources,
        }  # fmt: skip
        answer = {"help": "", "success": True, "result": result}
        self.files[f"/hdx/api/3/action/package_show?id={name}"] = json.dumps(answer).encode()

    def us_census(self, people: str = "P1_001N") -> tuple[str, str]:
        """Publish Puerto Rico's counties as the Census Bureau; paths of boundaries and counts."""
        files = "/tiger/GENZ2020/shp/cb_2020_us_county_500k.zip"
        frame = _frame()
        codes = [f"{2 * k + 1:03d}" for k in range(len(frame))]
        state = ["72"] * 10 + ["01"] * 2
        columns = {
            "STATEFP": state, "COUNTYFP": codes, "NAME": frame["name"],
            "GEOID": [s + c for s, c in zip(state, codes, strict=True)],
        }  # fmt: skip
        self.files[files] = shapefile(
            gpd.GeoDataFrame(columns, geometry=frame.geometry).to_crs("EPSG:4269"),
            "cb_2020_us_county_500k",
        )
        asked = "/data/2020/dec/pl?get=NAME,P1_001N&for=county:*&in=state:72"
        rows = [
            [f"{u.name} Municipio, Puerto Rico", str(u.people), "72", code]
            for u, code in zip(place.units()[:10], codes, strict=False)
        ]
        answer = [["NAME", people, "state", "county"], *rows]
        self.files[asked] = json.dumps(answer).encode()
        page = b"<html><head><title>Missing Key</title></head><body>A valid key ...</body></html>"
        self.files["/data/missing_key.html"] = page
        return files, asked

    def worldpop(self, header: Sequence[str] | None = None) -> tuple[str, str]:
        """Publish units and counts as WorldPop's hub; paths of the raster and of the table."""
        grids = "/wp/GIS/Mastergrid/Global_2000_2020/PLC/Subnational"
        raster = f"{grids}/plc_subnational_admin_2000_2020.tif"
        numbers = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((40, 40))).astype(np.int32)
        self.files[raster] = geotiff(numbers * 100)
        years = range(2000, 2021)
        names = header or ["GID", "ISO", *(f"P_{year}" for year in years)]
        rows = [
            [100 * (k + 1), "PLC", *(u.people + year - 2020 for year in years)]
            for k, u in enumerate(place.units())
        ]
        counts = "/wp/GIS/Population/Global_2000_2020/CensusTables/plc_population_2000_2020.csv"
        self.files[counts] = table([names, *rows])
        return raster, counts


def _frame() -> gpd.GeoDataFrame:
    rows = place.units()
    columns = {
        "id": [u.id for u in rows], "name": [u.name for u in rows],
        "parent": [u.parent for u in rows],
    }  # fmt: skip
    frame = gpd.GeoDataFrame(columns, geometry=[u.geometry for u in rows], crs=place.GRID.crs)
    return frame.to_crs("EPSG:4326")


def _pcodes(frame: gpd.GeoDataFrame) -> list[str]:
    return [f"PL{i}" for i in frame["id"]]


def table(rows: Sequence[Sequence[Any]]) -> bytes:
    """A CSV."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def zipped(members: dict[str, bytes]) -> bytes:
    """An archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return out.getvalue()


def shapefile(frame: gpd.GeoDataFrame, stem: str) -> bytes:
    """A zipped shapefile."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        frame.to_file(Path(folder) / f"{stem}.shp", engine="pyogrio", encoding="utf-8")
        return zipped({p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())})


def geotiff(values: np.ndarray) -> bytes:
    """A raster on the place's grid."""
    grid = place.GRID
    options: dict[str, Any] = {
        "width": values.shape[1], "height": values.shape[0], "count": 1, "dtype": values.dtype,
        "crs": grid.crs, "nodata": 8888,
        "transform": Affine(grid.step, 0, grid.west, 0, -grid.step, grid.north),
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", **options) as out:
            out.write(values, 1)
        return bytes(memory.read())


def _handler(services: Services) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            services.seen.append((self.path, dict(self.headers)))
            path = _without_key(self.path)
            waiting = services.faults.get(path) or []
            fault = waiting.pop(0) if waiting else None
            if isinstance(fault, int):
                return self._send(fault, b"")
            if isinstance(fault, tuple):
                return self._send(fault[0], b"", fault[1])
            locked = services.key is not None and path.startswith("/data/2")
            if locked and f"key={services.key}" not in self.path:
                return self._send(302, b"", {"Location": "/data/missing_key.html"})
            body = fault if isinstance(fault, bytes) else services.files.get(path)
            if body is None:
                missing = b"<!DOCTYPE html><html><title>Page not found</title></html>"
                return self._send(404, missing)
            if services.forms.get(path) == "gzip":
                return self._send(200, gzip.compress(body), {"Content-Encoding": "gzip"})
            if services.forms.get(path) == "chunked":
                return self._chunked(body)
            if isinstance(fault, Drip):
                return self._drip(body)
            self._file(body, fault.after if isinstance(fault, Cut) else None)

        def _file(self, body: bytes, cut: int | None) -> None:
            tag = f'"{hashlib.md5(body).hexdigest()}"'
            start, status, headers = 0, 200, {"ETag": tag}
            asked = self.headers.get("Range", "")
            if services.ranges and asked and self.headers.get("If-Range", tag) == tag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self._send(status, body[start:], headers, None if cut is None else cut - start)

        def _chunked(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for k in range(0, len(body), 1000):
                piece = body[k : k + 1000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def _drip(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for k in range(0, len(body), 4):
                try:
                    self.wfile.write(body[k : k + 4])
                    self.wfile.flush()
                except OSError:  # nobody reads any more
                    break
                time.sleep(Drip.pause_s)
            self.close_connection = True

        def _send(
            self,
            status: int,
            body: bytes,
            headers: dict[str, str] | None = None,
            cut: int | None = None,
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if cut is None else body[: max(cut, 0)])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    return Handler


def _without_key(path: str) -> str:
    head, _, query = path.partition("?")
    kept = [part for part in query.split("&") if part and not part.startswith("key=")]
    return f"{head}?{'&'.join(kept)}" if kept else head

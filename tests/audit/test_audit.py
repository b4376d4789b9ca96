"""What an audit says, in each of its forms; what became of a scene, a file or a version."""

from __future__ import annotations

import html
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from importlib import metadata

import pytest
from click.testing import CliRunner

from popcorn_assets.audit.code import judge_code
from popcorn_assets.audit.findings import Verdict
from popcorn_assets.audit.impact import impact
from popcorn_assets.audit.judge import audit
from popcorn_assets.audit.openlineage import as_events
from popcorn_assets.audit.page import page
from popcorn_assets.audit.prov import as_prov
from popcorn_assets.audit.trail import walk
from popcorn_assets.audit.tree import as_dict
from popcorn_assets.cli import cli
from popcorn_assets.store.code import code_state, digest_of_code
from popcorn_assets.store.versions import MANIFEST, Address, Store, sha256
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.platforms import REPOSITORY as ROOT

MAP = Address("hectare_map", "demo", 2021)


@pytest.fixture(scope="module")
def store(tiny) -> Store:
    return Store(tiny.data)


@pytest.fixture(scope="module")
def trail(store):
    return walk(store, [MAP, Address("evaluation", "demo", 2021)])


def run(*arguments: str):
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


# At the terminal ----------------------------------------------------------------------------------


def test_the_tree_goes_from_the_map_to_scenes_census_and_weights(in_tiny):
    done = run("audit", "demo", "2021")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert re.search(r"publication demo\|2021 [0-9a-f]{16}", lines[0])
    for told in (
        "scenes, ",
        "units_coarse.gpkg",
        "demo_extractor.safetensors",
        "checkpoints demo|2020",
    ):
        assert any(told in line for line in lines), told
    assert "warehouse, code and Dagster" in done.output
    assert "changed" not in done.output


def test_a_damaged_map_fails_the_command_and_is_named(in_copy):
    target = Store(in_copy.data).latest(MAP).file("population.tif")
    kept = target.read_bytes()
    target.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        done = run("audit", "demo", "2021", "--asset", "hectare_map")
        as_json = json.loads(run("audit", "demo", "2021", "--format", "json").output)
    finally:
        target.write_bytes(kept)
    assert done.exit_code == 1
    assert any(line.strip("│├└─ ").startswith("changed") and "population.tif" in line
               for line in done.output.splitlines())  # fmt: skip
    assert not as_json["passed"]
    (wrong,) = [v for v in as_json["versions"] if v["verdict"] == "changed"]
    assert wrong["asset"] == "hectare_map"
    assert wrong["findings"][0]["about"] == "population.tif"


def test_what_is_not_there_is_an_error_in_words(in_tiny):
    with pytest.raises(Exception, match="nothing of demo"):
        run("audit", "demo", "2017")
    with pytest.raises(Exception, match="cannot be a folder"):
        run("audit", "../etc", "2021")
    missing = run("audit", "demo", "2021", "--asset", "no_such_asset")
    assert missing.exit_code == 1
    assert "no_such_asset" in missing.output


# Older than its input -----------------------------------------------------------------------------


def test_a_version_whose_input_was_made_again_is_older_than_it(tiny, copied, monkeypatch):
    from tests.platforms import enter

    enter(copied, monkeypatch)
    store = Store(copied.data)
    score = store.latest(Address("builtup_area", "demo", 2021))
    manifest = score.manifest()
    with store.draft(score.address) as draft:
        (draft / "builtup_score.tif").write_bytes(score.file("builtup_score.tif").read_bytes())

        def record(whole, digest):
            Warehouse(store.warehouse).record_publication(whole, digest, {})

        newer = store.publish(score.address, draft, {**manifest, "run_id": "later"}, record)
    report = audit(store, "demo", 2021, repository=None)
    older = {node.address.asset: finding for node, finding in report.findings()
             if node and finding.verdict is Verdict.OLDER}  # fmt: skip
    assert set(older) == {"population_map", "publication"}  # which shows the score as well
    assert newer.version in older["population_map"].message
    assert report.passed()
    assert not report.passed(strict=True)


def test_a_receipt_of_the_inbox_that_was_altered_shows(copied):
    store = Store(copied.data)
    warehouse = Warehouse(store.warehouse)
    for file in ("a.csv", "b.csv"):
        warehouse.register_received("demo", file, "0" * 64, 5, ["coarse"], [2020])

    def told() -> list[str]:
        report = audit(store, "demo", 2020, repository=None)
        return [finding.about for _, finding in report.findings() if finding.verdict.wrong]

    assert told() == []
    for statement in (
        "UPDATE received SET levels = 'fine' WHERE file = 'a.csv'",
        "DELETE FROM received WHERE file = 'a.csv'",
    ):
        with warehouse._writing() as connection:
            connection.execute(statement)
        assert "warehouse table received" in told()


# Code ---------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    science = tmp_path / "popcorn_ml"
    (science / "imagery" / "deep").mkdir(parents=True)
    for name in ("grid.py", "imagery/__init__.py", "imagery/deep/a.py", "imagery/notes.txt"):
        (science / name).write_text(f"# {name}\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x.x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return tmp_path, head.stdout.strip()


def test_code_is_looked_up_in_the_repository(repository):
    root, commit = repository
    names = ["grid.py", "imagery/__init__.py", "imagery/deep/a.py"]
    science = root / "popcorn_ml"
    digest = digest_of_code(["imagery"], names, lambda name: (science / name).read_bytes())
    code = {"version": digest, "parts": ["imagery"], "commit": commit, "modified": False}
    assert judge_code(code, root) == []
    doubts = {
        "differed from commit": {"modified": True},
        "is not in": {"commit": "0" * 40},
        "has digest": {"version": "0" * 12},
        "no commit is recorded": {"commit": None},
    }
    for told, change in doubts.items():
        (finding,) = judge_code({**code, **change}, root)
        assert finding.verdict is Verdict.FOREIGN_CODE
        assert told in finding.message
    (finding,) = judge_code(code, None)
    assert "no repository" in finding.message
    (root / "popcorn_ml" / "grid.py").write_text("# another\n")
    assert judge_code(code, root) == [], "the commit counts, not what lies there now"


# Other forms --------------------------------------------------------------------------------------


def test_prov_names_everything_it_relates(trail):
    document = json.loads(json.dumps(as_prov(trail), allow_nan=False))
    assert {"prefix", "entity", "activity", "agent"} <= set(document)
    known = {kind: set(document[kind]) for kind in ("entity", "activity", "agent")}
    ends = {
        "used": {"prov:activity": "activity", "prov:entity": "entity"},
        "wasGeneratedBy": {"prov:entity": "entity", "prov:activity": "activity"},
        "wasDerivedFrom": {"prov:generatedEntity": "entity", "prov:usedEntity": "entity",
                           "prov:activity": "activity"},
        "wasAssociatedWith": {"prov:activity": "activity", "prov:agent": "agent"},
    }  # fmt: skip
    assert set(document) == {"prefix", *known, *ends}
    for kind, parts in ends.items():
        for name, relation in document[kind].items():
            assert name.startswith("_:")
            for part, target in parts.items():
                assert relation[part] in known[target], (kind, part)
    for name in set.union(*known.values()):
        assert re.fullmatch(r"popcorn:[A-Za-z0-9_./%-]+", name)
    for activity in document["activity"].values():
        start, end = (datetime.fromisoformat(activity[f"prov:{k}Time"]) for k in ("start", "end"))
        assert start <= end
    versions = [e for e in document["entity"].values() if "popcorn:version" in e]
    assert len(versions) == len(trail.nodes)
    # From the map to a scene, by derivation alone.
    came_from: dict[str, set[str]] = {}
    for relation in document["wasDerivedFrom"].values():
        parents = came_from.setdefault(relation["prov:generatedEntity"], set())
        parents.add(relation["prov:usedEntity"])
    (top,) = [n for n, e in document["entity"].items() if e.get("popcorn:asset") == "hectare_map"]
    reached, todo = set(), [top]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += came_from.get(name, ())
    kinds = {document["entity"][name]["prov:type"]["$"] for name in reached}
    assert kinds == {"popcorn:Version", "popcorn:File", "popcorn:Scene"}


def test_openlineage_events_hold_to_the_specification(trail):
    events = json.loads(json.dumps(as_events(trail), allow_nan=False))
    assert len(events) == 2 * len(trail.nodes)
    by_run: dict[str, list[dict]] = {}
    for event in events:
        assert {"eventType", "eventTime", "producer", "schemaURL", "run", "job"} <= set(event)
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
        assert str(uuid.UUID(event["run"]["runId"])) == event["run"]["runId"]
        assert event["job"]["namespace"]
        assert event["job"]["name"]
        datasets = [*event["inputs"], *event["outputs"]]
        for dataset in datasets:
            assert dataset["namespace"]
            assert dataset["name"]
        for thing in (event["run"], event["job"], *datasets):
            for facet in thing["facets"].values():
                assert re.match(r"(https|urn):", facet["_schemaURL"])
                assert facet["_producer"].startswith("urn:")
        by_run.setdefault(event["run"]["runId"], []).append(event)
    for start, complete in by_run.values():
        assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
        assert start["eventTime"] <= complete["eventTime"]
        assert len(complete["outputs"]) == 1
    made = {(e["outputs"][0]["name"], e["outputs"][0]["facets"]["version"]["datasetVersion"])
            for e in events if e["eventType"] == "COMPLETE"}  # fmt: skip
    read = {(d["name"], d["facets"]["version"]["datasetVersion"])
            for e in events for d in e["inputs"] if d["namespace"] == "popcorn"}  # fmt: skip
    assert read < made


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.asked, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.asked += [value for name, value in attrs if name in ("src", "href")]
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_else_and_shows_all_there_is(store):
    report = audit(store, "demo", 2021)
    text = page(report)
    links = _Links()
    links.feed(text)
    assert links.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links.asked)
    anchors = set(re.findall(r'id="([^"]+)"', text))
    assert {link[1:] for link in links.asked if link.startswith("#")} <= anchors
    assert "url(" not in text
    for node in report.trail.nodes.values():
        assert node.manifest_sha256 in links.text
        for entry in node.manifest["files"].values():
            assert entry["sha256"] in links.text
    assert "Nothing is changed, missing or unrecorded." in links.text


def test_what_a_manifest_says_cannot_write_into_the_page(store):
    report = audit(store, "demo", 2021, asset="hectare_map")
    node = next(iter(report.trail.nodes.values()))
    node.manifest["shown"].append(["<script>alert(1)</script>", "<img src=x onerror=y>"])
    assert "<script>" not in page(report)
    assert "<img src=x" not in page(report)


# Impact -------------------------------------------------------------------------------------------


def test_a_scene_is_followed_to_the_maps_made_with_it(store):
    summer = store.latest(Address("s2_summer", "demo", 2021)).manifest()
    scene = summer["facts"]["scenes"][0]["id"]
    uses = impact(store, scene)
    assert {use.first for use in uses} == {"s2_summer"}
    assert {(use.asset, use.year) for use in uses} >= {
        ("s2_summer", 2021), ("s2_composites", 2021), ("builtup_area", 2021),
        ("population_map", 2021), ("hectare_map", 2021), ("evaluation", 2021),
    }  # fmt: skip
    assert {use.year for use in uses} == {2021}, "the model of 2020 did not see it"


def test_a_census_file_is_followed_by_name_path_and_contents(store):
    counts = store.latest(Address("census_counts", "demo", 2021)).manifest()
    source = counts["sources"][0]
    by_path = {(u.asset, u.year, u.version) for u in impact(store, source["path"])}
    assert ("hectare_map", 2021, store.latest(MAP).version) in by_path
    assert ("checkpoints", 2020) in {(asset, year) for asset, year, _ in by_path}
    for other in (
        str(store.root / source["path"]),
        source["sha256"],
        source["path"].split("/")[-1],
    ):
        assert {(u.asset, u.year, u.version) for u in impact(store, other)} == by_path, other


def test_checkpoints_are_followed_to_both_years(store, in_tiny):
    version = store.latest(Address("checkpoints", "demo", 2020)).version
    uses = impact(store, version)
    assert {(u.asset, u.year) for u in uses if u.asset.endswith("_map")} == {
        (asset, year)
        for asset in ("population_map", "adjusted_map", "hectare_map")
        for year in (2020, 2021)
    }
    weights = store.latest(Address("checkpoints", "demo", 2020)).path / "member_1"
    files = sorted(weights.rglob("*.safetensors")) or sorted(weights.parent.rglob("*.safetensors"))
    assert set(map(_what, impact(store, sha256(files[0])))) == set(map(_what, uses))
    done = run("impact", version)
    assert done.exit_code == 0
    assert f"hectare_map demo|2021 {store.latest(MAP).version} current" in done.output
    assert run("impact", "no such thing").exit_code == 1


def _what(use):
    return use.asset, use.country, use.year, use.version


def test_the_warehouse_answers_the_same_in_sql(store):
    rows = Warehouse(store.warehouse).query(
        "SELECT asset, version FROM descent WHERE origin_asset = 'builtup_extractor' "
        "AND asset = 'hectare_map' AND year = 2021 AND current"
    )
    assert rows == [("hectare_map", store.latest(MAP).version)]


def test_versions_in_the_warehouse_are_those_of_the_store(store):
    rows = Warehouse(store.warehouse).query(
        "SELECT asset, country, year, version, manifest_sha256 FROM current_versions"
    )
    assert len(rows) > 35
    for asset, country, year, version, digest in rows:
        found = store.latest(Address(asset, country, year) if country else Address(asset))
        assert found.version == version
        assert sha256(found.path / MANIFEST) == digest


# What a report says of itself ---------------------------------------------------------------------


def test_a_report_says_when_where_and_by_what_it_was_made(in_tiny, tmp_path):
    out = tmp_path / "audit.json"
    assert run("audit", "demo", "2021", "--format", "json", "--out", str(out)).exit_code == 0
    found = json.loads(out.read_text("utf-8"))
    about = found["about"]
    assert datetime.now(UTC) - datetime.fromisoformat(about["when"]) < timedelta(minutes=5)
    assert about["host"] == platform.node()
    assert about["version"] == metadata.version("popcorn-assets")
    assert about["commit"] == code_state()["commit"]
    assert about["store"] == str(in_tiny.data)
    (scenes, *_) = [one for one in found["licences"] if one["of"].startswith("scenes")]
    assert "Copernicus" in scenes["licence"]
    assert "2021" in scenes["licence"]
    (weights,) = [one for one in found["licences"] if one["of"].startswith("builtup_extractor")]
    assert weights["licence"]


def test_a_report_has_the_command_that_made_it(in_tiny, tmp_path):
    out = tmp_path / "audit.html"
    command = ["audit", "demo", "2021", "--format", "html", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "popcorn_assets.cli", *command],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = html.unescape(out.read_text("utf-8"))
    assert shlex.join(command) in text
    for told in (platform.node(), code_state()["commit"], f"{datetime.now(UTC):%Y-%m-%d}"):
        assert told in text, told


def test_a_file_from_outside_is_named_once(store):
    report = audit(store, "demo", 2021, repository=None)
    text = page(report)
    plain = as_dict(report)
    whole = json.dumps(plain)
    paths = {one.path for node in report.trail.nodes.values() for one in node.outside}
    assert len(paths) > 10
    for path in paths:
        assert text.count(f">{html.escape(path)}<") == 1, path
        assert whole.count(f'"{path}"') == 1, path
    spring = next(one for one in plain["versions"] if one["asset"] == "s1_spring")
    assert "demo/items.json" in {plain["sources"][number]["path"] for number in spring["sources"]}
    census = [one for one in plain["sources"] if one["path"].startswith("demo/census")]
    assert {one["licence"] for one in census} == {"not stated"}

"""Sensors: failed runs and a webhook that may do anything, country files, stale maps."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
import time
from contextlib import contextmanager

import dagster as dg
import pytest
import yaml

from popcorn_assets.automation import country_files, failures, stale
from popcorn_assets.automation.schedules import COUNTRY_TAG, WORK_TAG, YEAR_TAG
from popcorn_assets.country import load_country
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.newer import newer_inputs
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import ConfigError
from tests.platforms import REPOSITORY, publish_model

SECRET = "T0K3N-that-nobody-may-see"


@contextmanager
def server(behaviour):
    """A web server on this machine; `behaviour` gets the handler of each request."""
    received: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append({"path": self.path, "body": json.loads(body)})
            behaviour(self)

        def log_message(self, *arguments):
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}", received
        finally:
            running.shutdown()


def answer(status: int, text: str = "", **headers):
    def behaviour(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text.encode())

    return behaviour


def hang(handler):
    time.sleep(30)


def drip(handler):
    """A header, byte by byte: no single wait is long, the whole never ends."""
    for _ in range(300):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


@dg.op
def fails_badly():
    raise ValueError("the scene is a potato")


@dg.job
def failing():
    fails_badly()


@pytest.fixture
def failed(place):
    """A run that failed, in an instance of its own, and the sensor's context for it."""
    with place.instance() as instance:
        result = failing.execute_in_process(
            instance=instance,
            raise_on_error=False,
            tags={"dagster/partition": "rwa|2024", WORK_TAG: "refresh|rwa|2024"},
        )
        context = dg.build_run_status_sensor_context(
            sensor_name="run_failures",
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=result.dagster_run,
        ).for_run_failure()
        yield result.run_id, context


def records(place) -> list[dict]:
    return [json.loads(line) for line in (place.data / "failures.jsonl").read_text().splitlines()]


def test_a_failed_run_is_recorded_and_posted(place, failed, monkeypatch):
    run_id, context = failed
    with server(answer(200)) as (address, received):
        monkeypatch.setenv("POPCORN_WEBHOOK", f"{address}/{SECRET}")
        failures.run_failures(context)
    (record,) = records(place)
    assert record["run"] == run_id
    assert (record["job"], record["partition"]) == ("failing", "rwa|2024")
    assert record["work"] == "refresh|rwa|2024"
    assert "potato" in record["errors"]["fails_badly"]
    (post,) = received
    assert post["path"] == f"/{SECRET}"
    assert post["body"] == record
    assert "failing rwa|2024 failed in fails_badly" in post["body"]["text"]
    assert "potato" in post["body"]["text"]


def test_what_is_recorded_and_posted_of_an_error_holds_no_secret(place, monkeypatch):
    monkeypatch.setenv("POPCORN_WEBHOOK", f"https://chat.example.org/{SECRET}")
    monkeypatch.setenv("POPCORN_PLANETARY_COMPUTER_KEY", "0123456789abcdef0123456789abcdef")
    run = dg.DagsterRun(job_name="ingest", run_id="r")
    told = (
        "GET https://store.example.org/B02.tif?sig=SIGNATURE failed with key "
        f"0123456789abcdef0123456789abcdef; then https://chat.example.org/{SECRET}"
    )
    said = json.dumps(failures.describe(run, [("s2_winter", told)], told))
    assert "https://store.example.org/B02.tif" in said
    for secret in ("SIGNATURE", "0123456789abcdef", SECRET):
        assert secret not in said
    assert SECRET not in json.dumps(failures.describe(run, [], told))


def test_without_a_webhook_failures_are_recorded_one_line_each(place, failed, monkeypatch):
    monkeypatch.delenv("POPCORN_WEBHOOK", raising=False)
    for _ in range(2):
        failures.run_failures(failed[1])
    assert len(records(place)) == 2


def test_a_file_that_cannot_be_written_does_not_keep_the_webhook_from_being_told(
    place, failed, monkeypatch
):
    (place.data / "failures.jsonl").mkdir()
    with server(answer(200)) as (address, received):
        monkeypatch.setenv("POPCORN_WEBHOOK", address)
        failures.run_failures(failed[1])
    assert len(received) == 1


def test_a_webhook_that_fails_fails_nothing_and_its_address_is_told_to_nobody(
    place, failed, monkeypatch, capfd, caplog
):
    monkeypatch.setenv("POPCORN_WEBHOOK", f"http://127.0.0.1:9/{SECRET}")
    failures.run_failures(failed[1])
    assert len(records(place)) == 1
    out, err = capfd.readouterr()
    told = out + err + caplog.text + (place.data / "failures.jsonl").read_text()
    assert SECRET not in told
    assert "could not be reached (ConnectionError)" in told


@pytest.mark.parametrize(
    ("behaviour", "attempts", "said"),
    [
        (answer(204), 1, None),
        (answer(500), 2, "it answered 500"),
        (answer(429), 2, "it answered 429"),
        (answer(404), 1, "it answered 404"),
        (answer(302, location="http://127.0.0.1:9/"), 1, "it answered 302"),
        (hang, 2, "it did not answer in time"),
        (drip, 2, "it did not answer in time"),
    ],
)
def test_a_webhook_is_tried_a_bounded_number_of_times_in_a_bounded_time(behaviour, attempts, said):
    with server(behaviour) as (address, received):
        begun = time.monotonic()
        assert failures.post(f"{address}/{SECRET}", {"text": "x"}, seconds=1.0) == said
        assert time.monotonic() - begun < 2 * 1.0 + failures.PAUSE_SECONDS + 1
    assert len(received) == attempts


@pytest.mark.parametrize("address", ["ftp://example.org/x", "file:///etc/passwd", "nonsense"])
def test_only_web_addresses_are_posted_to(address):
    assert "http" in failures.post(address, {})


def test_an_address_that_is_none_is_an_answer_too():
    assert "could not be reached" in failures.post("http://[", {})


def test_all_attempts_of_a_ticks_failures_fit_into_the_time_that_dagster_gives_a_tick():
    once = failures.ATTEMPTS * failures.ATTEMPT_SECONDS + failures.PAUSE_SECONDS
    assert 5 * once < 45  # five runs a tick, of the minute that it has


# Country files


def write_country(place, code: str, **sections):
    packaged = REPOSITORY / "popcorn_assets" / "countries" / "demo.yaml"
    country = {**yaml.safe_load(packaged.read_text("utf-8")), **sections}
    path = place.home / "countries" / f"{code}.yaml"
    path.write_text(yaml.safe_dump(country, sort_keys=False), "utf-8")
    return path


@pytest.fixture
def loaded(place, monkeypatch):
    """The sensor as in a location that has just loaded."""
    write_country(place, "abc")
    monkeypatch.setattr(country_files, "AS_LOADED", country_files.fixed_at_load())
    monkeypatch.setenv("POPCORN_WEBSERVER", "http://127.0.0.1:9")
    return place


class Ticks:
    """A sensor's ticks, each with the cursor that the one before left."""

    def __init__(self, sensor) -> None:
        self.sensor, self.cursor = sensor, None

    def __call__(self):
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance=instance, cursor=self.cursor) as context,
        ):
            found = self.sensor(context)
        self.cursor = found.cursor
        return found.skip_reason.skip_message


def test_a_changed_file_is_told_of_once_and_needs_no_reload(loaded):
    tick = Ticks(country_files.country_files_sensor)
    assert tick() == "no country file has changed"
    write_country(loaded, "abc", name="Renamed")
    assert tick() == "abc has changed"
    assert tick() == "no country file has changed"


def test_a_new_country_is_loaded_by_the_web_server(loaded, monkeypatch):
    tick = Ticks(country_files.country_files_sensor)
    tick()
    write_country(loaded, "abd")
    entry = {"data": {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry"}}}
    with server(answer(200, json.dumps(entry))) as (address, received):
        monkeypatch.setenv("POPCORN_WEBSERVER", address)
        assert tick() == "abd is new; abd: reload asked for"
    (asked,) = received
    assert asked["path"] == "/graphql"
    assert "reloadRepositoryLocation" in asked["body"]["query"]
    assert asked["body"]["variables"] == {"location": "popcorn"}
    monkeypatch.setattr(country_files, "AS_LOADED", country_files.fixed_at_load())  # it did
    assert tick() == "no country file has changed"


def test_a_switched_schedule_is_reloaded_for_and_a_reload_is_asked_for_a_few_times(loaded):
    tick = Ticks(country_files.country_files_sensor)
    tick()
    write_country(loaded, "abc", automation={"refresh": True})
    said = [tick() for _ in range(6)]
    assert ["no web server could be asked" in text for text in said] == [True] * 3 + [False] * 3
    assert "press Deployment > Reload" in said[-1]
    write_country(loaded, "abc", automation={"refresh": True, "ingest": True})
    assert "no web server could be asked" in tick()  # another change, another attempt


def test_a_broken_file_is_told_with_its_line_and_takes_no_country_away(loaded, capfd):
    tick = Ticks(country_files.country_files_sensor)
    tick()
    write_country(loaded, "abd")
    path = write_country(loaded, "abc", automation={"refresh": "perhaps"})
    with server(answer(200, "{}")) as (address, received), pytest.MonkeyPatch.context() as patch:
        patch.setenv("POPCORN_WEBSERVER", address)
        said = tick()
    assert "abc is broken" in said
    assert "abd is new" in said  # the others go on
    line = path.read_text().splitlines().index("  refresh: perhaps") + 1
    told = "".join(capfd.readouterr())
    assert f"{path}:{line}: automation.refresh: allowed: true, false; found: 'perhaps'" in told
    assert len(received) == 1
    (loaded.home / "countries" / "abd.yaml").unlink()
    assert "reload" not in tick().replace("until the location is reloaded", "")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"automation": {"refesh": True}}, "unknown key; allowed here: ingest, refresh, stale"),
        ({"automation": {"ingest": 1}}, "allowed: true, false; found: 1"),
        ({"automation": {"stale": "remake"}}, "allowed: 'report' or 'refresh'; found: 'remake'"),
        ({"model": {"year": "last"}}, "valid integer"),
        ({"model": {"years": 2020}}, "unknown key; allowed here: country,"),
        ({"extractor": "mine"}, "allowed: 'published' or 'demo'; found: 'mine'"),
        ({"grid": {"preset": "atlantis"}}, "allowed: rwa, che, pricp2, uga"),
        ({"training": {"members": "many"}}, "found: 'many'"),
        ({"imagery": {"source": "carrier pigeon"}}, "stac"),
    ],
)
def test_wrong_values_are_refused_with_what_is_allowed(place, sections, said):
    path = write_country(place, "abc", **sections)
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    text = str(caught.value)
    assert f"{path}:" in text
    assert said in text
    assert load_country("demo").name


# Stale maps


def publish(store: Store, asset: str, *inputs, year=2020, text="x", files=None):
    """A version of an asset of the country abc, made from others."""
    address = Address(asset, "abc", year)
    with store.draft(address) as draft:
        (draft / "file.txt").write_text(text)
        (draft / "other.txt").write_text("always the same")
        noted = []
        for made in inputs:
            entry = {
                "asset": made.address.asset,
                "country": made.address.country,
                "year": made.address.year,
                "version": made.version,
            }
            if files:
                digests = made.manifest()["files"]
                entry["files"] = {name: digests[name]["sha256"] for name in files}
            noted.append(entry)
        return store.publish(address, draft, {"inputs": noted, "checks": []})


@pytest.fixture
def chain(place):
    """A store with a small chain: scenes, composite, map, published map; and checkpoints."""
    write_country(place, "abc", model={"country": "abc", "year": 2020})
    return Store(place.data)


def make_chain(store: Store, **texts) -> None:
    season = publish(store, "s1_winter", text=texts.get("s1_winter", "scenes"))
    composite = publish(store, "s1_composites", season, text=texts.get("s1_composites", "c"))
    weights = publish(store, "checkpoints", text="weights")
    mapped = publish(store, "population_map", composite, weights)
    publish(store, "hectare_map", mapped, text=texts.get("hectare_map", "h"))


def newer(store):
    return newer_inputs(store, store.latest(Address("hectare_map", "abc", 2020)))


def test_a_newer_input_is_found_near_and_far_and_newer_checkpoints_are_none(chain):
    make_chain(chain)
    assert newer(chain) == []
    publish(chain, "checkpoints", text="trained again")
    assert newer(chain) == []
    publish(chain, "s1_winter", text="another scene")
    (found,) = newer(chain)
    assert "s1_winter abc|2020 is now" in found
    make_chain(chain, s1_winter="another scene", s1_composites="c2", hectare_map="h2")
    assert newer(chain) == []


def test_a_newer_version_with_the_same_files_that_matter_is_none(chain):
    units = publish(chain, "census_units", text="a")
    publish(chain, "hectare_map", units, files=["other.txt"])
    publish(chain, "census_units", text="b")
    assert newer(chain) == []
    publish(chain, "hectare_map", units, files=["file.txt"], text="h2")
    assert len(newer(chain)) == 1


def look(place, instance, run_status=None):
    """A tick of the sensor; requests become runs that end with this status."""
    context = dg.build_sensor_context(
        instance=instance, resources={"store": StoreResource(root=str(place.data))}
    )
    found = stale.stale_maps(context)
    for request in found.run_requests or []:
        instance.add_run(
            dg.DagsterRun(
                job_name="refresh",
                run_id=dg._core.utils.make_new_run_id(),
                tags={**request.tags, "dagster/partition": str(request.partition_key)},
                status=run_status,
            )
        )
    return found


def test_a_stale_map_is_reported_and_refreshed_only_where_the_file_says_so(chain, place):
    make_chain(chain)
    with dg.DagsterInstance.ephemeral() as instance:
        assert look(place, instance).skip_reason.skip_message == "every published map is current"
        publish(chain, "s1_winter", text="another scene")
        found = look(place, instance)
        assert not found.run_requests
        assert "abc|2020: s1_winter abc|2020 is now" in found.skip_reason.skip_message


def test_a_refresh_that_fails_or_never_settles_is_requested_a_few_times_at_most(
    chain, place, capsys
):
    make_chain(chain)
    publish_model(chain, "abc", 2020)
    write_country(
        place, "abc", model={"country": "abc", "year": 2020}, automation={"stale": "refresh"}
    )
    requested = []
    with dg.DagsterInstance.ephemeral() as instance:
        for hour in range(48):  # every hour another scene comes in, and every refresh fails
            publish(chain, "s1_winter", text=f"scene {hour}")
            found = look(place, instance, dg.DagsterRunStatus.FAILURE)
            requested += found.run_requests or []
        with capsys.disabled():
            print(f"\n48 ticks over a map that never settles: {len(requested)} refreshes requested")
        assert len(requested) == stale.MAX_REFRESHES == 3
        assert len({request.run_key for request in requested}) == 3
        for request in requested:
            assert request.tags["popcorn/reuse"] == "true"
            assert (request.tags[COUNTRY_TAG], request.tags[YEAR_TAG]) == ("abc", "2020")


def test_the_same_newer_inputs_are_one_piece_of_work_and_a_run_at_work_is_waited_for(chain, place):
    make_chain(chain)
    publish_model(chain, "abc", 2020)
    write_country(
        place, "abc", model={"country": "abc", "year": 2020}, automation={"stale": "refresh"}
    )
    publish(chain, "s1_winter", text="another scene")
    with dg.DagsterInstance.ephemeral() as instance:
        keys = {look(place, instance, None).run_requests[0].run_key for _ in range(1)}
        assert not look(place, instance).run_requests  # its run has not ended
    with dg.DagsterInstance.ephemeral() as other:
        (request,) = look(place, other, dg.DagsterRunStatus.FAILURE).run_requests
        (again,) = look(place, other, dg.DagsterRunStatus.FAILURE).run_requests
        # Dagster starts a sensor's run key once, so that the second is no second run.
        assert {request.run_key, again.run_key} == keys


def test_a_year_that_closed_without_a_map_is_told_of_where_the_refresh_is_on(chain, place):
    from datetime import UTC, datetime

    write_country(place, "abc", automation={"refresh": True})
    publish(chain, "hectare_map", year=2024)
    country = load_country("abc")
    assert stale.findings(chain, country, datetime(2026, 3, 20, tzinfo=UTC)) == {}
    found = stale.findings(chain, country, datetime(2026, 4, 1, tzinfo=UTC))
    assert found == {2025: ["this year has closed and has no map yet"]}
    publish(chain, "hectare_map", year=2025)
    assert stale.findings(chain, country, datetime(2026, 4, 1, tzinfo=UTC)) == {}

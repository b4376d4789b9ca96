"""No credential is ever written down: real runs, good and bad ones, then everything is searched.

Every credential that the platform knows is set to something recognisable. Two sources of imagery
are asked by real clients over local servers, once with success and once without, with every library
logging all it can; the doctor and the estimate ask as well; the failure is reported to a webhook.
Then all that lies under the home (Dagster's tables, compute logs, store, scratch) and all that was
printed is searched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import dagster as dg
import pytest
import yaml

from popcorn_assets.country import PACKAGED
from popcorn_assets.resources import ImageryResource
from popcorn_assets.runs.in_process import run_here
from popcorn_ml.errors import ConfigError, ImageryError, StoreError
from popcorn_ml.imagery.secrets import HIDDEN, Secrets, guarded, scrub
from popcorn_ml.simulate.country import write_country
from popcorn_ml.simulate.spec import CountrySpec
from tests.imagery.ee_server import ACCESS_TOKEN, Archive, EarthEngineServer
from tests.imagery.web_server import WebServer
from tests.platforms import make_place

pytestmark = pytest.mark.long(40)

YEAR = 2020
SPEC = CountrySpec(width=100, height=100, coarse_units=4, fine_units_each=2, seed=5)
PROJECT = "canary-project-7431"
SUBSCRIPTION = "canary-subscription-key-0123456789"
WEBHOOK = "http://127.0.0.1:9/services/canary-webhook-path"
PASSWORD = "canary-database-password"

RUNS = """
import json, logging, os, pathlib, sys
logging.basicConfig(level=logging.DEBUG)
import ee.deprecation
ee.deprecation._FetchDataCatalogStac = dict  # a list of deprecated data, on the internet
import dagster as dg
from click.testing import CliRunner
from popcorn_assets.automation.failures import run_failures
from popcorn_assets.cli import cli
from popcorn_assets.definitions import defs
from popcorn_assets.partitions import partition_key
from popcorn_assets.runs import retry

retry.PROVIDER_SECONDS = 0  # what refuses is asked as often as ever, but at once
instance = dg.DagsterInstance.get()
job = defs.resolve_implicit_global_asset_job_def()
told = {}
for mood in ("good", "bad"):
    if mood == "bad":
        pathlib.Path(os.environ["REFUSE"]).touch()
    for country in ("web", "eng"):
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("s1_spring")],
            partition_key=partition_key(country, 2020),
            raise_on_error=False,
        )
        told[f"{mood} {country}"] = result.success
        for command in (["doctor", country, "--connect"],
                        ["imagery", "estimate", country, "2020", "--ask"]):
            done = CliRunner().invoke(cli, command)
            print(done.output, done.exception)
        if not result.success:
            context = dg.build_run_status_sensor_context(
                sensor_name="run_failures",
                dagster_instance=instance,
                dagster_run=result.dagster_run,
                dagster_event=result.get_run_failure_event(),
            ).for_run_failure()
            run_failures(context)
print("TOLD", json.dumps(told))
"""


def country(home: Path, code: str, imagery: dict) -> None:
    data = yaml.safe_load((PACKAGED / "demo.yaml").read_text("utf-8"))
    data["grid"]["bounds"] = list(SPEC.grid.bounds)
    data["imagery"] = {"tile_px": 64, **imagery}
    (home / "countries" / f"{code}.yaml").write_text(yaml.safe_dump(data), "utf-8")


def written(home: Path) -> dict[str, bytes]:
    return {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file()}


@pytest.mark.timeout(600)
def test_no_canary_is_written_down(tmp_path):
    made = write_country(tmp_path / "scenes", SPEC, [YEAR])
    place, refuse = make_place(tmp_path / "home"), tmp_path / "refuse"
    web = WebServer(made.items)
    service = EarthEngineServer(Archive(made.items), project=PROJECT)
    key = service.key_file(tmp_path / "key.json")
    private = json.loads(key.read_text())
    private["client_email"] = "canary-account@canary.iam.gserviceaccount.com"
    key.write_text(json.dumps(private))
    web.signed = True
    web.fault = lambda path, number: 500 if refuse.exists() else None
    said = (
        f"Caller may not use project {PROJECT} as {private['client_email']}; see https://h/x?sig=1"
    )
    service.fault = lambda path, number: (
        (403, said) if refuse.exists() and "compute" in path else None
    )
    country(
        place.home,
        "web",
        {
            "source": "stac",
            "stac": {
                "profile": "planetary-computer", "url": web.api, "sign_url": web.sas,
                "retries": 1, "first_wait_s": 0.01,
            },
        },
    )  # fmt: skip
    earthengine = {"url": service.url, "retries": 1, "first_wait_s": 0.01}
    country(place.home, "eng", {"source": "earthengine", "earthengine": earthengine})
    environment = {
        **os.environ,
        **place.environment(),
        "REFUSE": str(refuse),
        "POPCORN_EARTHENGINE_PROJECT": PROJECT,
        "POPCORN_EARTHENGINE_KEY_FILE": str(key),
        "POPCORN_PLANETARY_COMPUTER_KEY": SUBSCRIPTION,
        "POPCORN_WEBHOOK": WEBHOOK,
        "GOOGLE_CLOUD_PROJECT": PROJECT,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(RUNS)],
            cwd=place.home, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        web.close()
        service.close()
    assert "TOLD" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.partition("TOLD ")[2].splitlines()[0])
    assert told == {"good web": True, "good eng": True, "bad web": False, "bad eng": False}
    assert web.tokens
    assert service.tokens_given
    canaries = {
        "project": PROJECT,
        "subscription key": SUBSCRIPTION,
        "signature": "canary-signature",
        "webhook": "canary-webhook-path",
        "access token": ACCESS_TOKEN,
        "private key": private["private_key"].splitlines()[3],
        "key id": private["private_key_id"],
        "account": private["client_email"],
    }
    texts = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode(), **written(place.home)}
    assert any("history" in name for name in texts)  # Dagster's event log is among them
    assert any(b"could not be read" in text for text in texts.values())  # and the failures
    found = [
        (name, what, text[max(text.find(canary.encode()) - 80, 0) :][:200])
        for name, text in texts.items()
        for what, canary in canaries.items()
        if canary.encode() in text
    ]
    assert found == []


@pytest.mark.timeout(300)
def test_a_database_that_refuses_does_not_show_its_password(tmp_path):
    place = make_place(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-m", "popcorn_assets.cli", "doctor"],
        cwd=place.home,
        env={
            **os.environ,
            **place.environment(),
            "POPCORN_POSTGRES_URL": f"postgresql://operator:{PASSWORD}@127.0.0.1:9/popcorn",
        },
        capture_output=True,
        check=False,
    )
    for name, text in {"out": done.stdout, "err": done.stderr, **written(place.home)}.items():
        assert PASSWORD.encode() not in text, name


@pytest.mark.parametrize(
    "where",
    [
        {"resources": {"imagery": {"config": {"planetary_computer_key": SUBSCRIPTION}}}},
        {"resources": {"imagery": {"config": {"earthengine_key_file": f"/keys/{SUBSCRIPTION}"}}}},
        {"resources": {"imagery": {"config": {"secrets": {"key": SUBSCRIPTION}}}}},
        {"ops": {"s2_spring": {"config": {"planetary_computer_key": SUBSCRIPTION}}}},
    ],
)
def test_a_credential_in_a_runs_configuration_is_refused_and_kept_nowhere(place, where):
    """A run's configuration lies in clear text in its storage, and the launchpad shows it."""
    from popcorn_assets.definitions import defs

    job = defs.resolve_job_def("ingest")
    fields = job.run_config_schema.config_type.fields["resources"].config_type.fields
    asked = fields["imagery"].config_type.fields["config"].config_type.fields
    assert set(asked) == {"source"}
    with dg.DagsterInstance.get() as instance:
        with pytest.raises(dg.DagsterInvalidConfigError):
            run_here(
                instance, job, run_id=str(uuid.uuid4()), partition="demo|2020", run_config=where
            )
        assert instance.get_runs_count() == 0
    assert [n for n, text in written(place.home).items() if SUBSCRIPTION.encode() in text] == []


def test_the_sources_get_what_the_environment_holds(monkeypatch):
    monkeypatch.setenv("POPCORN_PLANETARY_COMPUTER_KEY", SUBSCRIPTION)
    monkeypatch.setenv("POPCORN_EARTHENGINE_PROJECT", "")
    found = ImageryResource().secrets()
    assert (found.planetary_computer_key, found.earthengine_project) == (SUBSCRIPTION, None)


# The parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see https://h/a.tif?sig=x&y=1 and http://h/b", "see https://h/a.tif and http://h/b"),
        ("postgresql://u:p@h:5432/d", "postgresql://h:5432/d"),
        ("https://user:secret@h/a?b=c", "https://h/a"),
        (
            '"GET /blob/a.tif?sig=abc%2B HTTP/1.1" 403',
            f'"GET /blob/a.tif?sig={HIDDEN} HTTP/1.1" 403',
        ),
        ("a?token=abc&key=d", f"a?token={HIDDEN}&key={HIDDEN}"),
        ("mail a@b.org about 3?4", "mail a@b.org about 3?4"),
    ],
)
def test_links_lose_what_lets_in(text, clean):
    assert scrub(text) == clean


def test_values_are_taken_out_where_they_stand_alone(tmp_path):
    """A project may be called like the platform itself."""
    secrets = Secrets(earthengine_project="popcorn", planetary_computer_key="0123456789" * 4)
    assert (
        secrets.scrub("/x/popcorn_ml/a.py: popcorn-assets") == "/x/popcorn_ml/a.py: popcorn-assets"
    )
    assert secrets.scrub("projects/popcorn/x") == f"projects/{HIDDEN}/x"
    assert secrets.scrub("key" + "0123456789" * 4 + "key") == f"key{HIDDEN}key"
    assert (
        repr(secrets)
        == str(secrets)
        == (
            "Secrets(earthengine_project=given, earthengine_key_file=none, "
            "planetary_computer_key=given, us_census_key=none)"
        )
    )
    broken = Secrets(earthengine_key_file=tmp_path / "none.json")
    assert broken.values == ()


def test_an_exception_that_would_tell_goes_on_without():
    secrets = Secrets(planetary_computer_key="canary-key-0123456789")
    with pytest.raises(ImageryError) as failure, guarded(secrets):
        try:
            raise OSError("refused https://h/x?sig=canary-sig")
        except OSError as error:
            raise ValueError("canary-key-0123456789") from error
    assert "canary" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__
    with pytest.raises(StoreError) as kept, guarded(secrets):  # its kind and its parts are kept
        raise StoreError("no", where="https://h/x?sig=canary", remedy="canary-key-0123456789")
    assert kept.value.where == "https://h/x"
    assert kept.value.remedy == HIDDEN
    with pytest.raises(ConfigError, match="plain"), guarded(secrets):
        raise ConfigError("plain")
    with pytest.raises(KeyError, match="plain"), guarded(secrets):
        raise KeyError("plain")


def test_credentials_have_no_place_in_a_country_file(tmp_path, monkeypatch):
    from popcorn_assets.country import load_country

    monkeypatch.setenv("POPCORN_COUNTRIES", str(tmp_path))
    data = yaml.safe_load((PACKAGED / "demo.yaml").read_text("utf-8"))
    data["imagery"] = {"source": "stac", "stac": {"url": "https://user:canary-pw@h/api?key=canary"}}
    (tmp_path / "abc.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="credentials do not belong here") as failure:
        load_country("abc")
    assert "canary" not in str(failure.value)

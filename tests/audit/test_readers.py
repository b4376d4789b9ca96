"""An auditor who may read the store and not write it; code of an installation of another user."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
import pytest

from popcorn_assets.audit.code import judge_code
from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.resources import StoreResource
from popcorn_assets.store import code as code_module
from popcorn_assets.store.code import COMMIT_VARIABLE, code_state, digest_of_code
from popcorn_assets.store.making import Making, Outcome
from tests.platforms import REPOSITORY, Place, make_place

pytestmark = pytest.mark.long(30)

READ_ONLY = """
import os, sys
from click.testing import CliRunner
from popcorn_assets.cli import cli, main
from popcorn_ml.warehouse.warehouse import Warehouse
home, copy, code = sys.argv[1:4]
sys.argv = ["popcorn", *(sys.argv[4:] or ["audit", "demo", "2020"])]

def enter(home):
    os.environ.update(
        DAGSTER_HOME=home, POPCORN_DATA=f"{home}/data", POPCORN_COUNTRIES=f"{home}/countries"
    )
    os.chdir(home)

enter(copy)
done = CliRunner().invoke(cli, sys.argv[1:])  # imports what nobody may read
assert done.exit_code == 0, done.output
os.setgroups([]); os.setgid(65534); os.setuid(65534)
enter(home)
exec(code)
"""
"""Becomes a user who may read a platform and not write it, and does there what it is told."""


@pytest.fixture
def owned_by_root(monkeypatch):
    """A platform with one version, in a folder that every user may read and none but root write."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    home = Path(tempfile.mkdtemp(prefix="popcorn-readers-"))
    home.chmod(0o755)
    place = make_place(home / "home")
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(place.home)

    @dg.asset(partitions_def=COUNTRY_YEAR)
    def themap(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        making = Making(context, StoreResource().open(), "themap", code_version="1")

        def make(folder) -> Outcome:
            (folder / "text").write_text("text")
            return Outcome()

        return making.publish(make)

    with place.instance() as instance:
        key = partition_key("demo", 2020)
        assert dg.materialize([themap], partition_key=key, instance=instance).success
    yield place
    shutil.rmtree(home)


WITHOUT_DAGSTER = ("audit", "demo", "2020", "--without-dagster")


def as_reader(
    place: Place, code: str, *arguments: str, closing: Path | None = None
) -> subprocess.CompletedProcess:
    copy = place.home.with_name("copy")
    shutil.copytree(place.home, copy)
    if closing is not None:
        closing.chmod(0)
    return subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(place.home), str(copy), code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("locks", ["there", "never made"])
def test_one_who_may_only_read_can_audit(owned_by_root, locks):
    if locks == "never made":
        for suffix in (".gate", ".lock"):
            (owned_by_root.data / f"warehouse.duckdb{suffix}").unlink()
    done = as_reader(owned_by_root, "main()", *WITHOUT_DAGSTER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compared with their manifests, warehouse and code: 1 " in done.stdout


def test_a_read_only_file_system_can_be_audited(owned_by_root):
    home = str(owned_by_root.home)
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 77; cd "$0"; '
    command = ["unshare", "-m", "sh", "-c", f'{mount}! touch "$0/x" && exec "$@"', home]
    command += [sys.executable, "-m", "popcorn_assets.cli", "audit", "demo", "2020"]
    if shutil.which("unshare") is None or subprocess.run([*command[:5], home, "true"]).returncode:
        pytest.skip("nothing can be mounted here")
    for suffix in (".gate", ".lock"):
        (owned_by_root.data / f"warehouse.duckdb{suffix}").unlink()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for arguments, code, told in (
        (["--without-dagster"], 0, "compared with their manifests, warehouse and code: 1 "),
        ([], 2, "--without-dagster"),
    ):
        done = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert told in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_records_of_dagster_that_cannot_be_read_are_an_error_with_what_to_do(owned_by_root):
    done = as_reader(owned_by_root, "main()")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Dagster's records cannot be read" in done.stderr
    assert "--without-dagster" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("gc",), ("gc", "--apply"), ("record",)])
def test_who_may_not_write_is_told_so_in_words(owned_by_root, command):
    done = as_reader(owned_by_root, "main()", *command)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "remedy:   " in done.stderr
    assert re.search("this user may not|by this user", done.stderr)
    assert "Traceback" not in done.stderr
    assert list(owned_by_root.data.glob("themap/demo/2020/*/text"))


@pytest.mark.parametrize(
    ("closed", "about"),
    [
        ("warehouse.duckdb", "warehouse: it could not be read"),
        ("themap/demo/2020/*/text", "text: it could not be read: Permission denied"),
        ("themap/demo/2020/*/manifest.json", "manifest.json: it could not be read"),
        ("themap/demo/2020/LATEST", "LATEST of themap demo|2020: "),
        ("themap/demo/2020", "Permission denied"),
        ("themap/demo/2020/[0-9a-f]*", "this user may not read"),
    ],
)
def test_what_may_not_be_read_is_not_judged(owned_by_root, closed, about):
    (path,) = owned_by_root.data.glob(closed)
    done = as_reader(owned_by_root, "main()", *WITHOUT_DAGSTER, closing=path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "not judged" in done.stdout
    assert about in done.stdout
    assert not re.search("changed  |missing  |unrecorded ", done.stdout)


def test_a_reader_waits_for_the_writer_and_cannot_write(owned_by_root):
    path = owned_by_root.data / "warehouse.duckdb"
    code = f"""
from popcorn_ml.errors import StoreError
warehouse = Warehouse({str(path)!r}, timeout_s=0.2)
for act in (lambda: warehouse.query("SELECT 1"), lambda: warehouse.mark_removed([])):
    try:
        act()
        print("done")
    except StoreError as error:
        print(error.what)
"""
    with open(f"{path}.lock") as room:
        fcntl.flock(room, fcntl.LOCK_EX)
        done = as_reader(owned_by_root, code)
    told = ["no turn at the warehouse in time", "the warehouse cannot be written"]
    assert done.stdout.splitlines() == told, done.stderr


# Code ---------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path):
    """A checkout that belongs to another user; its commit."""
    if os.getuid() != 0:
        pytest.skip("only root can give files to another user")
    (tmp_path / "popcorn_ml").mkdir()
    (tmp_path / "popcorn_ml" / "grid.py").write_text("")
    plain = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x.x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*plain, *command], check=True)
    head = subprocess.run([*plain, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    refused = subprocess.run([*plain, "rev-parse", "HEAD"], capture_output=True, check=False)
    assert b"dubious ownership" in refused.stderr
    return tmp_path, head.stdout.strip()


def state_of(root: Path, monkeypatch) -> dict:
    monkeypatch.setattr(code_module, "__file__", str(root / "popcorn_assets" / "store" / "code.py"))
    return code_state.__wrapped__()


def test_another_user_s_checkout_says_its_commit(installed, monkeypatch):
    root, commit = installed
    state = state_of(root, monkeypatch)
    assert (state["commit"], state["modified"]) == (commit, False)
    digest = digest_of_code([], ["grid.py"], lambda name: b"")
    assert judge_code({**state, "version": digest, "parts": []}, root) == []
    (root / "popcorn_ml" / "grid.py").write_text("changed = True\n")
    assert state_of(root, monkeypatch)["modified"] is True


@pytest.mark.parametrize(
    ("told", "commit", "modified"),
    [
        ("a" * 40, "a" * 40, False),
        (f"{'a' * 40}-dirty\n", "a" * 40, True),
        ("", None, None),
        ("main", None, None),
    ],
)
def test_an_installation_without_git_has_the_commit_it_is_told(
    tmp_path, monkeypatch, told, commit, modified
):
    monkeypatch.setenv(COMMIT_VARIABLE, told)
    state = state_of(tmp_path, monkeypatch)
    assert (state["commit"], state.get("modified")) == (commit, modified)


def test_a_checkout_is_believed_rather_than_the_variable(installed, monkeypatch):
    root, commit = installed
    monkeypatch.setenv(COMMIT_VARIABLE, "a" * 40)
    assert state_of(root, monkeypatch)["commit"] == commit


def test_the_command_to_build_with_writes_what_is_understood(installed, monkeypatch, tmp_path):
    """As docs/operate.md has it."""
    root, commit = installed
    text = (REPOSITORY / "docs" / "operate.md").read_text("utf-8")
    found = re.search(r"POPCORN_COMMIT=\$\((git describe [^)]*)\)", text)
    assert found, "docs/operate.md says how to build with the commit"
    command = [*shlex.split(found[1])]
    monkeypatch.setenv("GIT_DIR", str(root / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(root))
    for modified in (False, True):
        if modified:
            (root / "popcorn_ml" / "grid.py").write_text("changed = True\n")
        written = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        monkeypatch.setenv(COMMIT_VARIABLE, written)
        state = state_of(tmp_path / "elsewhere", monkeypatch)
        assert (state["commit"], state["modified"]) == (commit, modified)

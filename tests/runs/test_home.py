"""Where a command works: the home is found, begun by what begins something, and never guessed."""

import pytest

from popcorn_assets.runs import home as homes
from popcorn_assets.runs.home import begin_home, enter_home, find_home, home, ui_command
from popcorn_ml.errors import ConfigError


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An empty folder, and the code as if it were in no checkout."""
    monkeypatch.setattr(homes, "checkout", lambda: None)
    for name in ("DAGSTER_HOME", "POPCORN_DATA", "POPCORN_COUNTRIES"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_what_begins_something_makes_an_empty_folder_a_home(installed, capsys):
    assert enter_home(begin=True) == installed
    assert sorted(path.name for path in installed.iterdir()) == ["dagster.yaml", "workspace.yaml"]
    assert str(installed) in capsys.readouterr().err
    (installed / "dagster.yaml").write_text("# popcorn_assets: mine\n")
    assert enter_home(begin=True) == installed
    assert (installed / "dagster.yaml").read_text() == "# popcorn_assets: mine\n", "kept"
    assert not capsys.readouterr().err
    assert ui_command() == "popcorn ui"


def test_everything_else_says_where_to_go(installed):
    with pytest.raises(ConfigError, match="popcorn demo, new or ui") as caught:
        enter_home()
    assert caught.value.where == installed
    assert not list(installed.iterdir()), "nothing is written by what only looks"
    assert enter_home(needed=False) == installed


def test_a_home_is_found_from_within(installed, monkeypatch):
    begin_home()
    inside = installed / "data" / "exports"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert find_home() == installed
    begin_home()
    assert not list(inside.iterdir()), "no home in a home"
    assert enter_home() == installed


def test_a_folder_above_that_is_another_projects_is_none(installed, monkeypatch):
    (installed / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    inside = installed / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    assert find_home() is None
    monkeypatch.chdir(installed)
    assert find_home() == installed, "what somebody put into this very folder is meant"


def test_a_named_home_must_be_there(installed, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(installed / "typo"))
    with pytest.raises(ConfigError, match="set DAGSTER_HOME to the folder") as caught:
        enter_home(begin=True)
    assert caught.value.where == installed / "typo"
    assert not list(installed.iterdir())


def test_in_a_checkout_the_checkout_is_home(installed, monkeypatch, request):
    monkeypatch.undo()
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(installed)
    assert home() == request.config.rootpath
    assert enter_home(begin=True) == request.config.rootpath
    assert not list(installed.iterdir())
    assert ui_command() == "make ui"

"""The tutorials, word for word: every ```bash block is typed in an empty folder, in order.

`popcorn` is the checkout's code behaving as installed (the checkout is no home for it), and the
demo country is a smaller one, so that three tutorials take two minutes. With
POPCORN_TUTORIALS=/path/to/popcorn they are run by that command instead, in full size.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from popcorn_assets.cli import cli

REPOSITORY = Path(__file__).resolve().parents[1]
TUTORIALS = REPOSITORY / "docs" / "tutorials"
NAMES = ("demo", "own-country", "year")
VARIABLE = "POPCORN_TUTORIALS"

pytestmark = pytest.mark.long(120)

SMALL = f"""#!{sys.executable}
if __name__ == "__main__":  # the processes of steps read this file too
    import sys

    sys.path.insert(0, {str(REPOSITORY)!r})
    from tests.test_tutorials import small

    small()
"""


def small() -> None:
    """The command, as it is installed, on a small demo country."""
    import popcorn_assets.commands.demo as demo
    import popcorn_assets.runs.home as home
    from popcorn_assets.cli import main
    from tests.platforms import Place, tiny_spec, write_demo_file

    demo.CountrySpec = tiny_spec
    home.checkout = lambda: None
    if not Path("countries/demo.yaml").exists():
        Path("countries").mkdir(exist_ok=True)
        write_demo_file(Place(Path.cwd()), tiny_spec(), members=2, epochs=2)
    main()


def blocks(page: Path) -> list[str]:
    """What a tutorial has typed, block by block."""
    return re.findall(r"^```bash\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def commands(block: str) -> list[str]:
    """The commands of a block; one that ends in a backslash goes on in the next line."""
    return [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A PATH on which popcorn is found first."""
    if given := os.environ.get(VARIABLE):
        return f"{Path(given).absolute().parent}{os.pathsep}{os.environ['PATH']}"
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "popcorn"
    command.write_text(SMALL, "utf-8")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_is_typed(name, path, tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("POPCORN_", "DAGSTER_"))}
    environment = {**kept, "PATH": path}
    if VARIABLE not in os.environ:
        environment["PYTHONPATH"] = str(REPOSITORY)  # of the processes that popcorn starts
    for block in blocks(TUTORIALS / f"{name}.md"):
        for command in commands(block):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            print(f"$ {command}\n{done.stdout}")
            # The doctor's 1 says that something is missing here, such as room on the disk.
            allowed = (0, 1) if command.startswith("popcorn doctor") else (0,)
            assert done.returncode in allowed, f"{command}: {done.returncode}\n{done.stdout}"
            assert "Traceback" not in done.stdout, done.stdout
    made = {path.name for path in (tmp_path / "maps").iterdir()}
    code = "valley" if name == "own-country" else "demo"
    for kind in ("report.html", "population_100m.tif", "units.gpkg"):
        assert f"{code}_2021_{kind}" in made


def test_blocks_and_commands_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n```bash\none \\\n  two\nthree\n```\n```\nnot run\n```\n```bash\nfour\n```\n"
    )
    assert [commands(block) for block in blocks(page)] == [["one    two", "three"], ["four"]]


def test_every_tutorial_is_typed():
    assert sorted(page.stem for page in TUTORIALS.glob("*.md")) == sorted(NAMES)


def test_every_command_is_in_the_list_of_commands():
    told = (REPOSITORY / "docs" / "commands.md").read_text("utf-8")
    listed = set(re.findall(r"^popcorn ([a-z ]+?)(?: \||(?= +\S* *[A-Z\[])|  )", told, re.M))
    words = {word for line in listed for word in line.split()[:1]}
    words |= set(re.findall(r"\| ([a-z]+) ", told))
    assert set(cli.commands) <= words

"""What a wheel holds besides the two packages: a home's configuration and the documentation.

Everything else of the build is pyproject.toml's. In a checkout, editable installs included, the
files are read where they lie (`popcorn_assets.paths.shipped`).
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SHIPPED = ("dagster.yaml", "workspace.yaml", "docs/*.md", "docs/*/*.md")


class BuildWithFiles(build_py):
    """Copies the shipped files into the package, under `shipped/`."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "popcorn_assets" / "shipped"
        for pattern in SHIPPED:
            for source in sorted(HERE.glob(pattern)):
                copy = target / source.relative_to(HERE)
                self.mkpath(str(copy.parent))
                self.copy_file(str(source), str(copy))


setup(cmdclass={"build_py": BuildWithFiles})

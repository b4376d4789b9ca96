"""Whether the code that made a version is in the repository: its commit, and the same science."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from popcorn_assets.audit.findings import Finding, Verdict
from popcorn_assets.store.code import SOURCES, digest_of_code, git

SCIENCE = "popcorn_ml"
CHECKOUT = Path(__file__).resolve().parents[2]


def judge_code(code: dict[str, Any], repository: Path | None) -> list[Finding]:
    """What is doubtful about the code that a manifest names.

    Args:
        repository: the checkout to look in; None where there is none.
    """
    commit, short = code.get("commit"), str(code.get("commit"))[:10]
    if not isinstance(commit, str) or not commit:
        return [_doubt("it was not made in a checkout: no commit is recorded")]
    if repository is None or not (repository / ".git").exists():
        return [_doubt(f"there is no repository here to look for commit {short} in")]
    if shutil.which("git") is None:
        return [_doubt(f"git, which finds commit {short}, is not on this machine")]
    if not _known(repository, commit):
        return [_doubt(f"commit {short} is not in {repository}")]
    parts = code.get("parts")
    if parts is not None:
        found = _digest(repository, commit, tuple(parts))
        if found != code["version"]:
            text = f"the science in commit {short} has digest {found}, what made this {{}}"
            return [_doubt(text.format(code["version"]))]
    if code.get("modified"):
        return [_doubt(f"the checkout differed from commit {short}")]
    return []


def _doubt(message: str) -> Finding:
    return Finding(Verdict.FOREIGN_CODE, "code", message)


@cache
def _known(repository: Path, commit: str) -> bool:
    return git(repository, "cat-file", "-e", f"{commit}^{{commit}}") is not None


@cache
def _digest(repository: Path, commit: str, parts: tuple[str, ...]) -> str | None:
    blobs = _science(repository, commit)
    return digest_of_code(parts, blobs, blobs.__getitem__) if blobs else None


@cache
def _science(repository: Path, commit: str) -> dict[str, bytes]:
    """Every source file of the science in a commit, by its name below the package."""
    listed = git(repository, "ls-tree", "-r", "-z", commit, "--", f"{SCIENCE}/") or b""
    names: dict[str, str] = {}
    for line in filter(None, listed.decode().split("\0")):
        about, name = line.split("\t", 1)
        if name.endswith(SOURCES):
            names[name.removeprefix(f"{SCIENCE}/")] = about.split()[2]
    asked = "".join(f"{blob}\n" for blob in names.values()).encode()
    answer = git(repository, "cat-file", "--batch", given=asked) or b""
    contents, place = {}, 0
    for name in names:
        end = answer.index(b"\n", place)
        size = int(answer[place:end].split()[2])
        contents[name] = answer[end + 1 : end + 1 + size]
        place = end + 2 + size
    return contents

"""An audit as a tree at the terminal, a verdict a line, and as plain values."""

from __future__ import annotations

from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from popcorn_assets.audit.findings import Finding, Verdict, verdict_of
from popcorn_assets.audit.judge import Report
from popcorn_assets.audit.trail import Key, Node, Outside, scenes_of

COLOURS = {
    Verdict.OK: "green",
    Verdict.CHANGED: "bold red",
    Verdict.MISSING: "bold red",
    Verdict.UNRECORDED: "bold red",
    Verdict.NOT_JUDGED: "yellow",
    Verdict.FOREIGN_CODE: "yellow",
    Verdict.OLDER: "yellow",
}


SHORT = {Verdict.FOREIGN_CODE: "other code", Verdict.OLDER: "older"}
"""Verdicts of several words, in one column."""

PLAIN_WIDTH = 200
"""Of lines that no terminal cuts."""


def print_tree(report: Report, out: TextIO | None = None) -> None:
    """The tree from the assets asked for down to scenes, census files and weights."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    if report.general:
        for finding in report.general:
            console.print(_line(finding.verdict, str(finding)))
    shown: set[Key] = set()
    for key in report.trail.tops():
        tree = _branch(report, report.trail.nodes[key], None, shown)
        console.print(tree)
    console.print(summary(report))
    for verdict, short in SHORT.items():
        if report.counts().get(verdict):
            console.print(f"{short}: {verdict}")


def summary(report: Report) -> str:
    """One sentence: what was compared, and how many have which verdict."""
    versions = len(report.trail.nodes)
    told = ", ".join(f"{n} {verdict}" for verdict, n in sorted(report.counts().items()))
    return (
        f"{versions} versions and {report.files} files compared with their manifests, "
        f"{_and(report.compared[1:])}: {told or 'nothing to audit'}"
    )


def _and(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _line(verdict: Verdict, text: str) -> str:
    return f"[{COLOURS[verdict]}]{SHORT.get(verdict, verdict):<10}[/] {escape(text)}"


def _branch(report: Report, node: Node, tree: Tree | None, shown: set[Key]) -> Tree:
    about = f"{node.address} {node.version}"
    verdict = verdict_of(node.findings)
    again = node.key in shown
    line = _line(verdict, f"{about}, as above" if again else f"{about}{_made(node)}")
    branch = Tree(line) if tree is None else tree.add(line)
    if again:
        return branch
    shown.add(node.key)
    outside = {f"{one.path} (from outside)" for one in node.outside}
    for finding in node.findings:
        if finding.about not in outside:
            branch.add(_line(finding.verdict, str(finding)))
    for title, verdict, findings in sources_of(node):
        leaf = branch.add(_line(verdict, title))
        for finding in findings:
            leaf.add(_line(finding.verdict, str(finding)))
    for key in node.inputs:
        _branch(report, report.trail.nodes[key], branch, shown)
    return branch


def _made(node: Node) -> str:
    if node.manifest is None:
        return ""
    files = len(node.manifest["files"])
    return f", {files} file{'s' if files > 1 else ''}, made {str(node.manifest['finished'])[:16]}"


def sources_of(node: Node) -> list[tuple[str, Verdict, list[Finding]]]:
    """A line for every file from outside, and one for all scenes together."""
    lines: list[tuple[str, Verdict, list[Finding]]] = []
    by_name: dict[str, list[Finding]] = {}
    for finding in node.findings:
        by_name.setdefault(finding.about, []).append(finding)

    def found(files: list[Outside]) -> list[Finding]:
        return [one for file in files for one in by_name.get(f"{file.path} (from outside)", [])]

    for file in [one for one in node.outside if not one.scene]:
        findings = found([file])
        title = f"{file.path}, {file.size:,} bytes, sha256 {file.sha256[:16]}"
        lines.append((title, verdict_of(findings), findings))
    scenes = scenes_of(node)
    if scenes:
        files = [one for one in node.outside if one.scene]
        findings = found(files)
        where = f"{len(files)} files here" if files else "at their provider"
        title = f"{len(scenes)} scene{'s' if len(scenes) > 1 else ''}, {where}: "
        title += ", ".join(str(scene["id"]) for scene in scenes[:3])
        title += ", ..." if len(scenes) > 3 else ""
        lines.append((title, verdict_of(findings), findings))
    return lines


def as_dict(report: Report, strict: bool = False) -> dict[str, Any]:
    """The report as plain values.

    Files from outside are listed once, under `sources`; a version names them by their number there.
    """
    number = {one.file: k for k, one in enumerate(report.read)}
    return {
        "about": report.about.as_dict(),
        "country": report.country,
        "year": report.year,
        "passed": report.passed(strict),
        "summary": summary(report),
        "compared": report.compared,
        "files": report.files,
        "findings": [finding.as_dict() for finding in report.general],
        "versions": [
            {
                "asset": node.address.asset,
                "country": node.address.country,
                "year": node.address.year,
                "version": node.version,
                "current": node.current,
                "manifest_sha256": node.manifest_sha256,
                "verdict": str(verdict_of(node.findings)),
                "findings": [finding.as_dict() for finding in node.findings],
                "inputs": [
                    {"asset": a.asset, "country": a.country, "year": a.year, "version": v}
                    for a, v in node.inputs
                ],
                "sources": list(dict.fromkeys(number[one] for one in node.outside)),
                "scenes": [scene["id"] for scene in scenes_of(node)],
            }
            for node in report.trail.nodes.values()
        ],
        "sources": [
            {
                "path": one.file.path,
                "size": one.file.size,
                "sha256": one.file.sha256,
                "scene": one.file.scene,
                "licence": one.licence,
                "url": one.url,
            }
            for one in report.read
        ],
        "licences": report.licences,
    }

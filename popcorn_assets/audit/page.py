"""An audit as one HTML page that needs nothing else: no script, no request, pictures within."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

from popcorn_assets.audit.findings import Finding, Verdict, verdict_of
from popcorn_assets.audit.judge import Report
from popcorn_assets.audit.trail import Key, Node, Outside, scenes_of
from popcorn_assets.audit.tree import SHORT, summary
from popcorn_assets.show import PICTURE

STYLE = """
:root { --ink: #1c2024; --soft: #60646c; --line: #e0e1e6; --ground: #ffffff; --pane: #f6f7f9;
  --ok: #18794e; --wrong: #b8131a; --doubt: #8f5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #b0b4ba; --line: #363a3f;
  --ground: #111113; --pane: #18191b; --ok: #3dd68c; --wrong: #ff9592; --doubt: #ffca16; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
code, .mono { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .ok { color: var(--ok); } .wrong { color: var(--wrong); }
.doubt { color: var(--doubt); } .verdict { font-weight: 650; white-space: nowrap; }
.stamp { border: 1px solid var(--line); background: var(--pane); border-radius: 8px;
  padding: .9rem 1.1rem; margin: 1rem 0 1.4rem; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } figure img { max-width: 100%; border: 1px solid var(--line);
  border-radius: 6px; background: #fff; } figcaption { color: var(--soft); }
details { border: 1px solid var(--line); border-radius: 8px; margin: .5rem 0; }
summary { cursor: pointer; padding: .5rem .9rem; } details[open] summary {
  border-bottom: 1px solid var(--line); background: var(--pane); }
details > div { padding: .6rem .9rem 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 .8rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--line); } th { color: var(--soft); font-weight: 500; }
td.right { text-align: right; } ul { margin: .3rem 0; padding-left: 1.2rem; }
ul.trail, ul.trail ul { list-style: none; padding-left: 1.2rem;
  border-left: 1px solid var(--line); }
ul.trail { padding-left: 0; border: 0; } a { color: inherit; }
h3 { font-size: .95rem; margin: .9rem 0 .2rem; }
"""

MEANING = {
    Verdict.OK: "as recorded, everywhere it is recorded",
    Verdict.CHANGED: "not what was recorded",
    Verdict.MISSING: "recorded and no longer there",
    Verdict.UNRECORDED: "there and not recorded",
    Verdict.NOT_JUDGED: "it could not be read, which says nothing of what it holds",
    Verdict.FOREIGN_CODE: "the code that made it cannot be looked up in the repository",
    Verdict.OLDER: "what it was made from has a newer version",
}


def page(report: Report) -> str:
    """The whole page."""
    title = f"Audit of {report.country} {report.year}"
    passed = report.passed()
    stamp = {
        0: "Nothing is changed, missing or unrecorded.",
        2: "Not everything could be judged.",
    }.get(report.exit_code(), "This does not hold.")
    nodes = list(report.trail.nodes.values())
    numbers = {one.file: number for number, one in enumerate(report.read, 1)}
    parts = [
        f"<h1>{_t(title)}</h1>",
        f'<p class="soft">{_t(summary(report))}</p>',
        f'<div class="stamp"><span class="verdict {"ok" if passed else "wrong"}">{stamp}</span>'
        f"{_meanings(report)}</div>",
        _about(report),
        _general(report.general),
        _pictures(report),
        "<h2>From the maps to their sources</h2>",
        _trees(report, numbers),
        "<h2>Each version</h2>",
        *(_details(report, node, numbers) for node in nodes),
        _read(report),
        "<h2>Licences</h2>",
        _table(
            ["of", "licence", "from"],
            [[_t(one[key]) for key in ("of", "licence", "url")] for one in report.licences],
        ),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_t(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _about(report: Report) -> str:
    """When, where and by what this was found: without it, a page proves nothing."""
    about = report.about
    changed = ", the checkout was modified" if about.modified else ""
    rows = [
        ("audited", f"{about.when[:10]}, {about.when[11:19]} UTC"),
        ("on", about.host),
        ("by", f"popcorn-assets {about.version}, commit {about.commit}{changed}"),
        ("command", about.command or "none: called from Python"),
        ("store", about.store),
    ]
    return _table([], [[_t(name), f"<code>{_t(value)}</code>"] for name, value in rows])


def _read(report: Report) -> str:
    """Every file from outside, with its number."""
    rows = [
        [
            f'<span id="file-{number}">{number}</span>',
            f"<code>{_t(one.file.path)}</code>",
            f"{one.file.size:,}",
            f"<code>{_t(one.file.sha256)}</code>",
            _t(one.licence),
        ]
        for number, one in enumerate(report.read, 1)
    ]
    head = ["", "file", "bytes", "sha256", "licence"]
    return f"<h2>Files from outside</h2>{_table(head, rows)}" if rows else ""


def _numbers(node: Node, numbers: Mapping[Outside, int]) -> str:
    """The numbers of the files that a version was made from, as links."""
    found = sorted({numbers[one] for one in node.outside})
    return ", ".join(f'<a href="#file-{number}">{number}</a>' for number in found)


def _t(value: object) -> str:
    return html.escape(str(value))


def _class(verdict: Verdict) -> str:
    return "wrong" if verdict.wrong else "ok" if verdict is Verdict.OK else "doubt"


def _verdict(verdict: Verdict, *, whole: bool = False) -> str:
    text = verdict if whole else SHORT.get(verdict, verdict)
    return f'<span class="verdict {_class(verdict)}">{text}</span>'


def _meanings(report: Report) -> str:
    rows = [
        f"<li>{count} {_verdict(verdict, whole=True)}: {_t(MEANING[verdict])}</li>"
        for verdict, count in sorted(report.counts().items())
    ]
    return f"<ul>{''.join(rows)}</ul>"


def _general(findings: list[Finding]) -> str:
    return f"<h2>Beside the versions</h2>{_findings(findings)}" if findings else ""


def _findings(findings: list[Finding]) -> str:
    rows = [f"<li>{_verdict(one.verdict)} {_t(one)}</li>" for one in findings]
    return f"<ul>{''.join(rows)}</ul>" if rows else ""


def _picture(node: Node) -> bytes | None:
    path = node.path / PICTURE
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def _pictures(report: Report) -> str:
    figures = []
    for node in report.trail.nodes.values():
        picture = _picture(node)
        if picture and node.key in report.trail.roots and node.address.asset.endswith("map"):
            figures.append(_figure(picture, f"{node.address} {node.version}"))
    return f'<div class="maps">{"".join(figures)}</div>' if figures else ""


def _figure(picture: bytes, caption: str) -> str:
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure><img alt="{_t(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_t(caption)}</figcaption></figure>"
    )


def _trees(report: Report, numbers: Mapping[Outside, int]) -> str:
    shown: set[Key] = set()
    branches = [_branch(report, key, shown, numbers) for key in report.trail.tops()]
    return f'<ul class="trail">{"".join(branches)}</ul>'


def _branch(report: Report, key: Key, shown: set[Key], numbers: Mapping[Outside, int]) -> str:
    node = report.trail.nodes[key]
    link = f'<a href="#{_anchor(node)}">{_t(node.address)}</a> <code>{_t(node.version)}</code>'
    line = f"{_verdict(verdict_of(node.findings))} {link}"
    if key in shown:
        return f'<li>{line} <span class="soft">as above</span></li>'
    shown.add(key)
    below = []
    if node.outside:
        about = {f"{one.path} (from outside)" for one in node.outside}
        outside = verdict_of([one for one in node.findings if one.about in about])
        scenes = len(scenes_of(node))
        told = f" of {scenes} scenes" if scenes else ""
        files = f"files from outside{told}: {_numbers(node, numbers)}"
        below.append(f"<li>{_verdict(outside)} {files}</li>")
    elif scenes_of(node):
        below.append(f"<li>{len(scenes_of(node))} scenes at their provider</li>")
    below += [_branch(report, one, shown, numbers) for one in node.inputs]
    return f"<li>{line}<ul>{''.join(below)}</ul></li>"


def _anchor(node: Node) -> str:
    return _t(f"{node.address}-{node.version}".replace(" ", "-").replace("|", "-"))


def _details(report: Report, node: Node, numbers: Mapping[Outside, int]) -> str:
    verdict = verdict_of(node.findings)
    head = f"{_verdict(verdict)} {_t(node.address)} <code>{_t(node.version)}</code>"
    opened = " open" if verdict.wrong else ""
    content = [_findings(node.findings)]
    if node.manifest is not None:
        content += _manifest(node, node.manifest, numbers)
    return (
        f'<details id="{_anchor(node)}"{opened}><summary>{head}</summary>'
        f"<div>{''.join(content)}</div></details>"
    )


def _manifest(node: Node, manifest: dict[str, Any], numbers: Mapping[Outside, int]) -> list[str]:
    code = manifest["code"]
    modified = ", the checkout was modified" if code.get("modified") else ""
    about = [
        ("made", f"{str(manifest['started'])[:19]} to {str(manifest['finished'])[:19]} UTC"),
        ("Dagster run", manifest["run_id"]),
        ("code", f"{code['version']}, commit {code.get('commit') or 'unknown'}{modified}"),
        ("recipe", manifest["recipe"]),
        ("manifest sha256", node.manifest_sha256),
        ("libraries", ", ".join(f"{k} {v}" for k, v in manifest["libraries"].items())),
    ]
    parts = [_table([], [[_t(name), f"<code>{_t(value)}</code>"] for name, value in about])]
    picture = _picture(node)
    if picture:
        parts.append(_figure(picture, PICTURE))
    figures = [(title, value) for title, value in manifest["shown"] if _simple(value)]
    if figures:
        parts.append("<h3>Figures</h3>")
        parts.append(_table([], [[_t(title), _t(_number(value))] for title, value in figures]))
    if manifest["checks"]:
        parts.append("<h3>Checks when it was made</h3>")
        rows = [
            [_check(check), _t(check["name"]), _t(check["message"])] for check in manifest["checks"]
        ]
        parts.append(_table(["", "check", "what it said"], rows))
    files = [
        [f"<code>{_t(name)}</code>", f"{entry['size']:,}", f"<code>{_t(entry['sha256'])}</code>"]
        for name, entry in manifest["files"].items()
    ]
    parts += ["<h3>Files</h3>", _table(["file", "bytes", "sha256"], files)]
    if manifest["tables"]:
        rows = [
            [_t(name), f"{entry['rows']:,}", f"<code>{_t(entry['digest'])}</code>"]
            for name, entry in manifest["tables"].items()
        ]
        parts += ["<h3>Rows in the warehouse</h3>", _table(["table", "rows", "digest"], rows)]
    if node.outside:
        parts += [f"<h3>Files from outside</h3><p>{_numbers(node, numbers)}</p>"]
    scenes = scenes_of(node)
    if scenes:
        names = ("id", "datetime", "platform", "product", "orbit", "baseline")
        rows = [[_t(scene.get(name) or "") for name in names] for scene in scenes]
        parts += ["<h3>Scenes</h3>", _table(list(names), rows)]
    return parts


def _check(check: dict[str, Any]) -> str:
    if check["passed"]:
        return '<span class="ok">passed</span>'
    doubt = "doubt" if check["severity"] == "warn" else "wrong"
    return f'<span class="{doubt}">failed</span>'


def _simple(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = f"<tr>{''.join(f'<th>{_t(name)}</th>' for name in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"

"""Whether current versions were made from what is current, and rest on whole ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from popcorn_assets.audit.findings import Finding, Verdict
from popcorn_assets.audit.trail import FORM_ERRORS, Node, Trail, latest_of
from popcorn_assets.promotion.entries import MODELS, Ledger
from popcorn_assets.promotion.ledger import ledger_countries, read_ledger, verify
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import StoreError


def read_ledgers(store: Store, trail: Trail, countries: Iterable[str]) -> dict[str, Ledger]:
    """The ledgers of deployed models, with findings of those that are not whole."""
    ledgers = {}
    for country in sorted(set(countries)):
        about = f"deployments/{country}.json"
        try:
            problems = verify(store, country)
        except FORM_ERRORS as error:
            problems = [f"it cannot be compared with the deployed models: {error}"]
        trail.findings += [Finding(Verdict.CHANGED, about, problem) for problem in problems]
        if country in ledger_countries(store):
            try:
                ledgers[country] = read_ledger(store, country)
            except StoreError:
                continue  # verify said why
    return ledgers


def judge_age(store: Store, trail: Trail, node: Node, ledgers: Mapping[str, Ledger]) -> None:
    """Whether a current version was made from versions that are no longer current."""
    assert node.manifest is not None
    if not node.current:
        return
    for entry, (address, version) in zip(node.manifest["inputs"], node.inputs, strict=True):
        latest = latest_of(store, trail, address)
        if latest is None or latest == version:
            continue
        if _same_files(store, address, latest, entry.get("files")):
            continue
        ledger = ledgers.get(node.address.country or "")
        if address.asset in MODELS.values() and ledger is not None:
            use = ledger.in_use(node.address.year or 0)
            if use and (use.model.address, use.model.version) == (address, version):
                continue  # a newer model was trained and not put in use
        message = f"it was made from version {version}, the current one is {latest}"
        node.find(Verdict.OLDER, str(address), message)


def _same_files(store: Store, address: Address, version: str, files: dict[str, str] | None) -> bool:
    """Whether the only files of an input that matter are the same in another version."""
    if files is None:
        return False
    try:
        manifest = store.version(address, version).manifest()
        return all(manifest["files"][name]["sha256"] == told for name, told in files.items())
    except FORM_ERRORS:
        return False

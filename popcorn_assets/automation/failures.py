"""Failed runs: a record each, in the log and in a file, and a message to a webhook if any.

The webhook's address is a secret (whoever has it can post): it comes from the environment and is
never written anywhere, not even when the webhook fails. Nothing here can fail a run or a tick.
"""

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.automation.schedules import WORK_TAG
from popcorn_assets.paths import data_root
from popcorn_assets.resources import secrets_of_environment

WEBHOOK_VARIABLE = "POPCORN_WEBHOOK"
"""Environment variable with the address that failures are posted to, as JSON with a `text`."""

ATTEMPTS = 2
ATTEMPT_SECONDS = 3.0
PAUSE_SECONDS = 0.5
"""Dagster gives a tick one minute, in which it may report five runs."""

MESSAGE_CHARACTERS = 1000
LATE = "it did not answer in time"


def failures_file() -> Path:
    """One JSON object a line, one line a failed run."""
    return data_root() / "failures.jsonl"


def describe(run: dg.DagsterRun, steps: list[tuple[str, str]], message: str) -> dict[str, Any]:
    """What is said of a failed run.

    Args:
        steps: step keys that failed, each with its error.
        message: of the failure of the run as a whole.
    """
    errors = {step: without_secrets(error).strip()[:MESSAGE_CHARACTERS] for step, error in steps}
    partition = run.tags.get("dagster/partition", "")
    failed = ", ".join(errors) or without_secrets(message).strip()[:MESSAGE_CHARACTERS]
    first = next(iter(errors.values()), "")
    return {
        "text": f"POPCORN: {run.job_name} {partition} failed in {failed}. "
        f"{first.splitlines()[0] if first else ''}".strip(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.run_id,
        "job": run.job_name,
        "partition": partition,
        "work": run.tags.get(WORK_TAG, ""),
        "errors": errors,
    }


def without_secrets(text: str) -> str:
    """An error's text without credentials and without links' queries: it may leave this machine."""
    if address := os.environ.get(WEBHOOK_VARIABLE, "").strip():
        text = text.replace(address, "(webhook)")
    return secrets_of_environment().scrub(text)


def record(failure: dict[str, Any]) -> None:
    """Append a failure to the file."""
    path = failures_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(failure, ensure_ascii=False) + "\n")


def post(
    address: str,
    content: dict[str, Any],
    *,
    attempts: int = ATTEMPTS,
    seconds: float = ATTEMPT_SECONDS,
) -> str | None:
    """Post JSON to a webhook, a few times at most; never raises.

    Args:
        seconds: for one attempt, whatever the other side does: also one that answers byte by byte.

    Returns:
        What went wrong, without the address; None when it was delivered.
    """
    import requests  # before the clock runs

    if not address.lower().startswith(("http://", "https://")):
        return "its address does not begin with http:// or https://"

    def attempt(answers: list[int | str]) -> None:
        try:
            with requests.post(
                address, json=content, timeout=seconds, allow_redirects=False, stream=True
            ) as answer:
                answers.append(answer.status_code)
        except requests.Timeout:
            answers.append(LATE)
        except Exception as error:  # its kind only: the text names the address
            answers.append(f"it could not be reached ({type(error).__name__})")

    said = LATE
    for number in range(attempts):
        if number:
            time.sleep(PAUSE_SECONDS)
        answers: list[int | str] = []
        thread = threading.Thread(target=attempt, args=(answers,), daemon=True)
        thread.start()
        thread.join(seconds)
        answer = answers[0] if answers else LATE
        if isinstance(answer, int) and answer < 300:
            return None
        said = f"it answered {answer}" if isinstance(answer, int) else answer
        if isinstance(answer, int) and answer < 500 and answer != 429:
            break  # it will not take this message at another time either
    return said


@dg.run_failure_sensor(
    name="run_failures",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Writes one record of each failed run to failures.jsonl in the store's root and to "
    f"its own log, and posts it to the webhook that {WEBHOOK_VARIABLE} names, if it is set.",
)
def run_failures(context: dg.RunFailureSensorContext) -> None:
    steps = [
        (event.step_key or "?", _innermost(event)) for event in context.get_step_failure_events()
    ]
    failure = describe(context.dagster_run, steps, context.failure_event.message or "")
    context.log.error(failure["text"])
    try:
        record(failure)
    except OSError as error:
        context.log.error(f"{failures_file()} cannot be written: {error}")
    address = os.environ.get(WEBHOOK_VARIABLE, "").strip()
    if address and (wrong := post(address, failure)):
        context.log.error(f"the webhook was not told of run {failure['run'][:8]}: {wrong}")


def _innermost(event: dg.DagsterEvent) -> str:
    """The error that a step ended with, without the wrapping and the traceback."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message if error is not None else ""

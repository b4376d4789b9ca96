"""What is tried again later, and what is not."""

from datetime import UTC, datetime

import pytest

from popcorn_assets.runs.retry import again_later
from popcorn_ml.errors import ImageryError, ProviderDown
from popcorn_ml.imagery.stac_search import search
from popcorn_ml.sentinel import Period
from tests.runs.test_launch import run

PERIOD = Period(datetime(2020, 3, 1, tzinfo=UTC), datetime(2020, 6, 1, tzinfo=UTC))


def ask(url: str) -> list:
    return list(search(url, "sentinel-2-l2a", (29.0, -2.0, 30.0, -1.0), PERIOD, retries=0))


def test_a_catalogue_that_does_not_answer_is_asked_again_later():
    def body(context):
        with again_later(context, 2, 0):
            ask("http://127.0.0.1:9/")

    done, _, lines = run(body)
    assert not done.success
    assert [e.event_type_value for e in done.all_events].count("STEP_UP_FOR_RETRY") == 2
    assert sum("the catalogue did not answer" in line for line in lines) == 3


def test_bad_input_is_not_tried_again():
    def body(context):
        with again_later(context, 2, 0):
            raise ImageryError("the item collection is missing")

    done, _, _ = run(body)
    assert not done.success
    assert "STEP_UP_FOR_RETRY" not in [e.event_type_value for e in done.all_events]


@pytest.mark.parametrize(("status", "transient"), [(503, True), (429, True), (404, False)])
def test_the_providers_answer_decides(status, transient, answering):
    with pytest.raises(ImageryError) as raised:
        ask(answering(status))
    assert isinstance(raised.value, ProviderDown) == transient


@pytest.fixture
def answering():
    """A server of its own that gives one answer to everything."""
    import http.server
    import threading

    servers = []

    def start(status: int) -> str:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_error(status)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()

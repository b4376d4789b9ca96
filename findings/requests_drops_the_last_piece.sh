#!/usr/bin/env bash
# What surprised: of a download that is cut, requests hands out nothing of the piece it was reading.
#
# `iter_content(size)` waits until a piece is whole. Where the connection ends before, it raises, and
# the bytes of the piece that have come are gone: with pieces as large as half the file, a download
# that is cut a little before its middle holds nothing, and one that goes on with a Range request
# begins at nought. This script has a server on this machine announce 200,000 bytes, send 100,000 and
# close, and reads that in pieces of 256 KiB and of 16 KiB.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "requests==2.34.2" "urllib3==2.8.0"
cat > "$folder/cut.py" <<'PYTHON'
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
import urllib3

SENT = 100_000


class Cutting(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(2 * SENT))
        self.end_headers()
        self.wfile.write(b"x" * SENT)

    def log_message(self, *arguments):
        pass


def came(url, piece):
    """Bytes that were handed out before the error, and the error."""
    done = 0
    session = requests.Session()
    session.trust_env = False
    with session.get(url, stream=True, timeout=10) as answer:
        try:
            for block in answer.iter_content(piece):
                done += len(block)
        except requests.RequestException as error:
            return done, type(error).__name__
    return done, "no error"


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cutting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    large, small = came(url, 256 * 1024), came(url, 16 * 1024)
    print(f"requests {requests.__version__}, urllib3 {urllib3.__version__}: of {SENT} bytes that came")
    print(f"  in pieces of 256 KiB: {large[0]} ({large[1]})")
    print(f"  in pieces of  16 KiB: {small[0]} ({small[1]})")
    if large[0] != 0 or small[0] != SENT // (16 * 1024) * 16 * 1024:
        sys.exit("changed: what came of the last piece is no longer lost")
    print("as described: what came of the last piece is lost")
PYTHON
"$folder/venv/bin/python" "$folder/cut.py"

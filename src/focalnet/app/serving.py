"""A folder served to this computer alone, by the standard library."""

import errno
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from focalnet.errors import UserError

HOST = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """Files with the types that browsers insist on, never kept by them, and no log of requests."""

    extensions_map = {  # noqa: RUF012 - as in the base
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".onnx": "application/octet-stream",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
        pass


def open_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder on 127.0.0.1, which listens already.

    Args:
        folder: what to serve.
        port: 0 for any that is free.

    Raises:
        UserError: the port is no port, not allowed, or taken.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}; give 1 to 65535, or 0 for any that is free.")
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        why = "taken" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        raise UserError(f"port {port} cannot be used ({why}); give another --port.") from error


def serve(server: ThreadingHTTPServer) -> None:
    """Say where a server is, and let it answer until Ctrl-C."""
    print(f"http://{HOST}:{server.server_port}/ shows the page; Ctrl-C ends it.", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(file=sys.stderr)

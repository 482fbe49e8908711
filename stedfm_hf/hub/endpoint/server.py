"""Serve a model over HTTP with the handler of its Inference Endpoint: in a container, or to try it on this computer.

`python -m stedfm_hf.hub.endpoint.server FOLDER` starts it. `POST /` takes the JSON of the handler, and `GET /health`
returns 200 once the model is loaded. Requests are processed one at a time. Statuses: 400 for a request or a file that
is not valid, 413 for one that is too large, 415 for a body that is not JSON.
"""

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stedfm_hf.hub.endpoint.handler import MAX_FILE_BYTES, EndpointHandler, RequestError

MAX_BODY_BYTES = MAX_FILE_BYTES * 4 // 3 + 2**16
"""Largest request: a file as base64 text with its name and parameters."""
SECONDS_PER_READ = 60


def make_server(model: str, host: str, port: int) -> ThreadingHTTPServer:
    """Load a model, and open a port.

    Args:
        model: Folder of the model.
        host: Address to listen on.
        port: Port; 0 chooses a free one.
    """
    handler = EndpointHandler(model)
    one_at_a_time = threading.Lock()

    class Requests(BaseHTTPRequestHandler):
        timeout = SECONDS_PER_READ

        def do_GET(self) -> None:
            if self.path == "/health":
                self._send(200, {"status": "ready"})
            else:
                self._send(404, {"error": "no such page; send POST / or GET /health"})

        def do_POST(self) -> None:
            try:
                data = self._read()
                with one_at_a_time:
                    result = handler(data)
            except RequestError as error:
                self._send(error.status, {"error": str(error)})
            else:
                self._send(200, result)

        def _read(self) -> Any:
            """Read the JSON of a request; nothing is read of a request that is too large."""
            length = self.headers.get("Content-Length", "")
            if not length.isdigit():
                raise RequestError("the request has no Content-Length", 411)
            if int(length) > MAX_BODY_BYTES:
                self.close_connection = True
                raise RequestError(f"the request is larger than {MAX_BODY_BYTES // 2**20} MiB", 413)
            body = self.rfile.read(int(length))
            if self.headers.get_content_type() != "application/json":
                raise RequestError("the body is not JSON; send Content-Type: application/json", 415)
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                raise RequestError("the body is not valid JSON") from None

        def _send(self, status: int, result: Any) -> None:
            body = json.dumps(result).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer((host, port), Requests)


def main() -> None:
    """Serve a model until the process is stopped."""
    parser = argparse.ArgumentParser(description="Serve a STED-FM model over HTTP.")
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this computer only)")
    parser.add_argument("--port", type=int, default=8080, help="port (8080)")
    arguments = parser.parse_args()
    with make_server(arguments.model, arguments.host, arguments.port) as server:
        print(f"listening on http://{arguments.host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()

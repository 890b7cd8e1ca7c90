"""serving.mjs in Python, by the standard library. Run by .ci/serving."""

import json
import sys
import urllib.error
import urllib.parse
from wsgiref.simple_server import WSGIRequestHandler, make_server

from lineal import Lineal

url, secret_file = sys.argv[1:]
with open(secret_file, encoding="utf-8") as f:
    lineal = Lineal(url, f.read().strip())
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


def look_up(customer):
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "lookup", "arguments": {"customer": customer}}}
    with lineal.open(url + "/mcp/crm", json.dumps(call).encode(), HEADERS) as response:
        text = response.read().decode()
    events = [line[5:] for line in text.splitlines() if line.startswith("data:")]
    return json.loads(events[0] if events else text)["result"]


def app(environ, start_response):
    customer = urllib.parse.parse_qs(environ["QUERY_STRING"])["customer"][0]
    try:
        body = {"result": look_up(customer), "saw": environ.get("HTTP_LINEAL_DELEGATION")}
        start_response("200 OK", [("Content-Type", "application/json")])
    except urllib.error.HTTPError as e:
        body = {"error": f"{e.code} {e.headers.get('Lineal-Code')}"}
        start_response("502 Bad Gateway", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


server = make_server("127.0.0.1", 0, lineal.receive(app), handler_class=Quiet)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()

"""An agent that asks a database and a model: agent.before.py without Lineal, agent.py with it."""

import json
import os
import urllib.request

DB = os.environ["DB_URL"]
MODEL = os.environ["OPENAI_BASE_URL"]
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def post(url, body, **headers):
    """Posts JSON and returns the JSON of the answer, also of an event stream."""
    request = urllib.request.Request(url, json.dumps(body).encode(), HEADERS | headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        text = response.read().decode()
    events = [line[5:] for line in text.splitlines() if line.startswith("data:")]
    return json.loads(events[0] if events else text)


query = {"table": "customers", "columns": ["id", "name"], "where": {"region": "EU"}, "limit": 3}
call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "query", "arguments": query}}
rows = post(DB, call, **{"MCP-Protocol-Version": "2025-11-25"})["result"]["structuredContent"]

question = {"role": "user", "content": f"Which customers are these? {json.dumps(rows)}"}
answer = post(MODEL + "/chat/completions", {"model": "lineal-demo-stand-in", "messages": [question]})
print(answer["choices"][0]["message"]["content"])

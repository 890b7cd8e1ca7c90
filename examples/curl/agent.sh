#!/bin/sh
# An agent that calls a tool: agent.before.sh without Lineal, agent.sh with it.
set -eu
curl -sS "$LINEAL_URL/mcp/db" -H "Authorization: Bearer $LINEAL_TOKEN" \
  -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-11-25' \
  -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query","arguments":{"table":"customers","columns":["id","name"],"where":{"region":"EU"},"limit":3}}}'

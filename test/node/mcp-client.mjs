// The official TypeScript MCP client, through the gateway, as an agent that
// holds a certificate and a delegation token. It knows nothing of Lineal.
//
//   node mcp-client.mjs URL TOKEN_FILE CERT KEY CA OTHER_CERT OTHER_KEY
//
// It lists the tools, calls one within what was delegated, one beyond, and one
// within again: after a refusal the same session must live on. Then it presents
// the token without its key. It prints the ids of all refused calls.
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { Agent, fetch as undiciFetch } from "undici";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, tokenFile, certFile, keyFile, caFile, otherCert, otherKey] = process.argv.slice(2);
const token = readFileSync(tokenFile, "utf8").trim();
const ca = readFileSync(caFile);

function fetchWith(tls) {
  const dispatcher = new Agent({ connect: tls });
  return (input, init) => undiciFetch(input, { ...init, dispatcher });
}

async function connect(fetch) {
  const client = new Client({ name: "another-make", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    fetch,
    requestInit: { headers: { Authorization: `Bearer ${token}` } },
  });
  await client.connect(transport);
  return client;
}

const client = await connect(fetchWith({ ca, cert: readFileSync(certFile), key: readFileSync(keyFile) }));

const { tools } = await client.listTools();
assert.deepEqual(tools.map((t) => t.name), ["query"], "exactly the tool that may be called is listed");

const within = { table: "customers", columns: ["id", "name", "region"], where: { region: "EU" }, limit: 3 };
const result = await client.callTool({ name: "query", arguments: within });
assert.ok(!result.isError, JSON.stringify(result));
const rows = result.structuredContent?.rows ?? JSON.parse(result.content[0].text).rows;
assert.equal(rows.length, 3);

const refused = await client.callTool({ name: "query", arguments: { ...within, table: "orders" } }).then(
  () => assert.fail("a call beyond the delegation was answered"),
  (e) => e,
);
assert.equal(refused.code, -31403, String(refused));
assert.equal(refused.data.code, "policy_denied");
assert.equal(refused.data.hop, "caller");

const again = await client.callTool({ name: "query", arguments: within });
assert.ok(!again.isError, "the session did not survive the refusal");
await client.close();

// The same token on connections that do not prove its key: without any
// certificate, and with another agent's.
const presented = [];
for (const [name, tls, code] of [
  ["no certificate", { ca }, "proof_invalid"],
  ["another agent's certificate", { ca, cert: readFileSync(otherCert), key: readFileSync(otherKey) }, "proof_invalid"],
]) {
  const answer = await fetchWith(tls)(url, {
    method: "POST",
    headers: {
      Authorization: `Bearer ${token}`,
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 7, method: "tools/list" }),
  });
  assert.equal(answer.status, 401, name);
  assert.equal(answer.headers.get("lineal-code"), code, name);
  assert.match(answer.headers.get("www-authenticate"), /resource_metadata="https:/, name);
  const body = await answer.json();
  assert.equal(body.id, 7, name);
  assert.equal(body.error.data.code, code, name);
  presented.push(answer.headers.get("lineal-request-id"));
}

console.log(JSON.stringify({ tools: tools.length, rows: rows.length, refused: [refused.data.request_id, ...presented] }));

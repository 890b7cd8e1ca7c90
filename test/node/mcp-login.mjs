// The official TypeScript MCP client, unmodified, given the URL of an MCP server
// behind the gateway and nothing else: it finds the authorization server, logs a
// person in, and calls a tool. It has no certificate and was registered nowhere;
// DOCUMENT is what its maker publishes about it.
//
//   NODE_EXTRA_CA_CERTS=ca.pem node mcp-login.mjs URL DOCUMENT USER PASSWORD
//
// The test plays the person and the browser: it follows redirects with cookies,
// fills in the provider's form and answers the page that asks. It prints the
// rows it got and the ids of the calls that were refused.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { auth, UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Browser } from "./browser.mjs";

const [url, documentURL, username, password] = process.argv.slice(2);
const redirectUrl = "http://127.0.0.1:53682/callback"; // any port; nobody needs to listen

// A provider as the SDK's documentation has one: it keeps what it is told in
// memory, and sends the person's browser where it is told.
const kept = {};
const browser = new Browser(redirectUrl);
let answered;
const provider = {
  redirectUrl,
  clientMetadataUrl: documentURL,
  clientMetadata: { client_name: "ignored", redirect_uris: [redirectUrl], token_endpoint_auth_method: "none" },
  state: () => (kept.state = randomUUID()),
  clientInformation: () => kept.client,
  saveClientInformation: (c) => (kept.client = c),
  tokens: () => kept.tokens,
  saveTokens: (t) => (kept.tokens = t),
  saveCodeVerifier: (v) => (kept.verifier = v),
  codeVerifier: () => kept.verifier,
  saveDiscoveryState: (d) => (kept.discovery = d),
  async redirectToAuthorization(to) {
    const login = await browser.open(to.href);
    const asks = await browser.submit(login, { username, password });
    for (const said of ["Demo MCP client", new URL(documentURL).host, url, "query", "http://127.0.0.1:53682", "this computer"]) {
      assert.ok(asks.page.includes(said), `the page does not say ${said}:\n${asks.page}`);
    }
    assert.match(asks.headers.get("content-security-policy"), /frame-ancestors 'none'/);
    answered = (await browser.submit(asks, { decision: "allow" })).end.searchParams;
  },
};

const connect = () => {
  const client = new Client({ name: "demo-mcp-client", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  return { client, transport, connected: client.connect(transport) };
};

// 401 → RFC 9728 → RFC 8414 → login
const first = connect();
await assert.rejects(first.connected, UnauthorizedError);
const metadata = kept.discovery.authorizationServerMetadata;
assert.equal(kept.discovery.resourceMetadata.resource, url);
assert.equal(metadata.issuer, kept.discovery.resourceMetadata.authorization_servers[0]);
assert.equal(kept.client.client_id, documentURL);
assert.equal(answered.get("state"), kept.state);
assert.equal(answered.get("iss"), metadata.issuer, "RFC 9207");
const code = answered.get("code");
await first.transport.finishAuth(code);
assert.equal(kept.tokens.token_type, "Bearer");
assert.ok(kept.tokens.refresh_token);
assert.ok(kept.tokens.expires_in <= 120, "an unbound token is short");

const { client, connected } = connect();
await connected;
const { tools } = await client.listTools();
assert.deepEqual(tools.map((t) => t.name), ["query"]);
const within = { table: "customers", columns: ["id", "name", "region"], where: { region: "EU" }, limit: 3 };
const result = await client.callTool({ name: "query", arguments: within });
assert.ok(!result.isError, JSON.stringify(result));
const rows = result.structuredContent?.rows ?? JSON.parse(result.content[0].text).rows;
assert.equal(rows.length, 3);

const beyond = await client.callTool({ name: "query", arguments: { ...within, where: { region: "US" } } }).then(
  () => assert.fail("a call beyond what the person agreed to was answered"),
  (e) => e,
);
assert.equal(beyond.data.code, "policy_denied", String(beyond));

// A refresh gives a new chain; the old refresh token and the code end it all.
const before = kept.tokens;
assert.equal(await auth(provider, { serverUrl: url }), "AUTHORIZED");
assert.notEqual(kept.tokens.access_token, before.access_token);
assert.notEqual(kept.tokens.refresh_token, before.refresh_token);
const again = await client.callTool({ name: "query", arguments: within });
assert.ok(!again.isError, "the call with the new token");

const refused = [];
const token = async (form) => {
  const answer = await fetch(metadata.token_endpoint, {
    method: "POST",
    body: new URLSearchParams({ client_id: documentURL, resource: url, ...form }),
  });
  const body = await answer.json();
  assert.equal(answer.status, 400, JSON.stringify(body));
  refused.push(answer.headers.get("lineal-request-id"));
  return body.error;
};
const replaced = { grant_type: "refresh_token", refresh_token: before.refresh_token };
const current = { grant_type: "refresh_token", refresh_token: kept.tokens.refresh_token };
const redeemed = { grant_type: "authorization_code", code, code_verifier: kept.verifier, redirect_uri: redirectUrl };
for (const form of [replaced, current, redeemed]) {
  assert.equal(await token(form), "invalid_grant", form.grant_type);
}
await client.close();

console.log(JSON.stringify({ tools: tools.length, rows: rows.length, way: browser.seen, beyond: beyond.data.request_id, refused }));

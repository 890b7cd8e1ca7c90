// The official TypeScript MCP clients through the gateway: @modelcontextprotocol/sdk
// 1.x, and @modelcontextprotocol/client 2.x in both eras of the protocol.
//   node mcp-clients.mjs < the JSON object that the rig printed
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Client, ProtocolError, SdkHttpError, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as Transport1, StreamableHTTPError } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { McpError } from "@modelcontextprotocol/sdk/types.js";

const rig = JSON.parse(readFileSync(0, "utf8"));
let passed = 0;
const check = (name, ok, ...got) => {
  assert.ok(ok, `${name}: ${got.map((g) => g?.stack ?? JSON.stringify(g)).join(" ")}`);
  passed++;
};
const control = async (path) => {
  const answer = await fetch(rig.control + path, { method: "POST" });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  return text;
};
const renewed = (route) => control(`/token/${route}`);

// What differs between the clients: how one is made, what it throws.
const makes = {
  "sdk-2025-11-25": {
    version: "2025-11-25", Protocol: McpError, Http: StreamableHTTPError, status: (e) => e.code,
    connect: async (url, fetch) => {
      const client = new Client1({ name: "another-make", version: "1.0.0" });
      await client.connect(new Transport1(url, { fetch }));
      return client;
    },
    call: (client, params, options) => client.callTool(params, undefined, options),
  },
};
for (const [version, mode] of [["2026-07-28", { pin: "2026-07-28" }], ["2025-11-25", "legacy"]]) {
  makes[`client-${version}`] = {
    version, Protocol: ProtocolError, Http: SdkHttpError, status: (e) => e.status,
    connect: async (url, fetch) => {
      const client = new Client({ name: "another-make", version: "1.0.0" }, { versionNegotiation: { mode } });
      await client.connect(new StreamableHTTPClientTransport(url, { fetch }));
      return client;
    },
    call: (client, params, options) => client.callTool(params, options),
  };
}

// A session, with the token that each of its requests brings and what the
// gateway refused.
async function session(make, route) {
  const s = { make, route, refused: [], token: await renewed(route) };
  const fetchWith = async (input, init) => {
    if (init?.method === "GET") return new Response(null, { status: 405 }); // no stream beside the calls
    const headers = new Headers(init?.headers);
    headers.set("Authorization", `Bearer ${s.token}`);
    const answer = await fetch(input, { ...init, headers });
    const code = answer.headers.get("lineal-code");
    if (code) s.refused.push({ code, status: answer.status, challenge: answer.headers.get("www-authenticate") ?? "" });
    return answer;
  };
  s.client = await make.connect(new URL(`${rig.front}/mcp/${route}`), fetchWith);
  s.call = async (name, as, options) => {
    const result = await make.call(s.client, { name, arguments: { name: as } }, options);
    assert.ok(!result.isError, JSON.stringify(result));
    return result.content[0].text;
  };
  s.fails = (name) => s.call(name, "you").then((got) => assert.fail(`answered: ${got}`), (e) => e);
  return s;
}

const briefs = {};
for (const [name, make] of Object.entries(makes)) briefs[name] = await session(make, "brief");

for (const [name, make] of Object.entries(makes)) {
  const s = await session(make, "stays");
  const lives = async (when) => check(`${name}: ${when}`, (await s.call("hello", "you")) === "hello you");
  await lives("call");

  // count waits for go_on, which is called when its first word is heard.
  const heard = [];
  let goesOn;
  const counted = await s.call("count", name, {
    onprogress: ({ progress }) => {
      heard.push(progress);
      goesOn ??= s.call("go_on", name);
    },
  });
  check(`${name}: streams`, counted === "counted" && heard.join() === "1,2,3", counted, heard);
  check(`${name}: another call while one streams`, (await goesOn) === "going on");

  const e = await s.fails("forbidden");
  check(`${name}: refused by policy`, e instanceof make.Protocol && e.code === -31403 && e.data.code === "policy_denied" && e.data.retryable === false, e);
  check(`${name}: reason`, /Refused by policy\. Request [0-9a-f-]{36}\.$/.test(e.message) && e.message.includes(e.data.request_id), e);
  await lives("lives on after a refusal");
  await s.client.close();

  const ends = await session(make, name);
  check(`${name}: before the server ends`, (await ends.call("hello", "you")) === "hello you");
  await control(`/end/${name}`);
  for (const when of ["upstream down", "upstream still down"]) {
    ends.refused.length = 0;
    const e = await ends.fails("hello");
    const last = ends.refused.at(-1);
    check(`${name}: ${when}`, e instanceof make.Http && make.status(e) === 502 && last?.status === 502 && last.code === "upstream_unreachable", e, ends.refused);
  }
  await ends.client.close();
}

for (const [name, s] of Object.entries(briefs)) {
  const { exp } = JSON.parse(Buffer.from(s.token.split(".")[1], "base64url"));
  await new Promise((resolve) => setTimeout(resolve, (exp + 2) * 1000 - Date.now())); // the gateway's clock may be a second behind
  s.refused.length = 0;
  const e = await s.fails("hello");
  const last = s.refused.at(-1);
  check(`${name}: expired token`, e instanceof s.make.Http && s.make.status(e) === 401 && last?.status === 401 && last.code === "token_expired", e, s.refused);
  check(`${name}: challenge`, /^Bearer /.test(last.challenge) && last.challenge.includes('error="invalid_token"') && last.challenge.includes("resource_metadata="), last);
  s.token = await renewed("brief");
  check(`${name}: goes on with a new token`, (await s.call("hello", "you")) === "hello you");
  await s.client.close();
}
console.log(JSON.stringify({ node: passed }));
process.exit(0);

// The official TypeScript A2A client, through the gateway, as an agent that holds
// a certificate and a delegation token. It knows nothing of Lineal.
//
//   node a2a-client.mjs CONFIG_FILE
//
// In each binding and version it calls, streams, follows its task, is refused by
// policy, asks for a task that is not its own, presents an expired token, and
// meets an agent that is down; after each the same client must live on. It
// prints what it saw.
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { Agent, fetch as undiciFetch } from "undici";
import { AgentCard, Role, TaskState } from "@a2a-js/sdk";
import { ClientFactory, JsonRpcTransportFactory, RestTransportFactory } from "@a2a-js/sdk/client";

const { url, token, expired, cert, key, ca } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const dispatcher = new Agent({ connect: { ca, cert, key } });
let presented = token;
let last;
async function fetchWith(input, init) {
  const headers = new Headers(init?.headers);
  headers.set("Authorization", `Bearer ${presented}`);
  last = await undiciFetch(input, { ...init, headers: Object.fromEntries(headers), dispatcher });
  return last;
}

const message = (text) => ({
  tenant: "", configuration: undefined, metadata: undefined,
  message: {
    messageId: crypto.randomUUID(), contextId: "", taskId: "", role: Role.ROLE_USER, metadata: undefined, extensions: [], referenceTaskIds: [],
    parts: [{ content: { $case: "text", value: text }, metadata: undefined, filename: "", mediaType: "" }],
  },
});

// said is everything that an error holds, as a program could look through it.
const said = (e) => JSON.stringify(Object.fromEntries(Object.getOwnPropertyNames(e).map((n) => [n, e[n]]))) + " " + e.message + " " + String(e.cause ?? "");

async function refused(what, call) {
  const e = await call().then(() => assert.fail(`${what}: answered`), (e) => e);
  return { code: last.headers.get("lineal-code"), challenge: last.headers.get("www-authenticate") ?? "", said: said(e), name: e.name };
}

const seen = {};
for (const [name, protocolBinding, protocolVersion] of [
  ["JSON-RPC 1.0", "JSONRPC", "1.0"], ["HTTP+JSON 1.0", "HTTP+JSON", "1.0"], ["JSON-RPC 0.3", "JSONRPC", "0.3"],
]) {
  const legacyCompat = { enabled: true };
  const factory = new ClientFactory({
    transports: [new JsonRpcTransportFactory({ fetchImpl: fetchWith, legacyCompat }), new RestTransportFactory({ fetchImpl: fetchWith, legacyCompat })],
  });
  const card = AgentCard.fromJSON({
    name: "peer", description: "d", version: "1", capabilities: { streaming: true }, skills: [],
    defaultInputModes: ["text/plain"], defaultOutputModes: ["text/plain"],
    supportedInterfaces: [{ url, protocolBinding, protocolVersion }],
  });
  const client = await factory.createFromAgentCard(card);
  const lives = async () => {
    const answer = await client.sendMessage(message("talk"));
    const parts = (answer.payload?.value ?? answer).parts;
    assert.equal(parts[0].content.value, "hi", `${name}: ${JSON.stringify(answer)}`);
  };
  await lives();

  let task;
  const states = [];
  for await (const event of client.sendMessageStream(message("begin"))) {
    const value = event.payload?.value ?? event;
    task ??= value.id ?? value.taskId;
    if (value.status) states.push(value.status.state);
  }
  assert.ok(task && states.includes(TaskState.TASK_STATE_INPUT_REQUIRED), `${name}: task ${task}, states ${states}`);
  const got = await client.getTask({ tenant: "", id: task });
  assert.equal(got.id, task);

  const denied = await refused("policy", () => client.sendMessage(message("sixsix")));
  assert.equal(denied.code, "policy_denied");
  assert.match(denied.said, /Refused by policy\./, name);
  // Over HTTP this client keeps of an error it does not know status and words; the code is in the header.
  assert.match(denied.said, name === "HTTP+JSON 1.0" ? /"statusCode":403/ : /policy_denied|POLICY_DENIED/, name);
  await lives();

  const foreign = await refused("a task of nobody's", () => client.getTask({ tenant: "", id: "nobodys" }));
  assert.equal(foreign.code, "handle_unknown");
  assert.equal(foreign.name, "TaskNotFoundError", `${name}: ${foreign.said}`);
  await lives();

  presented = expired;
  const challenged = await refused("an expired token", () => client.sendMessage(message("talk")));
  assert.equal(challenged.code, "token_expired");
  assert.match(challenged.challenge, /resource_metadata=".+", error="invalid_token"/, name);
  presented = token;
  await lives();

  const down = await refused("an agent that is down", () => client.sendMessage(message("crash")));
  assert.equal(down.code, "upstream_invalid");
  await lives();
  seen[name] = { task: Boolean(task), states: states.length, refused: [denied, foreign, challenged, down].map((r) => r.code) };
}
console.log(JSON.stringify(seen));

// The authorization suite of the MCP conformance package against the token
// service of a running deployment. The suite prints a URL for a person to open
// in a browser; this script is the person.
//
//   NODE_EXTRA_CA_CERTS=ca.pem node authorization.mjs DEPLOYMENT EXPECTED.json
//
// EXPECTED says for each version of the protocol what each check must give:
// "pass", or the reason why it does not apply. The run must give exactly that.
// Last, every address at which a client may look for metadata is read.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Browser } from "../node/browser.mjs";
import { compare } from "./compare.mjs";

const [deployment, expectedFile] = process.argv.slice(2);
const { issuer, routes, client_document: client } = JSON.parse(readFileSync(deployment, "utf8"));
const { versions } = JSON.parse(readFileSync(expectedFile, "utf8"));
const { audience: resource } = routes.find((r) => r.name === "desktop");
const suite = new URL("node_modules/@modelcontextprotocol/conformance/dist/index.js", import.meta.url).pathname;

const freePort = () =>
  new Promise((resolve) => {
    const s = createServer().listen(0, "127.0.0.1", () => {
      const { port } = s.address();
      s.close(() => resolve(port));
    });
  });

// logIn is what the person does: name and password at the provider, yes to the
// page that asks, and back to the client.
async function logIn(url, end) {
  const browser = new Browser(end);
  const asks = await browser.submit(await browser.open(url), { username: "alice@example.com", password: "alice" });
  const back = await browser.submit(asks, { decision: "allow" });
  const answer = await fetch(back.end);
  assert.equal(answer.status, 200);
}

// run runs the suite for one version and returns scenario → check → status.
async function run(version) {
  const results = mkdtempSync(join(tmpdir(), "authorization-"));
  const port = await freePort();
  const child = spawn(
    process.execPath,
    [suite, "authorization", "--url", issuer, "--client-id", client, "--resource", resource, "--port", `${port}`, "--spec-version", version, "--output-dir", results],
    { stdio: ["ignore", "pipe", "inherit"], timeout: 60_000 },
  );
  const printed = [];
  const people = [];
  for await (const line of createInterface({ input: child.stdout })) {
    printed.push(line);
    if (line.startsWith(issuer + "/authorize?")) {
      people.push(logIn(line, `http://127.0.0.1:${port}/callback`).catch((e) => { child.kill(); throw e; }));
      people.at(-1).catch(() => {});
    }
  }
  await Promise.all(people);
  const code = child.exitCode ?? (await new Promise((resolve) => child.once("exit", resolve)));
  assert.equal(people.length, 1, `the suite asked ${people.length} persons:\n${printed.join("\n")}`);
  const got = {};
  for (const folder of readdirSync(results)) {
    const scenario = /^authorization-server-(.*)-\d{4}-\d\d-\d\dT/.exec(folder)[1];
    got[scenario] = JSON.parse(readFileSync(join(results, folder, "checks.json"), "utf8"));
  }
  rmSync(results, { recursive: true });
  return { code, got };
}

let passed = 0;
let excused = 0;
const wrong = [];
for (const [version, expected] of Object.entries(versions)) {
  const { code, got } = await run(version);
  const verdict = compare(expected, got);
  passed += verdict.passed;
  excused += verdict.excused;
  wrong.push(...verdict.wrong.map((w) => `${version}: ${w}`));
  if (code !== 0) wrong.push(`${version}: the suite ended with ${code}`);
}
assert.deepEqual(wrong, []);

// Discovery: MCP clients try each of these, in an order of their own.
const json = async (url) => {
  const answer = await fetch(url);
  assert.equal(answer.status, 200, url);
  assert.match(answer.headers.get("content-type"), /^application\/json/, url);
  return answer.json();
};
const { origin, pathname } = new URL(issuer);
const forms = [
  `${origin}/.well-known/oauth-authorization-server${pathname}`,
  `${issuer}/.well-known/oauth-authorization-server`,
  `${origin}/.well-known/openid-configuration${pathname}`,
  `${issuer}/.well-known/openid-configuration`,
];
for (const form of forms) {
  const metadata = await json(form);
  assert.equal(metadata.issuer, issuer, form);
  assert.deepEqual(metadata.code_challenge_methods_supported, ["S256"], form);
  assert.ok(metadata.grant_types_supported.includes("authorization_code"), form);
}

// The resource says where to go and what to ask for: as a document, and when it
// refuses a call without a token.
const at = new URL(resource);
const resources = [`${at.origin}/.well-known/oauth-protected-resource${at.pathname}`, `${resource}/.well-known/oauth-protected-resource`];
for (const form of resources) {
  const metadata = await json(form);
  assert.equal(metadata.resource, resource, form);
  assert.deepEqual(metadata.authorization_servers, [issuer], form);
  assert.deepEqual(metadata.scopes_supported, ["mcp:call", "mcp:prompt", "mcp:read"], form);
  assert.deepEqual(metadata.bearer_methods_supported, ["header"], form);
}
const refused = await fetch(resource, { method: "POST" });
assert.equal(refused.status, 401);
assert.equal(refused.headers.get("www-authenticate"), `Bearer resource_metadata="${resources[0]}", scope="mcp:call mcp:prompt mcp:read"`);

console.log(JSON.stringify({ versions: Object.keys(versions).length, passed, excused, documents: forms.length + resources.length }));

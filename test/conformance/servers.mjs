// The server scenarios of the MCP conformance package, against the conformance
// server of the official Go SDK: once as it is, once behind the gateway. Both
// runs must give what EXPECTED says of them, check by check; so they give the
// same. What fails at the server itself is said there, with the reason.
//
//	node servers.mjs RIG SERVER EXPECTED.json DATA
//
// RIG is the program of this folder, SERVER the conformance server, DATA an
// empty directory.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { compare, worst } from "./compare.mjs";

const [rig, server, expectedFile, data] = process.argv.slice(2);
const { revisions } = JSON.parse(readFileSync(expectedFile, "utf8"));
const suite = new URL("node_modules/@modelcontextprotocol/conformance/dist/index.js", import.meta.url).pathname;
const children = [];
process.on("exit", () => children.forEach((c) => c.kill()));

const freePort = () =>
  new Promise((resolve) => {
    const s = createServer().listen(0, "127.0.0.1", () => {
      const { port } = s.address();
      s.close(() => resolve(port));
    });
  });

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The server serves one era at a time, so that there is one for each revision.
async function startServer({ stateless }) {
  const port = await freePort();
  const child = spawn(server, [`-http=localhost:${port}`, `-stateless=${stateless}`], { stdio: "ignore" });
  children.push(child);
  for (let n = 0; n < 100; n++) {
    if (await fetch(`http://localhost:${port}`).then(() => true, () => false)) return `http://localhost:${port}`;
    assert.equal(child.exitCode, null, "the server ended");
    await sleep(100);
  }
  assert.fail("the server does not listen");
}

// startRig puts the servers behind a gateway and returns where each is then.
async function startRig(servers) {
  const named = Object.entries(servers).flatMap(([name, url]) => ["-server", `${name}=${url}`]);
  const child = spawn(rig, ["-data", data, ...named], { stdio: ["pipe", "pipe", "pipe"] });
  children.push(child);
  let log = "";
  child.stderr.on("data", (d) => (log += d));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const line = new Promise((resolve) => createInterface({ input: child.stdout }).once("line", resolve));
  const first = await Promise.race([line, ended]);
  assert.equal(typeof first, "string", `the gateway ended:\n${log}`);
  const stop = async () => {
    child.stdin.end();
    assert.equal(await ended, 0, `the gateway did not end well:\n${log}`);
  };
  return { fronts: JSON.parse(first), stop };
}

// run runs all scenarios of a revision and returns scenario → checks.
async function run(url, revision) {
  const results = mkdtempSync(join(tmpdir(), "servers-"));
  const args = [suite, "server", "--url", url, "--requirements", revision, "--output-dir", results];
  const child = spawn(process.execPath, args, { stdio: "ignore", timeout: 240_000 });
  children.push(child);
  const [code, signal] = await new Promise((resolve) => child.once("exit", (...how) => resolve(how)));
  assert.equal(signal, null, `the suite did not end: ${signal}`);
  const got = {};
  for (const folder of readdirSync(results)) {
    got[/^server-(.*)-\d{4}-\d\d-\d\dT/.exec(folder)[1]] = JSON.parse(readFileSync(join(results, folder, "checks.json"), "utf8"));
  }
  rmSync(results, { recursive: true });
  return { code, got };
}

const servers = {};
for (const [revision, { server: how }] of Object.entries(revisions)) servers[`r${revision}`] = await startServer(how);
const { fronts, stop } = await startRig(servers);

const wrong = [];
const seen = {};
let passed = 0;
let excused = 0;
for (const [revision, { scenarios }] of Object.entries(revisions)) {
  const direct = await run(servers[`r${revision}`], revision);
  const through = await run(fronts[`r${revision}`], revision);
  seen[revision] = direct.got;
  for (const [where, { code, got }] of Object.entries({ direct, through })) {
    const verdict = compare(scenarios, got);
    wrong.push(...verdict.wrong.map((w) => `${revision} ${where}: ${w}`));
    if (code !== 0) wrong.push(`${revision} ${where}: the suite ended with ${code}`);
    passed += verdict.passed;
    excused += verdict.excused;
  }
}
await stop();
if (process.env.SHOW_RESULTS) { // to write EXPECTED anew
  const all = Object.entries(seen).map(([r, got]) => [r, Object.fromEntries(Object.entries(got).map(([s, checks]) => [s, worst(checks)]))]);
  console.error(JSON.stringify(Object.fromEntries(all), null, 2));
}
assert.deepEqual(wrong, []);
console.log(JSON.stringify({ revisions: Object.keys(revisions).length, passed, excused }));
process.exit(0);

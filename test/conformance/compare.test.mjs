// The comparison decides what a conformance step proves: each way to be wrong
// must fail, and its twin pass.
import assert from "node:assert/strict";
import test from "node:test";
import { compare } from "./compare.mjs";

const reason = "the server under test has no such thing";
const expected = { s: { a: "pass", b: reason } };
const fails = { s: { a: { fails: reason }, i: "info" } };
const info = { id: "i", status: "INFO" };
const ok = { id: "a", status: "SUCCESS" };

for (const [what, results, wrong] of [
  ["as it must be", { s: [ok, { id: "b", status: "SKIPPED" }] }, 0],
  ["not run at all, as it must be", { s: [ok] }, 0],
  ["a failure", { s: [{ id: "a", status: "FAILURE" }] }, 1],
  ["one failure of several", { s: [ok, { id: "a", status: "FAILURE" }, ok] }, 1],
  ["a warning", { s: [{ id: "a", status: "WARNING" }] }, 1],
  ["skipped, and must pass", { s: [{ id: "a", status: "SKIPPED" }] }, 1],
  ["a check vanished", { s: [] }, 1],
  ["a scenario vanished", {}, 1],
  ["passes and is excused", { s: [ok, { id: "b", status: "SUCCESS" }] }, 1],
  ["fails and is said not to apply", { s: [ok, { id: "b", status: "FAILURE" }] }, 1],
  ["an unknown check", { s: [ok, { id: "c", status: "SUCCESS" }] }, 1],
  ["an unknown scenario", { s: [ok], t: [ok] }, 1],
]) {
  test(what, () => assert.equal(compare(expected, results).wrong.length, wrong));
}

for (const [what, checks, wrong] of [
  ["fails as said", [{ id: "a", status: "FAILURE" }, info], 0],
  ["warns as said", [{ id: "a", status: "WARNING" }, info], 0],
  ["said to fail, and passes", [ok, info], 1],
  ["said to fail, and vanished", [info], 1],
  ["said to fail, and skipped", [{ id: "a", status: "SKIPPED" }, info], 1],
  ["said to tell, and fails", [{ id: "a", status: "FAILURE" }, { id: "i", status: "FAILURE" }], 1],
  ["said to tell, and vanished", [{ id: "a", status: "FAILURE" }], 1],
]) {
  test(what, () => assert.equal(compare(fails, { s: checks }).wrong.length, wrong));
}

test("a failure without a reason", () => assert.equal(compare({ s: { b: { fails: "x" } } }, { s: [{ id: "b", status: "FAILURE" }] }).wrong.length, 1));
test("no reason", () => assert.equal(compare({ s: { b: "n/a" } }, {}).wrong.length, 1));
test("an unknown status", () => assert.throws(() => compare(expected, { s: [{ id: "a", status: "OK" }] })));
test("counts", () => assert.deepEqual(compare(expected, { s: [ok] }), { passed: 1, excused: 1, wrong: [] }));

// What a run of the suite gave against what it must give. A check that is there
// several times gives the worst of what it gave.
const rank = ["SUCCESS", "INFO", "SKIPPED", "WARNING", "FAILURE"];

// worst is check id → status of one scenario.
export function worst(checks) {
  const out = {};
  for (const { id, status } of checks) {
    if (!rank.includes(status)) throw new Error(`check ${id}: status ${status}`);
    if (!(id in out) || rank.indexOf(status) > rank.indexOf(out[id])) out[id] = status;
  }
  return out;
}

// compare holds results (scenario → checks of the suite) against expectations
// (scenario → check id → "pass", "info" for what only tells, {"fails": reason}, or
// the reason why it does not apply), both ways.
export function compare(expected, results) {
  const wrong = [];
  let passed = 0;
  let excused = 0;
  for (const [scenario, checks] of Object.entries(expected)) {
    const got = worst(results[scenario] ?? []);
    for (const [id, want] of Object.entries(checks)) {
      const name = `${scenario}: ${id}`;
      if (want === "pass") {
        if (got[id] === "SUCCESS") passed++;
        else wrong.push(`${name}: ${got[id] ?? "vanished"}, and must pass`);
      } else if (want === "info") {
        if (got[id] !== "INFO") wrong.push(`${name}: ${got[id] ?? "vanished"}, and must only tell`);
      } else if (typeof want?.fails === "string" && want.fails.length >= 20) {
        if (got[id] === "FAILURE" || got[id] === "WARNING") excused++;
        else wrong.push(`${name}: ${got[id] ?? "vanished"}, and is said to fail: ${want.fails}`);
      } else if (typeof want !== "string" || want.length < 20) {
        wrong.push(`${name}: no reason is given`);
      } else if (got[id] === "SUCCESS") {
        wrong.push(`${name}: passes, and is said not to apply: ${want}`);
      } else if (got[id] !== undefined && got[id] !== "SKIPPED") {
        wrong.push(`${name}: ${got[id]}, which is no way not to apply`);
      } else {
        excused++;
      }
    }
    for (const id of Object.keys(got)) if (!(id in checks)) wrong.push(`${scenario}: ${id}: ${got[id]}, of which nothing is said`);
  }
  for (const scenario of Object.keys(results)) if (!(scenario in expected)) wrong.push(`${scenario}: nothing is said of it`);
  return { passed, excused, wrong };
}

// Checks the last line of `lineal demo --json`, and that every line is JSON.
import { readFileSync } from "node:fs";

const lines = readFileSync(process.argv[2], "utf8").trim().split("\n").map((l) => JSON.parse(l));
const s = lines.at(-1);
const want = {
  "ledger.verify is valid": s.ledger?.verify === "valid",
  "at least 8 attacks": s.attacks?.length >= 8,
  "every attack refused and recorded": s.attacks?.every((a) => a.refused === true && a.record !== ""),
  "max_depth at least 3": s.max_depth >= 3,
  "calls were allowed and refused": s.calls?.allowed > 0 && s.calls?.refused > 0,
  "events came before the summary": lines.length > 10,
};
const broken = Object.entries(want).filter(([, ok]) => !ok).map(([name]) => name);
if (broken.length) {
  console.error("demo: not so: " + broken.join("; ") + "\n" + JSON.stringify(s, null, 2));
  process.exit(1);
}
console.log(`demo: ${lines.length - 1} events, ${s.attacks.length} attacks refused, ${s.ledger.entries} entries, ${s.ledger.verify}`);

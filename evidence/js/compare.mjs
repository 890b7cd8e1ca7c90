// Judges every bundle of a corpus, NAME.zip with NAME.policy, and compares with NAME.json, the report of `lineal verify`:
// result, exit code and the status of each dimension. See .ci/verifier.
//
//   node compare.mjs DIRECTORY

import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { verify } from './verify.mjs';

const dir = process.argv[2];
const seen = new Map(); // "dimension status" → how often
let compared = 0, differ = 0;
for (const file of (await readdir(dir)).filter((f) => f.endsWith('.zip')).sort()) {
  const name = join(dir, file.slice(0, -'.zip'.length));
  const want = JSON.parse(await readFile(name + '.json', 'utf8'));
  const got = await verify(new Uint8Array(await readFile(name + '.zip')), await readFile(name + '.policy', 'utf8'));
  const line = (r) => [`exit ${r.exit_code}`, r.result, ...r.findings.map((f) => `${f.dimension} ${f.status}`)];
  const theirs = line(want), ours = line(got);
  for (const s of ours) seen.set(s, (seen.get(s) ?? 0) + 1);
  const other = theirs.map((s, i) => (s === ours[i] ? '' : `${s} | ${ours[i]}`)).filter(Boolean);
  if (other.length > 0 || theirs.length !== ours.length) {
    differ++;
    console.log(`${file}: ${other.join('; ')}\n  theirs ${JSON.stringify(want.findings.flatMap((f) => f.problems ?? []))}`);
    console.log(`  ours   ${JSON.stringify(got.findings.flatMap((f) => f.problems))}`);
  }
  compared++;
}
for (const [s, n] of [...seen].sort()) console.log(`seen ${s}: ${n}`);
console.log(`compared ${compared} bundles, ${differ} differ`);
process.exitCode = differ > 0 || compared === 0 ? 1 : 0;

// The command around verify.mjs, for Node 20. Exit: 0 valid, 1 wrong, 2 not proven, 3 usage.

import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { verify } from './verify.mjs';

/** What a terminal would act on is escaped: names come from the bundle. */
const visible = (s) => s.replace(/[^\P{C}]|[\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

async function main() {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { policy: { type: 'string' }, json: { type: 'boolean' } } });
  if (positionals.length !== 1 || !values.policy) throw new Error('usage: node cli.mjs BUNDLE --policy FILE [--json]');
  const report = await verify(new Uint8Array(await readFile(positionals[0])), await readFile(values.policy, 'utf8'));
  if (values.json) console.log(JSON.stringify(report, null, 2));
  else {
    for (const f of report.findings) {
      console.log(f.dimension.padEnd(13) + f.status);
      for (const p of f.problems.slice(0, 5)) console.log(' '.repeat(13) + '- ' + visible(p));
    }
    console.log(`${'result'.padEnd(13)}${report.result.toUpperCase()}   exit ${report.exit_code}`);
  }
  return report.exit_code;
}

main().then((code) => { process.exitCode = code; }, (e) => { console.error(`lineal verifier: ${visible(e.message)}`); process.exitCode = 3; });

// The script of the page: it checks evidence in the browser, and follows what happens. Without it the page lacks
// nothing but these two. It writes text alone, never markup.

import { verify } from './verify.mjs';
import { canonical, digest, json, readContainer, text, unb64 } from './format.mjs';

// What must hold for a record to be as it was signed and logged. A selection never shows that nothing else happened.
const MUST = ['container', 'manifest', 'origin', 'signature', 'writer-keys', 'inclusion', 'checkpoint'];
const WORDS = {
  container: 'The bundle is well-formed', manifest: 'The bundle is complete as exported', origin: 'It is of a log that the policy trusts',
  signature: 'Each record is signed, unchanged', 'writer-keys': 'The writers’ keys were introduced by the manifest key',
  inclusion: 'Each record is in the tree of the log', checkpoint: 'The checkpoint of the tree is signed', witnesses: 'Witnesses cosigned it',
  sequence: 'No record of a writer is missing', completeness: 'Every record is there', chain: 'Each hop’s receipt is signed, and only narrowed',
  policies: 'The rules are those that decided', outcome: 'What followed is recorded', disclosure: 'What was disclosed is what was recorded',
  exchange: 'The other organisation’s receipt is there',
};

const get = async (url) => {
  const r = await fetch(url, { credentials: 'same-origin', cache: 'no-store' });
  if (!r.ok) throw new Error(`the server answered ${r.status}`);
  return r;
};

/** The record that the page shows, from the bundle; undefined if that holds another. */
async function shown(bundle, { record, hash }) {
  for (const f of readContainer(bundle).files) {
    if (!f.name.startsWith('records/')) continue;
    const payload = unb64(json(text(f.data)).payload), r = json(text(payload));
    if (r.record_id === record) return await digest(payload) === hash && canonical(r) === text(payload) ? r : undefined;
  }
  return undefined;
}

/** The record in words of this script's own: what the server says of it need not be believed. */
function inWords(r) {
  const callee = r.callee ? `${r.callee.tool ? r.callee.tool + ' at ' : ''}${r.callee.id}` : 'what has no route';
  return `The signed record: ${r.decision.effect}, ${r.decision.reason}; ${r.caller.claimed ?? r.caller.proven ?? 'unknown caller'} calls ${callee}, ` +
    `for person ${r.person.ref ?? 'unknown'}, by rules ${r.policy.rules.join(', ') || 'none'}, ${r.time}.`;
}

function judge(report, record) {
  const of = (d) => report.findings.find((f) => f.dimension === d);
  const wrong = report.findings.filter((f) => f.status === 'FAIL').map((f) => f.dimension);
  if (wrong.length > 0) return ['bad', `Not as it was recorded. Wrong: ${wrong.join(', ')}.`];
  if (!record) return ['bad', 'The evidence is of another record than this page shows.'];
  const open = MUST.filter((d) => of(d).status !== 'PASS');
  if (open.length > 0) return ['open', `Cannot decide. Not proven: ${open.join(', ')}.`];
  return ['good', 'Verified in this browser: signature, inclusion and checkpoint hold.'];
}

function list(table, findings) {
  const body = table.tBodies[0];
  body.replaceChildren(...findings.filter((f) => f.status !== 'n/a').map((f) => {
    const row = document.createElement('tr'), cells = [WORDS[f.dimension], f.status === 'NOT PROVEN' ? 'not proven' : f.status.toLowerCase(), f.problems.slice(0, 2).join('; ')];
    row.className = { PASS: 'pass', FAIL: 'fail' }[f.status] ?? 'open';
    row.append(...cells.map((c, i) => {
      const td = document.createElement('td');
      td.textContent = c;
      if (i === 1) td.className = row.className;
      return td;
    }));
    return row;
  }));
  table.hidden = false;
}

function evidence(section) {
  const state = section.querySelector('.state'), button = section.querySelector('#verify-run'), own = section.querySelector('#verify-policy'), says = section.querySelector('.says');
  const say = (result, words) => { section.dataset.result = result; state.textContent = words; };
  let policy;
  const run = async () => {
    button.disabled = true;
    say('none', 'Checking …');
    try {
      const bundle = new Uint8Array(await (await get(section.dataset.bundle)).arrayBuffer());
      const report = await verify(bundle, policy ?? await (await get(section.dataset.trust)).text());
      const record = await shown(bundle, section.dataset).catch(() => undefined);
      const [result, words] = judge(report, record);
      list(section.querySelector('.checks'), report.findings);
      say(result, `${words} Trusted is ${policy === undefined ? 'the policy file of this server' : 'your own policy file alone'}.`);
      if (result === 'good') says.textContent = inWords(record);
      says.hidden = result !== 'good';
    } catch (e) {
      says.hidden = true;
      say('bad', `It could not be checked: ${e.message}.`);
    }
    button.disabled = false;
  };
  button.addEventListener('click', run);
  own.addEventListener('change', async () => {
    try {
      policy = own.files.length > 0 ? await own.files[0].text() : undefined;
    } catch (e) {
      say('bad', `The policy file cannot be read: ${e.message}.`);
      return;
    }
    if (policy !== undefined) await run();
  });
  section.querySelector('.verify-do').hidden = false;
}

const section = document.querySelector('#verify');
if (section) evidence(section);

// Each look is a record, so what nobody sees is not looked at again.
if (document.body.hasAttribute('data-live')) {
  setInterval(() => { if (document.visibilityState === 'visible' && !document.querySelector(':checked[type=checkbox]')) location.reload(); }, 10000);
}

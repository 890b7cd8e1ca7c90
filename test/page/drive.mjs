// Drives the auditor's web page in Chromium against a running demo.
//
//   node drive.mjs DATA ARTEFACTS LINEAL      ends with "page: ..." and exit 0, or says what is wrong
//
// Every page must make no console error and no request elsewhere. DATA is the demo's directory, in whose log one
// record is changed at the end, behind the page's back.

import { chromium } from 'playwright-core';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const [, , data, artefacts, lineal] = process.argv;
const demo = JSON.parse(fs.readFileSync(path.join(data, 'deployment.json'), 'utf8'));
const base = demo.page, idp = demo.oidc_issuer;
fs.mkdirSync(artefacts, { recursive: true });

const wrong = [];
const hold = (ok, what) => { if (!ok) wrong.push(what); };
let looked = 0;

const profile = fs.mkdtempSync(path.join(artefacts, '.profile-'));
const launch = {
  executablePath: process.env.LINEAL_CHROMIUM ?? '/usr/bin/chromium', headless: true, ignoreHTTPSErrors: true, acceptDownloads: true,
  viewport: { width: 1280, height: 900 },
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
};
const first = await chromium.launchPersistentContext(profile, launch);

/** Watches a context: what is asked for, and what the console says. A status that is expected makes the browser complain. */
function watch(context, expected = new Map()) {
  context.on('request', (r) => {
    const url = new URL(r.url());
    if (url.origin !== base && !(r.isNavigationRequest() && url.origin === idp)) wrong.push(`a request to ${r.url()}`);
  });
  context.on('requestfailed', (r) => { if (!/ERR_ABORTED/.test(r.failure()?.errorText)) wrong.push(`${r.url()} failed: ${r.failure()?.errorText}`); });
  context.on('console', (m) => {
    const status = /status of (\d+)/.exec(m.text())?.[1];
    if (['error', 'warning'].includes(m.type()) && !(status && expected.get(m.location().url) === Number(status))) wrong.push(`console of ${m.location().url}: ${m.text()}`);
  });
  context.on('weberror', (e) => wrong.push(`script: ${e.error().message}`));
  return expected;
}

async function go(page, to, status = 200) {
  const url = new URL(to, base).href;
  page.expected?.set(url, status);
  const r = await page.goto(url);
  looked++;
  hold(r.status() === status, `${to}: ${r.status()}, want ${status}`);
  const csp = r.headers()['content-security-policy'] ?? '';
  hold(csp.startsWith("default-src 'none'") && !csp.includes('unsafe'), `${to} has the policy ${csp}`);
}

async function open(context, user) {
  const page = context.pages()[0] ?? await context.newPage();
  page.expected = watch(context);
  await go(page, '/ui/', 401);
  await page.click('a.primary');
  await page.fill('input[name=username]', user);
  await page.fill('input[name=password]', user.split('@')[0]);
  await Promise.all([page.waitForURL(base + '/ui/**'), page.click('button')]);
  return page;
}

const LOOKS = [['light', 'wide', 1280], ['dark', 'narrow', 390], ['dark', 'wide', 1280], ['light', 'narrow', 390]];

async function shots(page, name, looks = LOOKS.slice(0, 2)) {
  for (const [colorScheme, size, width] of looks) {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: path.join(artefacts, `${name}-${colorScheme}-${size}.png`), fullPage: true });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    hold(over <= 0, `${name} is ${over} px too wide at ${width}`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: 'light' });
}

const rows = (page) => page.$$eval('table.rows tbody tr', (rs) => rs.map((r) => ({
  link: r.querySelector('.time a').getAttribute('href'), verdict: r.querySelector('.verdict')?.textContent ?? '', text: r.innerText.replace(/\s+/g, ' '),
})));
const total = (page) => page.$$eval('.legend b', (bs) => bs.reduce((n, b) => n + Number(b.textContent), 0));

/** A key of the name that nobody has. */
function vkey(name) {
  const key = Buffer.concat([Buffer.from([1]), randomBytes(32)]);
  const id = createHash('sha256').update(name + '\n').update(key).digest('hex').slice(0, 8);
  return `${name}+${id}+${key.toString('base64')}`;
}

// ---- an auditor ------------------------------------------------------------------------------------------------

const page = await open(first, demo.page_auditor);
const all = await rows(page);
hold(all.length >= 25 && await total(page) === all.length, `${all.length} actions, ${await total(page)} counted`);
await shots(page, 'actions', LOOKS);
await page.keyboard.press('Tab');
hold(await page.evaluate(() => document.activeElement.className) === 'skip', 'the first stop of the keyboard is not the way to the content');

// Filters, and the permalinks that they make.
await page.selectOption('select[name=decision]', 'deny');
await page.fill('input[name=callee]', 'query');
await page.click('form.filter button');
await page.waitForURL(/decision=deny/);
const refused = await rows(page);
hold(refused.length > 0 && refused.length < all.length && refused.every((r) => r.verdict === 'refused' && r.text.includes('query')), 'the filter shows something else');
hold(await total(page) === refused.length, 'the histogram counts something else than the filter');
const again = await first.newPage();
again.expected = page.expected;
await go(again, page.url());
hold(JSON.stringify(await rows(again)) === JSON.stringify(refused), 'the permalink shows something else');
await again.close();
await page.click('.chips a[aria-label^="Remove callee"]');
hold((await rows(page)).length > refused.length && !page.url().includes('callee'), 'a filter does not go');
await go(page, '/ui/');
await page.locator('.bars svg a').first().click();
await page.waitForURL(/since=/);
const inBar = await rows(page);
hold(inBar.length > 0 && inBar.length < all.length, 'a bar of the histogram does not narrow');
await go(page, '/ui/?limit=7');
await page.click('a[rel=next]');
await page.waitForURL(/before=/);
hold((await rows(page))[0].link === all[7].link, 'the second page does not begin after the first');

// One action, its evidence, and under whose trust.
const asRun = refused.length > 0 ? all.find((r) => r.verdict === 'permitted' && r.text.includes('query')) : undefined;
await go(page, asRun.link);
hold(await page.locator('.chain svg .box').count() >= 5 && await page.locator('figure.rule pre').count() > 0, 'no chain or no rule is shown');
const judged = async (result) => {
  await page.waitForFunction(() => !['', 'none', undefined].includes(document.querySelector('#verify').dataset.result));
  const got = await page.$eval('#verify', (s) => [s.dataset.result, s.querySelector('.state').textContent]);
  hold(got[0] === result, `the evidence is ${got.join(': ')}, want ${result}`);
  return got[1];
};
await page.click('#verify-run');
const said = await judged('good');
hold(/signature, inclusion and checkpoint hold/.test(said), said);
hold(/^The signed record: permit, allowed; .*\/database calls query at /.test(await page.textContent('#verify .says')), 'the signed record is not told');
await shots(page, 'action', LOOKS);
const policy = await (await page.context().request.get(base + '/ui/trust')).text();
const mine = path.join(artefacts, 'own.policy');
fs.writeFileSync(mine, policy);
await page.$eval('#verify', (s) => { s.dataset.result = ''; });
await page.setInputFiles('#verify-policy', mine);
await judged('good');
const foreignPolicy = path.join(artefacts, 'foreign.policy');
fs.writeFileSync(foreignPolicy, policy.replace(/^log (.*)\+[0-9a-f]{8}\+\S+$/m, (_, name) => `log ${vkey(name)}`));
await page.$eval('#verify', (s) => { s.dataset.result = ''; });
await page.setInputFiles('#verify-policy', foreignPolicy);
hold(/checkpoint/.test(await judged('bad')), 'under another log key the checkpoint holds');
await page.emulateMedia({ media: 'print' });
await page.pdf({ path: path.join(artefacts, 'action.pdf'), format: 'A4' });
await page.emulateMedia({ media: 'screen' });

// Every other page.
const href = (s) => page.$eval(s, (a) => a.getAttribute('href'));
const others = { transaction: await href('a[href^="/ui/transactions/"]'), person: await href('a[href^="/ui/persons/"]'), agent: await href('a[href^="/ui/agents"]') };
const deny = all.find((r) => r.text.includes('scope exceeded'));
for (const [name, to] of Object.entries({
  ...others, refused: deny.link, entry: '/ui/entries/5', reports: '/ui/reports', report: '/ui/reports/disclosure', health: '/ui/health', me: '/ui/me',
  everything: '/ui/?kind=all', missing: '/ui/none',
})) {
  await go(page, to, name === 'missing' ? 404 : 200);
  await shots(page, name);
}
await go(page, '/ui/reports');
for (const report of await page.$$eval('.reports a', (as) => as.map((a) => a.getAttribute('href')))) await go(page, report);

// Evidence of what was chosen, verified without the page.
await go(page, '/ui/');
const boxes = page.locator('td.pick input');
for (const i of [0, 3, 9]) await boxes.nth(i).check();
const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export button')]);
const bundle = path.join(artefacts, 'evidence.zip');
await download.saveAs(bundle);
const verified = execFileSync(lineal, ['verify', bundle, '--policy', mine], { encoding: 'utf8' });
hold(/inclusion\s+PASS/.test(verified) && /result\s+VALID/.test(verified), `the exported evidence: ${verified}`);

// Following looks again by itself.
await go(page, '/ui/?live=1');
await Promise.all([page.waitForEvent('load', { timeout: 20000 }), Promise.resolve()]);

// ---- a person, and a browser without scripts --------------------------------------------------------------------

const second = await chromium.launch({ ...launch, args: launch.args });
const lee = await second.newContext({ ignoreHTTPSErrors: true, javaScriptEnabled: false });
const own = await open(lee, 'lee@example.com');
const seen = await rowsWithout(own);
hold(seen.length > 0 && seen.length < all.length, `a person sees ${seen.length} of ${all.length} actions`);
await go(own, seen[0]);
hold(await own.locator('.chain svg .box').count() > 0 && !await own.locator('#verify-run').isVisible(), 'without scripts there is no chain, or a button that does nothing');
const foreign = all.map((r) => r.link).find((l) => !seen.includes(l));
await go(own, foreign, 404);
await go(own, '/ui/reports', 403);
await go(own, '/ui/me');
await own.screenshot({ path: path.join(artefacts, 'person-own.png'), fullPage: true });
await Promise.all([own.waitForURL(base + '/ui/'), own.click('form[action="/ui/logout"] button')]).catch((e) => wrong.push(e.message));
own.expected.set(base + '/ui/', 401);
hold(await own.locator('a.primary').count() === 1, 'who signed out is still in');
await second.close();

function rowsWithout(p) { return p.locator('table.rows tbody td.time a').evaluateAll((as) => as.map((a) => a.getAttribute('href'))); }

// ---- a record that is changed behind the page --------------------------------------------------------------------

execFileSync('python3', ['-c', `
import base64, json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
(raw,) = db.execute("SELECT envelope FROM body WHERE record_id = ?", (sys.argv[2],)).fetchone()
envelope = json.loads(raw)
payload = base64.b64decode(envelope["payload"])
changed = payload.replace(b'"tool":"query"', b'"tool":"quiet"')
assert changed != payload and len(changed) == len(payload)
envelope["payload"] = base64.b64encode(changed).decode()
db.execute("UPDATE body SET envelope = ? WHERE record_id = ?", (json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode(), sys.argv[2]))
db.commit()
`, path.join(data, 'ledger.db'), asRun.link.split('/').pop()]);
await go(page, asRun.link);
hold((await page.textContent('h1')).includes('quiet'), 'the record was not changed');
await page.click('#verify-run');
const bad = await judged('bad');
hold(/signature/.test(bad) && /inclusion/.test(bad), `of the changed record the page says ${bad}`);
const colour = await page.$eval('#verify .state', (s) => getComputedStyle(s).color);
hold(/^rgb\(1\d\d, \d\d, \d\d\)$/.test(colour), `a changed record is shown in ${colour}`);
await shots(page, 'tampered');

await first.close();
fs.rmSync(profile, { recursive: true, force: true });
if (wrong.length > 0) {
  console.error(wrong.map((w) => 'page: ' + w).join('\n'));
  process.exit(1);
}
console.log(`page: ${looked} looks without a console error or a request elsewhere; evidence good, and bad where a record was changed`);

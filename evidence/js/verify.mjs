// A second verifier of evidence bundles, written from the documents and sharing nothing with the first.
//
//   node cli.mjs BUNDLE --policy FILE [--json]      exit 0 valid, 1 wrong, 2 not proven, 3 usage
//   import { verify } from './verify.mjs'              await verify(bytes, policyText)
//
// It needs Web Crypto and nothing else, so verify() also runs in a browser. It promises the same status for each
// dimension as `lineal verify`, on every bundle whose records a writer made. It does not repeat the rules of spelling
// that a token service holds grants and records to (lengths, NFC, closed lists of values): what breaks those alone,
// and is signed and canonical all the same, is found by `lineal verify` only.

import { DIMENSIONS, Frontier, attempt, b64, bad, canonical, closed, consistent, decimal, digest, hashes, included, isContainer, isDigest,
  isObject, join, json, need, noteSignedBy, parseCheckpoint, parseKey, parseNote, parsePolicy, readContainer, same, satisfied, sha256, signed, str,
  text, unb64, unb64url, untar, utf8 } from './format.mjs';
import { WITHHELD, checkReceipts, checkScope, hashOf, parseGrant, parseJWKS, rawKey, readReceipt, subsumes } from './chain.mjs';

const ALWAYS = ['container', 'manifest', 'origin', 'signature', 'writer-keys', 'inclusion', 'checkpoint'];
const KINDS = ['decision', 'outcome', 'issuance', 'revocation', 'policy', 'key', 'heartbeat', 'gap', 'erasure', 'query', 'period', 'registry'];
const ROLES = ['gateway', 'token_service', 'sequencer', 'admin'];
const PAYLOAD_TYPE = 'application/vnd.lineal.record.v1+json';
const LEEWAY = 30; // seconds
const ENVELOPE = new RegExp(`^{"payload":"([A-Za-z0-9+/=]*)","payloadType":"${PAYLOAD_TYPE.replace(/[.+]/g, '\\$&')}",` +
  '"signatures":\\[{"keyid":"([A-Za-z0-9_-]*)","sig":"([A-Za-z0-9+/=]*)"}\\]}$');
const TLOG_PROOF = /^c2sp\.org\/tlog-proof@v1\n(?:extra ([^\n]*)\n)?index ([^\n]*)((?:\n[^\n]+)*)\n\n([^]*)$/;
const bodyOf = (c) => `${c.origin}\n${c.size}\n${b64(c.root)}\n`;
/** An origin without its period. */
const familyOf = (origin) => (origin.lastIndexOf('/') > 0 ? origin.slice(0, origin.lastIndexOf('/')) : origin);

/** Judges a bundle (bytes) under a policy file (text). Throws only if the policy cannot be read. */
export async function verify(bundle, policyText) {
  const v = new Verifier(await parsePolicy(policyText));
  if (await v.open(bundle)) {
    const checks = [v.checkpoints, v.readRecords, v.pruned, v.summaries, v.writerKeys, v.signatures, v.inclusion, v.completeness, v.sequence, v.chains, v.policies,
      v.outcomes, v.disclosures, v.exchange];
    for (const check of checks) await check.call(v);
  }
  return v.report();
}

class Verifier {
  constructor(policy) {
    Object.assign(this, { policy, findings: new Map(DIMENSIONS.map((d) => [d, { status: 'NOT PROVEN', failures: 0, unproven: 0, problems: [] }])) });
    Object.assign(this, { manifest: {}, records: [], proofs: new Map(), receipts: new Map(), jwks: [], gone: new Map(), rules: new Map() });
    Object.assign(this, { values: new Map(), exchanges: new Map() });
  }

  fail(d, problem) {
    const f = this.findings.get(d);
    f.failures++;
    f.status = 'FAIL';
    f.problems.unshift(problem);
  }
  unproven(d, problem) {
    const f = this.findings.get(d);
    f.unproven++;
    f.problems.push(problem);
  }
  settle(d, status) {
    const f = this.findings.get(d);
    if (f.failures === 0 && f.unproven === 0) f.status = status;
  }
  pass(d) { this.settle(d, 'PASS'); }
  absent(d) { this.settle(d, 'n/a'); }
  /** Runs a check; what it throws is a failure of d. */
  async hold(d, where, check) {
    try { return [await check()]; } catch (e) { this.fail(d, `${where}: ${e.message}`); return undefined; }
  }

  report() {
    const range = this.manifest.mode === 'range';
    const required = (d) => ALWAYS.includes(d) || (d === 'completeness' && range) || (d === 'witnesses' && this.policy.quorum !== 'none') ||
      this.policy.require.includes(d);
    const findings = DIMENSIONS.map((dimension) => ({ dimension, ...this.findings.get(dimension), required: required(dimension) }));
    const wrong = findings.some((f) => f.status === 'FAIL'), open = findings.some((f) => f.required && f.status === 'NOT PROVEN');
    const [result, exit_code] = wrong ? ['invalid', 1] : open ? ['cannot decide', 2] : ['valid', 0];
    return { result, exit_code, origin: this.manifest.origin, mode: this.manifest.mode, records: this.records.length, findings };
  }

  // -- container and manifest

  async open(bundle) {
    const { files, err } = readContainer(bundle);
    if (err) this.fail('container', err);
    if (files.length === 0) return false;
    if (!err) await this.hold('container', 'bytes', () => need(isContainer(bundle, files), 'not as written'));
    if (new Set(files.map((f) => f.name)).size !== files.length) this.fail('container', 'a file twice');
    this.files = new Map(files.map((f) => [f.name, f.data]));
    this.pass('container');
    const read = await this.hold('manifest', 'manifest.json', () => this.readManifest(this.files.get('manifest.json') ?? bad('missing')));
    if (!read) return false;
    await this.hold('manifest', 'manifest.sig', () => this.checkManifest());
    for (const [name, hash] of Object.entries(this.manifest.files)) {
      if (!this.files.has(name) || await digest(this.files.get(name)) !== hash) this.fail('manifest', `${name} is not the file of the manifest`);
    }
    for (const [name, data] of this.files) {
      const known = name === 'manifest.json' || name === 'manifest.sig' || Object.hasOwn(this.manifest.files, name);
      if (!await this.place(name, data) || !known) this.fail('manifest', `${name} has no place`);
    }
    this.records.sort((a, b) => a.index - b.index);
    this.pass('manifest');
    if (!this.policy.logs.some((k) => k.name === this.manifest.origin)) this.fail('origin', 'no log of the policy');
    this.pass('origin');
    return true;
  }

  async readManifest(bytes) {
    const m = { files: {}, from: 0, to: 0, ...closed(json(text(bytes)), ['v', 'mode', 'origin', 'from', 'to', 'query', 'created', 'log', 'files']) };
    need(m.v === 1 && ['range', 'selected'].includes(m.mode) && m.origin && isObject(m.files), 'not a manifest');
    need(Number.isInteger(m.from) && m.from >= 0 && m.to >= m.from && (m.mode === 'range' || m.to === 0), 'range');
    need(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(m.created) && !Number.isNaN(Date.parse(m.created)), 'created');
    const k = m.log === undefined ? undefined : await parseKey(m.log);
    need(!k || (k.name === m.origin && k.alg === 1), 'log is no key of the origin');
    this.manifest = m;
  }
  async checkManifest() {
    const note = parseNote(this.files.get('manifest.sig') ?? bad('missing'));
    const hash = b64(await sha256(this.files.get('manifest.json')));
    need(note.sigs.length === 1 && note.text === `lineal/evidence-manifest/v1\n${this.manifest.origin}\n${hash}\n`, 'of another manifest');
    for (const k of this.policy.manifests) if (await noteSignedBy(note, k)) return;
    bad('signed by no manifest key of the policy');
  }

  async place(name, data) {
    const [, dir, base, ext] = /^([a-z]+)\/([^/.]*)(\.[a-z-]+)?$/.exec(name) ?? [];
    const [index] = attempt(() => decimal(base ?? ''));
    switch (dir + (ext ?? '')) {
      case 'records.json':
        if (index !== undefined) this.records.push({ index, bytes: data, leaf: await sha256(join([0], data)) });
        return index !== undefined;
      case 'proofs.tlog-proof':
        if (index !== undefined) this.proofs.set(index, data);
        return index !== undefined;
      case 'receipts.jwt': this.receipts.set(base, data); return isDigest(base);
      case 'issuers.json': this.jwks.push(data); return base === await digest(data);
      case 'policies': this.rules.set(base, data); return isDigest(base);
      case 'disclosures': this.values.set(base, data); return isDigest(base);
      case 'exchange': this.exchanges.set(base, data); return base === await digest(data);
      default: return /^(manifest\.json|manifest\.sig|checkpoints\/(first|last|consistency)|report\.(json|html)|pruned\/(leaves|record\.json|proof\.tlog-proof|kept\.json))$/.test(name);
    }
  }

  // -- checkpoints and tree

  async checkpoints() {
    const last = await this.hold('checkpoint', 'last', () => this.checkpoint('checkpoints/last'));
    if (!last) return;
    [this.last] = last;
    await this.witnesses();
    if (this.files.has('checkpoints/first')) {
      const first = await this.hold('checkpoint', 'first', () => this.checkpoint('checkpoints/first'));
      if (!first) return;
      await this.hold('checkpoint', 'consistency', async () => {
        const m = /^lineal\/consistency-proof\/v1\n((?:[^\n]+\n)*)$/.exec(text(this.files.get('checkpoints/consistency') ?? bad('missing')));
        const proof = hashes((m ?? bad('no consistency proof'))[1].split('\n').slice(0, -1));
        await consistent(first[0].size, this.last.size, first[0].root, this.last.root, proof);
      });
      [this.first] = first;
    }
    this.pass('checkpoint');
  }
  async checkpoint(name) {
    const c = parseCheckpoint(this.files.get(name) ?? bad('missing'));
    need(c.origin === this.manifest.origin, 'of another log');
    for (const k of this.policy.logs) if (k.name === c.origin && await noteSignedBy(c, k)) return c;
    return bad('not signed by the log key of the policy');
  }
  async witnesses() {
    if (this.policy.quorum === 'none') { this.absent('witnesses'); return; }
    const cosigned = new Set();
    for (const [name, k] of this.policy.witnesses) {
      const [yes] = await this.hold('witnesses', name, () => noteSignedBy(this.last, k, true)) ?? [];
      if (yes) cosigned.add(name);
    }
    if (!satisfied(this.policy, this.policy.quorum, cosigned)) this.unproven('witnesses', 'no quorum');
    this.pass('witnesses');
  }

  // -- what was pruned at the end of a period's retention: its hashes are left

  /** Counts only if a manifest key said so in a later log of the policy, of exactly this log and these records. */
  async pruned() {
    if (![...this.files.keys()].some((name) => name.startsWith('pruned/'))) return;
    const gone = await this.hold('completeness', 'records are said to be pruned', async () => {
      const leaves = this.goneLeaves();
      await this.prunedAs(leaves);
      return leaves;
    });
    if (!gone) return;
    [this.gone] = gone;
    for (const d of ['signature', 'sequence', 'completeness', 'chain', 'policies', 'outcome', 'disclosure', 'exchange']) this.unproven(d, 'records were pruned');
  }
  goneLeaves() {
    const { mode, from, to } = this.manifest, gone = new Map();
    need(mode === 'range' && from === 0 && this.last && to === this.last.size, 'not the bundle of a whole period');
    const lines = /^((?:\d+ [^\n]+\n)+)$/.exec(text(this.files.get('pruned/leaves') ?? bad('no leaves'))) ?? bad('leaves');
    let last = -1;
    for (const line of lines[1].split('\n').slice(0, -1)) {
      const [number, hash] = [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)], index = decimal(number);
      need(index > last && index < to && !this.at(index), `index ${index}`);
      gone.set(index, hashes([hash])[0]);
      last = index;
    }
    return gone;
  }
  async prunedAs(gone) {
    const e = { index: -1, bytes: this.files.get('pruned/record.json') ?? bad('no record') };
    e.leaf = await sha256(join([0], e.bytes));
    await this.readRecord(e);
    await this.byManifest(e);
    const r = e.record;
    need(r.kind === 'period' && r.op === 'prune' && r.origin === this.manifest.origin && r.previous === bodyOf(this.last), 'the record prunes something else');
    const m = TLOG_PROOF.exec(text(this.files.get('pruned/proof.tlog-proof') ?? bad('no proof'))) ?? bad('not a tlog-proof');
    if (m[1] !== undefined) unb64(m[1]);
    const c = parseCheckpoint(utf8.encode(m[4]));
    need(c.origin !== this.manifest.origin && familyOf(c.origin) === familyOf(this.manifest.origin) && r.log === familyOf(c.origin), 'another log');
    let known = false;
    for (const k of this.policy.logs) known ||= k.name === c.origin && await noteSignedBy(c, k);
    need(known, 'not signed by a log key of the policy');
    await included(e.leaf, decimal(m[2]), c.size, hashes(m[3].split('\n').slice(1)), c.root);
    const seal = this.at(this.last.size - 1)?.record ? this.at(this.last.size - 1) : bad('the seal is not in the bundle');
    need(seal.record.kind === 'period' && seal.record.op === 'seal', 'the log is not sealed');
    await this.byManifest(seal);
    need(r.time >= seal.record.retention.not_before, 'before the end of the retention');
    const list = this.files.get('pruned/kept.json') ?? bad('no list'), k = json(text(list));
    need(await digest(list) === r.state_digest && JSON.stringify({ origin: k.origin, size: k.size, kept: k.kept }) === text(list), 'another list');
    need(k.origin === this.manifest.origin && k.size === this.last.size && k.kept.every((x, i) => i === 0 || x >= k.kept[i - 1]), 'a list of another log');
    need(!k.kept.some((i) => gone.has(i)), 'a record that was not pruned');
  }
  async byManifest(e) {
    const k = this.policy.manifests.find((x) => x.keyid === e.keyid) ?? bad('not signed by a manifest key of the policy');
    need(await this.signedBy(e, k.pub), 'its signature is wrong');
  }

  at(index) {
    this.byIndex ??= new Map(this.records.map((e) => [e.index, e]));
    return this.byIndex.get(index);
  }
  proof(index) {
    const raw = this.proofs.get(index) ?? bad('its inclusion proof is missing');
    const m = TLOG_PROOF.exec(text(raw)) ?? bad('not a tlog-proof');
    if (m[1] !== undefined) unb64(m[1]);
    need(decimal(m[2]) === index && same(utf8.encode(m[4]), this.files.get('checkpoints/last')), 'a proof of something else');
    return hashes(m[3].split('\n').slice(1));
  }
  async inclusion() {
    if (!this.last) { this.unproven('inclusion', 'no checkpoint'); return; }
    const range = this.manifest.mode === 'range';
    if (this.records.length === 0 && !range) { this.absent('inclusion'); return; }
    if (range) await this.hold('inclusion', 'range', () => this.recompute());
    for (const e of this.records) {
      if (e.index >= this.last.size) this.unproven('inclusion', `record ${e.index} stands after the checkpoint`);
      else if (e.index < (range ? this.manifest.from : this.last.size)) {
        await this.hold('inclusion', `record ${e.index}`, () => included(e.leaf, e.index, this.last.size, this.proof(e.index), this.last.root));
      }
    }
    for (const index of this.proofs.keys()) if (!this.at(index)) this.fail('inclusion', `a proof for ${index}, but no record`);
    this.pass('inclusion');
  }
  async recompute() {
    const { last, first, manifest: { from } } = this;
    if (from >= last.size && from > 0) return;
    const f = from > 0 ? Frontier.before(from, last.size, this.proof(from)) : new Frontier();
    for (let index = from; ; index++) {
      if (first && index === first.size && !same(await f.root(), first.root)) this.fail('inclusion', 'another root than that of the first checkpoint');
      if (index === last.size) break;
      await f.push(this.gone.get(index) ?? (this.at(index) ?? bad(`record ${index} is missing`)).leaf);
    }
    need(same(await f.root(), last.root), 'the records do not give the root');
  }
  completeness() {
    const { mode, from, to } = this.manifest, d = 'completeness';
    if (mode !== 'range') { this.unproven(d, 'a selection never proves that these are all'); return; }
    const end = Math.max(to, this.last?.size ?? -1);
    let next = from;
    for (const e of this.records) {
      if (e.index < from) continue;
      if (e.index >= to) { this.fail(d, `record ${e.index} lies outside the range`); continue; }
      if (this.hole(next, e.index)) this.fail(d, `records [${next},${e.index}) missing`);
      next = e.index + 1;
    }
    if (this.hole(next, end)) this.fail(d, `records [${next},${end}) missing`);
    if (!this.last || to > this.last.size) this.unproven(d, 'valid prefix, end unproven');
    this.pass(d);
  }

  /** Whether an index of [a, b) is missing that was not pruned. */
  hole(a, b) {
    if (this.gone.size === 0) return a < b;
    for (let i = a; i < b; i++) if (!this.gone.has(i)) return true;
    return false;
  }

  // -- records, signatures, keys, sequence

  async readRecords() {
    for (const e of this.records) {
      await this.hold('signature', `record ${e.index}`, () => this.readRecord(e));
      const { origin } = this.manifest;
      if (e.record && origin !== e.record.log && !origin.startsWith(e.record.log + '/')) this.fail('origin', `record ${e.index} is of another log`);
    }
  }
  async readRecord(e) {
    const m = ENVELOPE.exec(text(e.bytes)) ?? bad('no envelope of a record');
    e.payload = unb64(m[1]);
    e.sig = unb64(m[3]);
    need(isDigest(m[2]) && e.sig.length === 64 && e.payload.length <= 45000, 'envelope');
    const r = json(text(e.payload));
    need(canonical(r) === text(e.payload), 'not in canonical form');
    need(r.v === 1 && KINDS.includes(r.kind) && r.gw.keyid === m[2] && Number.isInteger(r.gw.seq), 'not a record');
    need([r.record_id, r.log, r.gw.id].every((x) => str(x)) && ROLES.includes(r.gw.role) && unb64url(r.gw.run).length === 16, 'header');
    need((r.gw.prev === '' || isDigest(r.gw.prev)) && /^\d{4}(-\d\d){2}T\d\d(:\d\d){2}\.\d{3}Z$/.test(r.time), 'header');
    Object.assign(e, { keyid: m[2], record: r, hash: await digest(e.payload) });
  }
  /** The summaries say what the records say, and nothing else. */
  summaries() {
    const calls = [], at = new Map();
    for (const e of this.readable()) {
      const r = e.record;
      if (r.kind === 'outcome' && at.has(r.of) && at.get(r.of).outcome < 0) Object.assign(at.get(r.of), { outcome: e.index, status: r.status });
      if (r.kind !== 'decision') continue;
      at.set(r.record_id, { index: e.index, time: r.time, person: r.person.ref ?? '', actors: r.chain.map((h) => h.actor), caller: r.caller.proven ?? '',
        callee: r.callee?.id ?? '', tool: r.callee?.tool ?? '', effect: r.decision.effect, reason: r.decision.reason, rules: r.policy.rules,
        outcome: -1, status: '' });
      calls.push(at.get(r.record_id));
    }
    const { origin, mode } = this.manifest;
    const want = { 'report.json': canonical({ v: 1, origin, mode, calls }) + '\n', 'report.html': summaryPage(origin, calls) };
    for (const [name, content] of Object.entries(want)) {
      const got = this.files.get(name);
      if (got && !same(got, utf8.encode(content))) this.fail('manifest', `${name} says something else than the records`);
    }
  }
  /** Whether the envelope is signed by this key. */
  signedBy(e, pub) {
    const type = utf8.encode(PAYLOAD_TYPE);
    return signed('EdDSA', pub, join(utf8.encode(`DSSEv1 ${type.length} ${PAYLOAD_TYPE} ${e.payload.length} `), e.payload), e.sig);
  }
  readable(kind) { return this.records.filter((e) => e.record && (!kind || e.record.kind === kind)); }
  /** Records that a known key signed: others say nothing. */
  signed(kind) { return this.readable(kind).filter((e) => e.signed); }

  async writerKeys() {
    this.manifestKeys = new Map(this.policy.manifests.map((k) => [k.keyid, k.pub]));
    Object.assign(this, { keysById: new Map(), periods: [], issuerKeys: new Map() });
    for (const e of this.readable('key')) await this.hold('writer-keys', `key record ${e.index}`, () => this.applyKey(e));
    for (const e of this.readable()) {
      const w = e.record.gw;
      if (this.manifestKeys.has(w.keyid)) {
        if (w.role !== 'admin' && e.record.kind !== 'key') this.fail('writer-keys', `record ${e.index}: the manifest key signs as ${w.role}`);
        continue;
      }
      const p = this.periods.findLast((x) => x.writer === w.id && x.keyid === w.keyid && x.from < e.index);
      if (!p) this.fail('writer-keys', `record ${e.index}: its key was not added before it`);
      else if (p.role !== w.role) this.fail('writer-keys', `record ${e.index}: the key is for another role`);
      else if (p.until < e.index) this.fail('writer-keys', `record ${e.index}: its key had ended`);
      else if (p.since && e.record.time >= p.since) this.unproven('writer-keys', `record ${e.index}: its key was stolen`);
    }
    this.pass('writer-keys');
  }
  async applyKey(e) {
    const k = e.record, pub = this.manifestKeys.get(e.keyid) ?? bad('not signed by a manifest key of the policy');
    if (!await this.signedBy(e, pub)) return; // it says nothing
    if (k.role === 'issuer') { await this.applyIssuerKey(k, e.index); return; }
    const p = this.periods.find((x) => x.writer === k.for && x.keyid === k.keyid);
    if (k.op === 'add' && p) { // the beginning of a period says it again
      need(p.role === k.role && p.until === Infinity, 'added for two roles, or after its end');
      return;
    }
    if (k.op === 'add') {
      const raw = unb64url(k.public_key);
      need(raw.length === 32 && await digest(raw) === k.keyid, 'added under another id');
      this.keysById.set(k.keyid, raw);
      this.periods.push({ writer: k.for, keyid: k.keyid, role: k.role, from: e.index, until: Infinity });
      return;
    }
    if (!p && k.op === 'revoke') return; // it ended in a period before, and signed nothing here
    need(p, 'never added');
    p.until = Math.min(p.until, e.index);
    if (k.op === 'revoke' && k.since && !(p.since <= k.since)) p.since = k.since;
  }
  async applyIssuerKey(k, index) {
    const key = { ...await rawKey(unb64url(k.public_key)), kid: k.kid };
    need(key.thumbprint === k.kid, 'kid is not the thumbprint');
    const name = k.for + ' ' + k.kid, known = this.issuerKeys.get(name);
    if (k.op === 'add') {
      need(!known || known.until === Infinity, 'added after its end');
      if (!known) this.issuerKeys.set(name, { ...key, issuer: k.for, from: index, until: Infinity });
      return;
    }
    need(known, 'never added');
    known.until = Math.min(known.until, index);
    if (k.op === 'revoke') known.since ??= k.since;
  }

  async signatures() {
    for (const e of this.readable()) {
      const pub = this.manifestKeys.get(e.keyid) ?? this.keysById.get(e.keyid);
      e.signed = pub !== undefined && await this.signedBy(e, pub);
      if (!e.signed) this.fail('signature', `record ${e.index}: no signature of a known key`);
    }
    if (this.records.length === 0) this.absent('signature');
    else this.pass('signature');
  }

  /** Whether records of these writers may stand before the bundle. */
  continued() {
    if (this.manifest.mode !== 'range' || this.manifest.from > 0 || this.records.length === 0) return true;
    const [{ record: r, signed: counts }] = this.records;
    return counts === true && r.kind === 'period' && r.previous !== '';
  }
  sequence() {
    if (this.manifest.mode !== 'range') { this.unproven('sequence', 'a selection'); return; }
    const tails = new Map(), ids = new Set();
    const [{ record: r, index, keyid } = {}] = this.records; // does it say that the log before lost its end?
    if (index === 0 && r?.kind === 'period' && r.op === 'open' && r.cause === 'rollback' && r.origin === this.manifest.origin &&
      this.records[0].signed && this.manifestKeys.has(keyid)) this.unproven('sequence', 'opened after a rollback');
    for (const e of this.records.filter((x) => x.index >= this.manifest.from && this.gone.size === 0)) {
      if (!e.signed) { this.unproven('sequence', 'a record that cannot be read, or that no known key signed'); continue; }
      const w = e.record.gw, t = tails.get(w.id), bads = (why) => this.fail('sequence', `record ${e.index} of ${w.id}: ${why}`);
      if (ids.has(e.record.record_id)) bads('its id occurs twice');
      ids.add(e.record.record_id);
      if (!t) { if (!this.continued() && (w.seq !== 0 || w.prev !== '')) bads('not its first'); }
      else if (w.run === t.run ? w.seq !== t.seq + 1 : w.seq !== 0 || t.runs.has(w.run)) bads(`seq ${w.seq} after ${t.seq}`);
      else if (w.prev !== t.hash) bads('prev differs');
      tails.set(w.id, { run: w.run, seq: w.seq, hash: e.hash, runs: (t?.runs ?? new Set()).add(w.run) });
    }
    this.pass('sequence');
  }

  // -- delegation chains

  async chains() {
    const issued = this.signed('issuance').filter((e) => e.record.result === 'issued');
    this.byReceipt = new Map(issued.map((e) => [e.record.receipt_hash, e]));
    this.byToken = new Map(issued.map((e) => [e.record.token_hash, e]));
    await this.tokenKeys();
    const decisions = this.signed('decision').filter((e) => e.record.chain.length > 0);
    for (const e of decisions) {
      await this.hold('chain', `record ${e.index}`, () => this.stated(e));
      for (const k of e.record.chain.keys()) this.issued(e, k);
      await this.hold('chain', `record ${e.index}, receipts`, () => this.receiptsOf(e));
    }
    if (decisions.length === 0) this.absent('chain');
    else this.pass('chain');
  }
  async tokenKeys() {
    this.keys = new Map();
    this.pinned = new Set();
    const add = (issuer, key) => (this.keys.get(issuer) ?? this.keys.set(issuer, new Map()).get(issuer)).set(key.kid, key);
    for (const k of this.issuerKeys.values()) add(k.issuer, k);
    for (const set of this.jwks) {
      for (const key of (await this.hold('chain', 'issuer keys', () => parseJWKS(set)))?.[0] ?? []) {
        for (const i of this.policy.issuers.filter((x) => x.thumbprint === key.thumbprint)) {
          if (!this.issuerKeys.has(i.url + ' ' + key.kid)) add(i.url, key);
          this.pinned.add(i.url + ' ' + key.kid);
        }
      }
    }
  }
  /** The chain as the record states it: each hop within the one before. */
  stated(e) {
    const r = e.record, { effect, scope, reason } = r.decision;
    if (effect !== 'permit' && (scope === 'not_evaluated' || reason === 'limit_exceeded')) return;
    let parent;
    for (const [k, h] of r.chain.entries()) {
      const [grant, err] = attempt(() => parseGrant(h.authorization_details, k === 0));
      if (err === WITHHELD) { this.unproven('chain', `record ${e.index}: ${err}`); return; }
      need(!err, err);
      checkScope(h.scope, grant);
      if (k > 0) {
        const p = r.chain[k - 1];
        subsumes(parent, grant);
        need(h.iat >= p.iat && h.iat < p.exp && h.exp <= p.exp, 'not within the time of the hop before');
      }
      parent = grant;
    }
    if (effect !== 'permit') return;
    const last = r.chain.at(-1), at = Math.floor(Date.parse(r.time) / 1000);
    need(at >= last.iat - LEEWAY && at <= last.exp + LEEWAY && r.caller.claimed === last.actor, 'not in force, or of another caller');
  }
  /** The issuance record of hop k says the same, and stands before the decision. */
  issued(e, k) {
    const r = e.record, h = r.chain[k], wrong = (why) => this.fail('chain', `record ${e.index}, hop ${k}: ${why}`);
    const by = k === r.chain.length - 1 ? this.byToken.get(h.token_hash) : this.byReceipt.get(h.receipt_hash);
    if (!by) {
      const ours = this.policy.issuers.some((i) => i.url === r.issuer);
      if (this.manifest.mode === 'range' && !this.continued() && ours) wrong('never issued in this log');
      else this.unproven('chain', `record ${e.index}, hop ${k}: its issuance record is not in the bundle`);
      return;
    }
    const i = by.record, parent = k > 0 && this.byReceipt.get(r.chain[k - 1].receipt_hash);
    if (by.index >= e.index) wrong('issued after its use');
    else if (i.actor !== h.actor || i.aud !== h.aud || i.exp !== h.exp || i.person.ref !== r.person.ref || i.txn !== r.txn) wrong('not as issued');
    else if (r.decision.reason !== 'limit_exceeded' && canonical(i.granted) !== canonical(h.authorization_details)) wrong('another authority');
    else if (parent && i.parent_hash !== parent.record.token_hash) wrong('issued for another parent');
  }
  /** The receipts of the chain say the same as the record. */
  async receiptsOf(e) {
    const r = e.record, open = (why) => this.unproven('chain', `record ${e.index}: ${why}`), keys = this.keys.get(r.issuer);
    if (!keys) return open('no key of the issuer');
    const rs = [];
    for (const [k, h] of r.chain.entries()) {
      const last = k === r.chain.length - 1, hash = last ? this.byToken.get(h.token_hash)?.record.receipt_hash : h.receipt_hash;
      if (!this.receipts.has(hash)) return open(`the receipt of hop ${k} is not known`);
      const raw = text(this.receipts.get(hash));
      need(await hashOf(raw) === hash, 'a receipt under the hash of another');
      rs.push(raw);
    }
    for (const k of rs.keys()) rs[k] = await readReceipt(rs[k], r.issuer, keys);
    checkReceipts(rs, r.chain.at(-1).token_hash);
    for (const x of rs) {
      const name = r.issuer + ' ' + x.kid, key = this.issuerKeys.get(name), by = this.byReceipt.get(x.hash);
      if (!key || !by) continue;
      need(by.index > key.from || this.pinned.has(name), 'issued before its key was added');
      if (key.since && by.record.time >= key.since) return open('its key was revoked as stolen');
      need(by.index <= key.until, 'issued after its key had ended');
    }
    need(rs[0].del.sub === r.person.ref && rs[0].txn === r.txn, 'another person or transaction');
    for (const [k, h] of r.chain.entries()) {
      const d = rs[k].del, [, err] = attempt(() => parseGrant(h.authorization_details, k === 0));
      const details = err === WITHHELD || r.decision.reason === 'limit_exceeded' ? h.authorization_details : d.authorization_details;
      const hash = k === r.chain.length - 1 ? { token_hash: h.token_hash } : { receipt_hash: h.receipt_hash };
      need(canonical({ ...hash, actor: d.act.sub, aud: d.aud, scope: d.scope ?? '', authorization_details: details, iat: d.iat, exp: d.exp }) ===
        canonical(h), `hop ${k} is not what its receipt says`);
    }
    return undefined;
  }

  // -- what records name by digest

  async policies() {
    const named = new Set(this.signed('decision').map((e) => e.record.policy.bundle_digest));
    for (const d of named) if (!this.rules.has(d)) this.unproven('policies', `the rules ${d} are not in the bundle`);
    for (const [d, bytes] of this.rules) await this.hold('policies', d, () => checkRules(d, bytes));
    if (named.size === 0 && this.rules.size === 0) this.absent('policies');
    else this.pass('policies');
  }
  outcomes() {
    const decisions = new Map(), known = new Set();
    for (const e of this.signed()) {
      const r = e.record, d = decisions.get(r.of), wrong = (why) => this.fail('outcome', `record ${e.index}: ${why}`);
      if (r.kind === 'decision') decisions.set(r.record_id, r);
      if (r.kind !== 'outcome') continue;
      if (r.status !== 'unknown') known.add(r.of);
      if (!d && this.manifest.mode === 'range' && !this.continued()) wrong('its decision does not stand before it');
      else if (!d) this.unproven('outcome', `the decision of outcome ${e.index} is not in the bundle`);
      else if (d.call_id !== r.call_id) wrong('the outcome of another call');
      else if (r.forwarded && d.decision.effect !== 'permit') wrong('forwarded though refused');
    }
    const permits = [...decisions.values()].filter((r) => r.decision.effect === 'permit');
    if (permits.length === 0) { this.absent('outcome'); return; }
    if (permits.some((r) => !known.has(r.record_id))) this.unproven('outcome', 'what followed permitted calls is not known');
    this.pass('outcome');
  }
  async disclosures() {
    const named = new Set(this.signed('decision').flatMap((e) => e.record.sd));
    let shown = 0;
    for (const [d, bytes] of this.values) {
      const ok = await this.hold('disclosure', d, async () => {
        const parts = json(text(unb64url(text(bytes))));
        need(Array.isArray(parts) && parts.length === 3 && str(parts[0]).length >= 22 && str(parts[1]), 'not salt, name and value');
        need(await digest(bytes) === d && named.has(d), 'another value, or of no record');
      });
      if (ok) shown++;
    }
    if (named.size === 0 && this.values.size === 0) { this.absent('disclosure'); return; }
    if (named.size > shown) this.unproven('disclosure', `${named.size - shown} values erased or not disclosed`);
    this.pass('disclosure');
  }
  exchange() {
    const caller = new Set();
    let n = 0, missing = 0;
    const want = (hash) => { if (!this.exchanges.has(hash)) missing++; };
    for (const e of this.records.filter((x) => x.signed)) {
      const r = e.record;
      if (r.kind === 'decision' && r.exchange?.role === 'callee') { n++; want(r.exchange.statement_hash); }
      else if (r.kind === 'decision' && r.exchange && r.decision.effect === 'permit') { n++; caller.add(r.record_id); }
      else if (r.kind === 'outcome' && caller.has(r.of) && (r.peer || !r.forwarded)) {
        caller.delete(r.of);
        if (r.peer) want(r.peer.exchange_receipt_hash);
      }
    }
    missing += caller.size;
    if (n === 0) this.absent('exchange');
    else if (missing > 0) this.unproven('exchange', `${missing} exchange receipts missing`);
    else this.pass('exchange');
  }
}

const markup = (s) => s.replace(/[^ -~]|[&<>"'\\]/gu, (c) => `&#x${(/[ -~]/.test(c) ? c.codePointAt(0) : 0xfffd).toString(16)};`);
const summaryPage = (origin, calls) => '<!doctype html><meta charset="utf-8"><title>Evidence</title><style>body{font:14px sans-serif}' +
  'table{border-collapse:collapse}td,th{border:1px solid #999;padding:2px 6px;text-align:left}</style>\n' +
  `<h1>${markup(origin)}</h1>\n<p>Numbers are indexes of the log. Verify the bundle before you believe this page.</p>\n<table>\n` +
  '<tr><th>index<th>time<th>person<th>agents<th>caller<th>callee<th>tool<th>effect<th>reason<th>rules<th>outcome<th>status\n' +
  calls.map((c) => '<tr>' + [String(c.index), c.time, c.person, c.actors.join(' > '), c.caller, c.callee, c.tool, c.effect, c.reason,
    c.rules.join(' '), c.outcome < 0 ? '' : String(c.outcome), c.status].map((x) => '<td>' + markup(x)).join('') + '\n').join('') + '</table>\n';

/** A policy bundle is its manifest, or a tar archive of the manifest and exactly the files that it names. */
async function checkRules(want, bytes) {
  if (await digest(bytes) === want) return;
  const files = untar(bytes), manifest = files.get('manifest.json');
  need(manifest && await digest(manifest) === want, 'the hash of its manifest is another one');
  files.delete('manifest.json');
  files.delete('manifest.dsse.json');
  for (const f of json(text(manifest)).files ?? []) {
    need(files.has(f.path) && await digest(files.get(f.path)) === f.sha256, `${f.path} is another file`);
    files.delete(f.path);
  }
  need(files.size === 0, 'files that its manifest does not name');
}

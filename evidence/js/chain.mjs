// Delegation chains in an evidence bundle: grants that may only narrow, and the receipts that say so. See verify.mjs.

import { attempt, bad, b64url, canonical, closed, digest, isObject, join, json, need, signed, str, text, unb64url, utf8 } from './format.mjs';

// ---- grants: authority may only narrow (scope-and-policy.md §2) ------------------------------------------------

const ROOTS = {
  'mcp:tools/call': ['mcp:call', 'args mcp urls sql'], 'mcp:tasks/use': ['mcp:call', 'mcp'], 'mcp:resources/read': ['mcp:read', 'mcp uri'],
  'mcp:prompts/get': ['mcp:prompt', 'args mcp urls'], 'a2a:send': ['a2a:send', 'a2a'], 'a2a:task': ['a2a:task', 'a2a'],
  'a2a:cancel': ['a2a:task', 'a2a'], 'a2a:push': ['a2a:push', 'a2a'], 'llm:chat': ['llm:chat', 'llm'], 'llm:embed': ['llm:embed', 'llm'],
  'http:GET': ['http:read', 'http urls'], 'http:HEAD': ['http:read', 'http urls'], 'http:POST': ['http:write', 'args http urls sql'],
  'http:PUT': ['http:write', 'args http urls sql'], 'http:PATCH': ['http:write', 'args http urls sql'], 'http:DELETE': ['http:write', 'http urls'],
};
const GUARDED = ['/sql/tables', '/llm/hosted_tools', '/llm/hosted_hosts', '/llm/fetch_hosts', '/a2a/fetch_hosts', '/a2a/push/host',
  '/mcp/input_responses'];
const OPS = { any: '', absent: '', one_of: 'values', prefix: 'value', path: 'value', host: 'value', range: 'min max min_exclusive max_exclusive',
  cidr: 'prefixes', each: 'max_items of', fields: 'keys' };
export const WITHHELD = 'a value was withheld';
const within = (a, b) => a.every((x) => b.includes(x));

function hasWithheld(v) {
  if (typeof v !== 'object') return false;
  return Object.hasOwn(v, '$sd') || Object.values(v).some(hasWithheld);
}
const strings = (v, least) => { need(Array.isArray(v) && v.length >= least && v.every((x) => typeof x === 'string'), 'no list of strings'); return v; };

/** Reads authorization_details in the form of records; root says that they are of hop 0. */
export function parseGrant(details, root) {
  if (hasWithheld(details)) bad(WITHHELD);
  need(Array.isArray(details) && details.length > 0 && details.length <= 32, 'no details');
  return details.map((d) => {
    closed(d, ['type', 'locations', 'actions', 'names', 'args', 'where', 'from']);
    need(d.type === 'urn:lineal:call:v1', 'type of details');
    for (const k of ['locations', 'actions', 'names']) strings(d[k], 1);
    need(d.actions.every((a) => Object.hasOwn(ROOTS, a) && a.split(':')[0] === d.actions[0].split(':')[0]), 'actions');
    need(root ? d.from === undefined : Number.isInteger(d.from) && d.from >= 0, 'from');
    const roots = d.actions.flatMap((a) => ROOTS[a][1].split(' '));
    const where = { ...Object.fromEntries(GUARDED.map((g) => [g, { op: 'absent' }])), ...(d.where ?? {}) };
    for (const [path, c] of Object.entries(d.where ?? {})) {
      need(path[0] === '/' && roots.includes(path.split('/')[1]), `path ${path}`);
      parseConstraint(c);
    }
    const fields = where['/args']?.op === 'fields';
    need(roots.includes('args') ? d.args === (fields ? 'closed' : 'open') : d.args === undefined, 'args');
    return { ...d, where };
  });
}
function parseConstraint(c) {
  need(isObject(c) && Object.hasOwn(OPS, c.op), 'operator');
  closed(c, ['op', ...(c.op === 'absent' ? [] : ['optional']), ...OPS[c.op].split(' ')]);
  if (c.op === 'one_of') need(Array.isArray(c.values) && c.values.length > 0, 'values');
  if (['prefix', 'path', 'host'].includes(c.op)) need(typeof c.value === 'string', 'value');
  if (c.op === 'range') for (const end of ['min', 'max']) if (c[end] !== undefined) number(c[end]);
  if (c.op === 'cidr') strings(c.prefixes, 1).forEach(network);
  if (c.op === 'fields') strings(c.keys, 0);
  if (c.op === 'each') { need(Number.isInteger(c.max_items) && !c.of?.optional && c.of?.op !== 'absent', 'each'); parseConstraint(c.of); }
}
/** An exact decimal number: [coefficient, exponent]. */
function number(v) {
  const m = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(typeof v === 'number' ? String(v) : isObject(v) ? v.$num ?? '' : '');
  const e = m ? Number(m[4] ?? 0) - (m[3] ?? '').length : 0;
  return m && Math.abs(e) <= 700 ? [BigInt(m[1] + m[2] + (m[3] ?? '')), e] : bad('no number');
}
function compare(a, b) {
  const [[x, ex], [y, ey]] = [number(a), number(b)], e = Math.min(ex, ey);
  const d = x * 10n ** BigInt(ex - e) - y * 10n ** BigInt(ey - e);
  return d > 0n ? 1 : d < 0n ? -1 : 0;
}
/** An address prefix as [bits of the family, length, address]. */
function network(s) {
  const [addr, len] = s.split('/'), v6 = addr.includes(':');
  const groups = (t) => (t === '' ? [] : t.split(':').map((g) => parseInt(g, 16)));
  const [head, tail] = addr.split('::').map(groups);
  const parts = !v6 ? addr.split('.').map(Number) : tail === undefined ? head : [...head, ...Array(8 - head.length - tail.length).fill(0), ...tail];
  const bits = v6 ? 128 : 32, n = len === undefined ? bits : Number(len), width = v6 ? 16n : 8n;
  need(parts.length === (v6 ? 8 : 4) && parts.every((x) => x >= 0 && x < 2 ** Number(width)) && n >= 0 && n <= bits, 'no network');
  return [bits, n, parts.reduce((a, x) => (a << width) | BigInt(x), 0n)];
}
const inside = ([bits, n, addr], nets) => nets.map(network).some(([b, m, a]) => b === bits && m <= n && addr >> BigInt(bits - m) === a >> BigInt(bits - m));
const under = (base, s) => base === '/' || s === base || s.startsWith(base + '/');
const normalPath = (s) => s === '/' || (s[0] === '/' && !/[%\\\0]/.test(s) && s.slice(1).split('/').every((x) => !['', '.', '..'].includes(x)));
const validHost = (s) => s.length <= 253 && s.split('.').every((l) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(l));
const subdomain = (base, s) => s.length > base.length + 1 && s.endsWith('.' + base);

/** Whether the value v is in the set that c describes. */
function matches(c, v) {
  const isNumber = typeof v === 'number' || (isObject(v) && Object.hasOwn(v, '$num'));
  switch (c.op) {
    case 'any': return true;
    case 'one_of': return c.values.some((w) => canonical(w) === canonical(v) || (isNumber && !attempt(() => number(w))[1] && compare(v, w) === 0));
    case 'prefix': return typeof v === 'string' && v.startsWith(c.value);
    case 'path': return typeof v === 'string' && normalPath(v) && under(c.value, v);
    case 'host': return typeof v === 'string' && validHost(v) && (c.value.startsWith('*.') ? subdomain(c.value.slice(2), v) : v === c.value);
    case 'cidr': return typeof v === 'string' && !attempt(() => network(v))[1] && inside(network(v), c.prefixes);
    case 'range': return isNumber && endWithin({ min: v, max: v }, c);
    default: return false;
  }
}
const endWithin = (c, p) => [['min', 1], ['max', -1]].every(([end, sign]) => {
  if (p[end] === undefined) return true;
  const k = c[end] === undefined ? -1 : sign * compare(c[end], p[end]);
  return k > 0 || (k === 0 && (c[end + '_exclusive'] === true || p[end + '_exclusive'] !== true));
});
function narrower(c, p) {
  if (c.optional && !p.optional && p.op !== 'absent') return false;
  if (c.op === 'absent') return p.op === 'absent' || p.optional === true;
  if (c.op === 'one_of') return c.values.every((v) => matches(p, v));
  if (p.op === 'any') return true;
  if (p.op !== c.op) return false;
  const wild = c.op === 'host' && p.value.startsWith('*.');
  switch (c.op) {
    case 'prefix': return c.value.startsWith(p.value);
    case 'path': return under(p.value, c.value);
    case 'host': return c.value === p.value || (wild && subdomain(p.value.slice(2), c.value.replace(/^\*\./, '')));
    case 'range': return endWithin(c, p);
    case 'cidr': return c.prefixes.every((n) => inside(network(n), p.prefixes));
    case 'each': return c.max_items <= p.max_items && (c.max_items === 0 || narrower(c.of, p.of));
    case 'fields': return within(c.keys, p.keys);
    default: return false;
  }
}
export function subsumes(parent, child) {
  for (const c of child) {
    const p = parent[c.from] ?? bad('from names no detail of the parent');
    for (const k of ['locations', 'actions', 'names']) need(within(c[k], p[k]), `more ${k} than the parent`);
    need(c.args !== 'open' || p.args === 'open', 'closed arguments opened');
    for (const [path, pc] of Object.entries(p.where)) {
      need(Object.hasOwn(c.where, path) && narrower(c.where[path], pc), `${path} is not within the parent`);
    }
  }
}
const verbs = (grant) => [...new Set(grant.flatMap((d) => d.actions.map((a) => ROOTS[a][0])))].sort().join(' ');
export const checkScope = (scope, grant) => need(scope.split(' ').sort().join(' ') === verbs(grant), 'scope is not what the details imply');

// ---- receipts (tokens.md §4, §6) --------------------------------------------------------------------------------

export const hashOf = (jws) => digest(utf8.encode(jws.slice(0, jws.lastIndexOf('.'))));

export async function readReceipt(raw, issuer, keys) {
  const parts = raw.split('.').map(unb64url);
  need(parts.length === 3 && raw.length <= 16384, 'not a compact JWS');
  const head = closed(json(text(parts[0])), ['alg', 'kid', 'typ']), r = json(text(parts[1]));
  need(head.typ === 'delegation-receipt+jwt', 'typ');
  closed(r, ['iss', 'txn', 'del', 'tok_hash', 'par_hash', 'rcpt_hash', 'req', 'pol', 'login', 'grant']);
  const key = keys.get(head.kid) ?? bad('unknown key');
  const input = utf8.encode(raw.slice(0, raw.lastIndexOf('.')));
  need(r.iss === issuer && key.alg === head.alg && await signed(key.alg, key.raw, input, parts[2]), 'signature of a receipt');
  need((key.nbf ?? 0) <= r.del.iat && r.del.iat <= (key.exp ?? Infinity), 'the key was not in use');
  const actors = [];
  for (let a = r.del.act; a !== undefined; a = a.act) actors.push([str(a.iss), str(a.sub), str(a.sub_profile)]);
  for (const k of ['txn', 'tok_hash']) str(r[k]);
  for (const k of ['aud', 'sub', 'jti']) str(r.del[k]);
  for (const k of ['iat', 'exp', 'del_depth', 'del_max_depth']) need(Number.isInteger(r.del[k]), k);
  return { ...r, kid: head.kid, hash: await hashOf(raw), actors, grantOf: parseGrant(r.del.authorization_details, r.del.del_depth === 0) };
}

/** The rules V1 to V11 over the receipts of all hops. */
export function checkReceipts(rs, leafHash) {
  need(rs.length <= 8 && rs.at(-1).tok_hash === leafHash, 'the last receipt is of another token');
  const ids = new Set(rs.map((r) => r.del.jti));
  need(ids.size === rs.length, 'jti twice');
  rs.forEach((r, k) => {
    const d = r.del, p = rs[k - 1];
    need(d.del_depth === k && d.del_max_depth < 8 && k <= d.del_max_depth, 'depth');
    need(p ? r.rcpt_hash === p.hash && r.par_hash === p.tok_hash : r.rcpt_hash === undefined && r.par_hash === undefined, 'link');
    need((r.login !== undefined) + (r.grant !== undefined) === (k === 0 ? 1 : 0), 'login');
    need(r.txn === rs[0].txn && d.sub === rs[0].del.sub && d.sub_profile === rs[0].del.sub_profile, 'person');
    checkScope(d.scope ?? '', r.grantOf);
    need(d.exp > d.iat && r.actors.length > 0 && (p || r.grant || r.actors.length === 1), 'times or actors');
    if (!p) return;
    const may = p.del.may_act ?? bad('the parent lets nobody act');
    need(r.actors[0][0] === may.iss && r.actors[0][1] === may.sub && canonical(r.actors.slice(1)) === canonical(p.actors), 'actor');
    subsumes(p.grantOf, r.grantOf);
    need(d.iat >= p.del.iat && d.iat < p.del.exp && d.exp <= p.del.exp && d.del_max_depth <= p.del.del_max_depth, 'times or depth');
  });
}

export async function rawKey(raw) {
  const ed = raw.length === 32;
  need(ed || (raw.length === 65 && raw[0] === 4), 'no key that signs tokens');
  const part = (from) => b64url(raw.subarray(from, from + 32));
  const jwk = ed ? { crv: 'Ed25519', kty: 'OKP', x: part(0) } : { crv: 'P-256', kty: 'EC', x: part(1), y: part(33) };
  return { raw, alg: ed ? 'EdDSA' : 'ES256', thumbprint: await digest(utf8.encode(canonical(jwk))) };
}
export async function parseJWKS(bytes) {
  const keys = [], seen = new Set();
  for (const k of json(text(bytes)).keys) {
    for (const secret of ['d', 'k', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'priv']) need(!Object.hasOwn(k, secret), 'a private member');
    need(!seen.has(str(k.kid)), 'kid twice');
    seen.add(k.kid);
    const ed = k.kty === 'OKP' && k.crv === 'Ed25519', ec = k.kty === 'EC' && k.crv === 'P-256';
    if (!(ed || ec) || (k.use ?? 'sig') !== 'sig') continue;
    const key = await rawKey(ed ? unb64url(k.x) : join([4], unb64url(k.x), unb64url(k.y)));
    need((k.alg ?? key.alg) === key.alg, 'alg');
    keys.push({ ...key, kid: k.kid, nbf: k.nbf, exp: k.exp });
  }
  return keys;
}

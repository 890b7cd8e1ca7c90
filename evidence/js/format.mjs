// What an evidence bundle is made of: JSON, container, signed notes, policy file, tree. See verify.mjs.

export const DIMENSIONS = ['container', 'manifest', 'origin', 'signature', 'writer-keys', 'inclusion', 'checkpoint', 'witnesses',
  'sequence', 'completeness', 'chain', 'policies', 'outcome', 'disclosure', 'exchange'];
export const utf8 = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const subtle = globalThis.crypto.subtle;

/** Thrown for what cannot be read; its message says why. */
export class Bad extends Error {}
export const bad = (why) => { throw new Bad(why); };
export const need = (ok, why) => { if (!ok) bad(why); };
export const attempt = (f) => { try { return [f(), null]; } catch (e) { return [undefined, e.message]; } };

// ---- bytes, base64, hashes -------------------------------------------------------------------------------------

export const text = (bytes) => { try { return decoder.decode(bytes); } catch { return bad('not UTF-8'); } };
export const latin = (bytes) => { let s = ''; for (const b of bytes) s += String.fromCharCode(b); return s; };
export const fromLatin = (s) => Uint8Array.from(s, (c) => c.charCodeAt(0));
export const b64 = (bytes) => btoa(latin(bytes));
export const b64url = (bytes) => b64(bytes).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
export function join(...parts) {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  parts.reduce((at, p) => { out.set(p, at); return at + p.length; }, 0);
  return out;
}
export const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

/** Standard base64 in its one spelling. */
export function unb64(s) {
  const [raw, err] = attempt(() => fromLatin(atob(s)));
  return !err && b64(raw) === s ? raw : bad('not canonical base64');
}
export function unb64url(s) {
  const [raw, err] = attempt(() => fromLatin(atob(s.replace(/-/g, '+').replace(/_/g, '/'))));
  return !err && b64url(raw) === s ? raw : bad('not canonical base64url');
}
export const isDigest = (s) => typeof s === 'string' && s.length === 43 && !attempt(() => unb64url(s))[1];
export const sha256 = async (bytes) => new Uint8Array(await subtle.digest('SHA-256', bytes));
export const digest = async (bytes) => b64url(await sha256(bytes));
export async function signed(alg, publicKey, message, sig) {
  try {
    const name = alg === 'ES256' ? { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } : { name: 'Ed25519' };
    return await subtle.verify(name, await subtle.importKey('raw', publicKey, name, false, ['verify']), sig, message);
  } catch { return false; }
}
export function decimal(s) {
  need(/^(0|[1-9]\d*)$/.test(s) && Number.isSafeInteger(Number(s)), 'not a canonical decimal number');
  return Number(s);
}

// ---- JSON: duplicates refused, numbers exact ------------------------------------------------------------------

/** Reads JSON. A number that is no integer below 2^53 becomes {"$num": literal}, null {"$null": true}: as in records. */
export function json(source) {
  let at = 0;
  const space = () => { while (' \t\r\n'.includes(source[at]) && at < source.length) at++; };
  const token = (re, why) => { re.lastIndex = at; const m = re.exec(source); need(m, why); at += m[0].length; return m[0]; };
  const string = () => {
    const s = JSON.parse(token(/"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y, 'no string'));
    need(s.isWellFormed ? s.isWellFormed() : !/\p{Cs}/u.test(s), 'lone surrogate');
    return s;
  };
  const value = (depth) => {
    need(depth < 64, 'nested too deep');
    space();
    if (source[at] === '"') return string();
    if (source[at] === '[') return list(depth, ']', (a) => { a.push(value(depth + 1)); }, []);
    if (source[at] === '{') {
      return list(depth, '}', (o) => {
        space();
        const name = string();
        space();
        token(/:/y, 'no colon');
        need(!Object.hasOwn(o, name), 'a member twice');
        Object.defineProperty(o, name, { value: value(depth + 1), enumerable: true });
      }, {});
    }
    const word = token(/true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y, 'no value');
    if (word === 'null') return { $null: true };
    if (word === 'true' || word === 'false') return word === 'true';
    return Number.isSafeInteger(Number(word)) && String(Number(word)) === word ? Number(word) : { $num: word };
  };
  const list = (depth, end, item, into) => {
    at++;
    space();
    if (source[at] === end) { at++; return into; }
    for (;;) {
      item(into);
      space();
      if (token(/[,\]}]/y, 'no end') !== ',') { need(source[at - 1] === end, 'another end'); return into; }
    }
  };
  const v = value(0);
  space();
  need(at === source.length, 'more than one value');
  return v;
}

/** RFC 8785, for values without numbers that are no safe integers. */
export function canonical(v) {
  if (Array.isArray(v)) return '[' + v.map(canonical).join(',') + ']';
  if (typeof v !== 'object') return JSON.stringify(v);
  return '{' + Object.keys(v).sort().map((k) => JSON.stringify(k) + ':' + canonical(v[k])).join(',') + '}';
}
export const isObject = (v) => typeof v === 'object' && !Array.isArray(v);
export const closed = (o, names) => { need(isObject(o), 'no object'); for (const k of Object.keys(o)) need(names.includes(k), `member ${k}`); return o; };
export const str = (v) => (typeof v === 'string' && v !== '' ? v : bad('no string'));

// ---- container: a ZIP with one spelling ------------------------------------------------------------------------

export function readContainer(b) {
  const view = new DataView(b.buffer, b.byteOffset, b.byteLength);
  const files = [];
  let at = 0;
  while (at + 30 <= b.length && view.getUint32(at, true) === 0x04034b50) {
    const name = at + 30, data = name + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
    const end = data + view.getUint32(at + 18, true);
    if (end > b.length) return { files, err: 'a file runs past the end' };
    files.push({ name: latin(b.subarray(name, name + view.getUint16(at + 26, true))), data: b.subarray(data, end) });
    at = end;
  }
  if (files.length === 0) return { files, err: 'not an evidence bundle' };
  const more = at + 4 <= b.length && view.getUint32(at, true) === 0x02014b50;
  return { files, err: more ? null : 'no further file and no directory' };
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});
const crc32 = (b) => { let c = ~0; for (const x of b) c = crcTable[(c ^ x) & 255] ^ (c >>> 8); return ~c >>> 0; };
const le = (widths, values) => values.flatMap((v, i) => Array.from({ length: widths[i] }, (_, k) => Math.floor(v / 2 ** (8 * k)) % 256));

/** The bytes that the files must have made. */
function writeContainer(files) {
  const rank = (f) => ['manifest.json', 'manifest.sig'].indexOf(f.name) >>> 0;
  const sorted = [...files].sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const parts = [], central = [];
  let offset = 0, size = 0;
  for (const [i, f] of sorted.entries()) {
    need(f.name.length > 0 && f.name.length <= 255 && (i === 0 || sorted[i - 1].name !== f.name), 'a bad name');
    const name = fromLatin(f.name);
    const common = le([2, 2, 2, 2, 4, 4, 4, 2, 2], [0, 0, 0, 33, crc32(f.data), f.data.length, f.data.length, name.length, 0]);
    parts.push([...le([4, 2], [0x04034b50, 20])].concat(common), name, f.data);
    central.push([...le([4, 2, 2], [0x02014b50, 3 * 256 + 20, 20]), ...common, ...le([2, 2, 2, 4, 4], [0, 0, 0, 0o100644 * 65536, offset])], name);
    offset += 30 + name.length + f.data.length;
    size += 46 + name.length;
  }
  const n = sorted.length;
  const end64 = n < 65535 ? [] : le([4, 8, 2, 2, 4, 4, 8, 8, 8, 8, 4, 4, 8, 4],
    [0x06064b50, 44, 45, 45, 0, 0, n, n, size, offset, 0x07064b50, 0, offset + size, 1]);
  const short = Math.min(n, 65535);
  return [...parts, ...central, end64, le([4, 4, 2, 2, 4, 4, 2], [0x06054b50, 0, short, short, size, offset, 0])];
}
export function isContainer(b, files) {
  let at = 0;
  for (const part of writeContainer(files)) for (const x of part) if (b[at++] !== x) return false;
  return at === b.length;
}

/** Regular files of a tar archive. */
export function untar(b) {
  const files = new Map();
  for (let at = 0; at + 512 <= b.length && b[at] !== 0;) {
    const field = (from, n) => latin(b.subarray(at + from, at + from + n)).split('\0')[0];
    const size = parseInt(field(124, 12).trim(), 8), prefix = field(345, 155), name = (prefix ? prefix + '/' : '') + field(0, 100);
    need(size >= 0 && at + 512 + size <= b.length && '0\0'.includes(latin([b[at + 156]])) && !files.has(name), 'not such an archive');
    files.set(name, b.subarray(at + 512, at + 512 + size));
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return files;
}

// ---- C2SP signed notes, checkpoints, policies ------------------------------------------------------------------

const validName = (s) => s !== '' && !/[+\s\u0000-\u001f\u007f\u0085]/u.test(s);

export async function parseKey(vkey) {
  const m = /^([^+]*)\+([^+]*)\+(.*)$/s.exec(vkey) ?? bad('vkey is not <name>+<id>+<key>');
  const raw = unb64(m[3]);
  need(raw.length === 33 && (raw[0] === 1 || raw[0] === 4) && validName(m[1]), 'vkey is of no known type');
  const id = (await sha256(join(utf8.encode(m[1] + '\n'), raw))).subarray(0, 4);
  need([...id].map((x) => x.toString(16).padStart(2, '0')).join('') === m[2], 'key id is another');
  return { name: m[1], id, alg: raw[0], pub: raw.subarray(1), keyid: await digest(raw.subarray(1)) };
}

export function parseNote(bytes) {
  const s = text(bytes);
  need(bytes.length <= 1 << 20 && !/[\u0000-\u0009\u000b-\u001f]/.test(s), 'control character');
  const cut = s.lastIndexOf('\n\n');
  need(cut >= 0 && s.endsWith('\n'), 'no signature block');
  const lines = s.slice(cut + 2).split('\n').slice(0, -1);
  need(lines.length >= 1 && lines.length <= 64, 'number of signatures');
  return { text: s.slice(0, cut + 1), sigs: lines.map((l) => {
    const m = /^\u2014 ([^ ]*) (.*)$/s.exec(l);
    need(m && validName(m[1]), 'no signature line');
    const raw = unb64(m[2]);
    need(raw.length >= 5, 'short signature');
    return { name: m[1], id: raw.subarray(0, 4), sig: raw.subarray(4) };
  }) };
}
/** Whether k signed, or as a witness cosigned; a signature in its name that does not verify is an error. */
export async function noteSignedBy(note, k, cosigned) {
  let found = false;
  for (const s of note.sigs.filter((x) => x.name === k.name && same(x.id, k.id))) {
    if (!cosigned) need(k.alg === 1 && await signed('EdDSA', k.pub, utf8.encode(note.text), s.sig), 'signature does not verify');
    else {
      need(k.alg === 4 && s.sig.length === 72 && s.sig[0] < 0x40, 'malformed cosignature');
      const time = new DataView(s.sig.buffer, s.sig.byteOffset).getBigUint64(0);
      const message = utf8.encode(`cosignature/v1\ntime ${time}\n${note.text}`);
      need(await signed('EdDSA', k.pub, message, s.sig.subarray(8)), 'cosignature does not verify');
    }
    found = true;
  }
  return found;
}

export function parseCheckpoint(bytes) {
  const note = parseNote(bytes), lines = note.text.slice(0, -1).split('\n');
  need(lines.length >= 3 && !lines.includes(''), 'too few lines');
  return { ...note, origin: lines[0], size: decimal(lines[1]), root: treeHash(lines[2]) };
}
const treeHash = (s) => { const h = unb64(s); need(h.length === 32, 'length of a hash'); return h; };
export const hashes = (lines) => { need(lines.length <= 64, 'too many hashes'); return lines.map(treeHash); };

export async function parsePolicy(source) {
  const p = { logs: [], witnesses: new Map(), groups: new Map(), manifests: [], issuers: [], require: [] };
  const named = (n) => p.witnesses.has(n) || p.groups.has(n);
  const free = (n) => need(n !== 'none' && !named(n), `name ${n} is taken`);
  let ours = false;
  for (const line of source.split('\n')) {
    need(!/[\u0000-\u0008\u000a-\u001f\u007f]/.test(line), 'control character');
    const [word, ...a] = line.split(/[ \t]+/).filter((w) => w !== '');
    if (word === undefined || word.startsWith('#')) continue;
    if (!ours && word === '===' && a.join(' ') === 'lineal') { ours = true; continue; }
    const count = (lo, hi) => need(a.length >= lo && a.length <= hi, `words of ${word}`);
    switch ((ours ? 'our ' : '') + word) {
      case 'log': {
        count(1, 2);
        const k = await parseKey(a[0]);
        need(k.alg === 1 && !p.logs.some((o) => o.keyid === k.keyid), 'log key');
        p.logs.push(k);
        break;
      }
      case 'witness': {
        count(2, 3);
        free(a[0]);
        const k = await parseKey(a[1]);
        need(k.alg === 4 && ![...p.witnesses.values(), ...p.logs].some((o) => o.keyid === k.keyid), 'witness key');
        p.witnesses.set(a[0], k);
        break;
      }
      case 'group': {
        count(3, Infinity);
        free(a[0]);
        const members = a.slice(2), k = { all: members.length, any: 1 }[a[1]] ?? decimal(a[1]);
        need(k >= 1 && k <= members.length && new Set(members).size === members.length && members.every(named), 'group');
        for (const g of p.groups.values()) need(!g.members.some((m) => members.includes(m)), 'a member of two groups');
        p.groups.set(a[0], { need: k, members });
        break;
      }
      case 'quorum':
        count(1, 1);
        need(p.quorum === undefined && (a[0] === 'none' || named(a[0])), 'quorum');
        p.quorum = a[0];
        break;
      case 'our manifest': {
        count(1, 1);
        const k = await parseKey(a[0]);
        need(k.alg === 1, 'manifest key');
        p.manifests.push(k);
        break;
      }
      case 'our issuer':
        count(2, 2);
        need(isDigest(a[1]), 'thumbprint');
        p.issuers.push({ url: a[0], thumbprint: a[1] });
        break;
      case 'our require':
        count(1, 1);
        need(DIMENSIONS.includes(a[0]), `dimension ${a[0]}`);
        p.require.push(a[0]);
        break;
      default: bad(`unknown word ${word}`);
    }
  }
  need(p.logs.length && p.quorum !== undefined && ours && p.manifests.length, 'policy is not complete');
  return p;
}
export function satisfied(p, name, cosigned) {
  const g = p.groups.get(name);
  return g ? g.members.filter((m) => satisfied(p, m, cosigned)).length >= g.need : cosigned.has(name);
}

// ---- the RFC 6962 tree -----------------------------------------------------------------------------------------

export const node = (l, r) => sha256(join([1], l, r));
const half = (n) => Math.floor(n / 2);

/** The roots of the perfect subtrees of a tree, largest first: what is needed to extend it. */
export class Frontier {
  constructor(size = 0, roots = []) { this.size = size; this.roots = roots; }
  async push(leaf) {
    for (let s = this.size; s % 2 === 1; s = half(s)) leaf = await node(this.roots.pop(), leaf);
    this.roots.push(leaf);
    this.size++;
  }
  async root() {
    if (this.size === 0) return sha256(new Uint8Array());
    return this.roots.slice(0, -1).reduceRight(async (h, left) => node(left, await h), this.roots.at(-1));
  }
  /** The frontier of [0, index): the left siblings in the inclusion proof of index. */
  static before(index, size, proof) {
    const left = [];
    let k = 0;
    for (let i = index, last = size - 1; last > 0; i = half(i), last = half(last)) {
      if (i % 2 === 1) left.unshift(proof[k++]);
      else if (i < last) k++;
    }
    need(index < size && k === proof.length && !left.includes(undefined), 'length of the inclusion proof');
    return new Frontier(index, left);
  }
}

export async function included(leaf, index, size, proof, root) {
  let h = leaf, k = 0;
  for (let i = index, last = size - 1; last > 0; i = half(i), last = half(last)) {
    if (i % 2 === 0 && i === last) continue; // no sibling on this level
    need(k < proof.length, 'inclusion proof is too short');
    h = i % 2 === 1 ? await node(proof[k++], h) : await node(h, proof[k++]);
  }
  need(index < size && k === proof.length && same(h, root), 'inclusion proof leads to another root');
}

export async function consistent(size1, size2, root1, root2, proof) {
  need(size1 <= size2, 'the tree shrank');
  if (size1 === size2 || size1 === 0) {
    need(proof.length === 0 && same(root1, size1 === 0 ? await sha256(new Uint8Array()) : root2), 'forked');
    return;
  }
  let i = size1 - 1, last = size2 - 1, k = 0;
  while (i % 2 === 1) { i = half(i); last = half(last); }
  let old = i === 0 ? root1 : proof[k++], now = old;
  for (; last > 0; i = half(i), last = half(last)) {
    if (i % 2 === 0 && i === last) continue;
    need(k < proof.length, 'consistency proof is too short');
    const sibling = proof[k++];
    if (i % 2 === 1) old = await node(sibling, old);
    now = i % 2 === 1 ? await node(sibling, now) : await node(now, sibling);
  }
  need(k === proof.length && same(old, root1) && same(now, root2), 'rewritten or forked');
}


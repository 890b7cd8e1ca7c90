// Compares a Parquet file with the JSON lines of the same records.
import { readFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { asyncBufferFromFile, parquetReadObjects, parquetMetadataAsync } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'

const [file, lines] = process.argv.slice(2)
const buffer = await asyncBufferFromFile(file)
const meta = await parquetMetadataAsync(buffer)
const rows = await parquetReadObjects({ file: buffer, compressors })
const records = readFileSync(lines, 'utf8').trim().split('\n').map((l) => JSON.parse(l))
const fail = (m) => { console.error(`parquet: ${m}`); process.exit(1) }
const same = (at, got, want) => {
  if (JSON.stringify(got ?? null) !== JSON.stringify(want ?? null)) fail(`${at}: ${JSON.stringify(got)}, not ${JSON.stringify(want)}`)
}
if (rows.length !== records.length || Number(meta.num_rows) !== records.length) fail(`${rows.length} rows of ${records.length} records`)
const time = meta.schema.find((c) => c.name === 'time')
same('type of time', [time.logical_type?.type, time.logical_type?.isAdjustedToUTC, time.logical_type?.unit], ['TIMESTAMP', true, 'MILLIS'])
const kinds = new Set()
rows.forEach((row, i) => {
  const { index, record_hash, record } = records[i]
  kinds.add(record.kind)
  same('index', Number(row.index), index)
  same('record_hash', row.record_hash, record_hash)
  if (!(row.time instanceof Date)) fail('time is no time')
  same('time', row.time.toISOString(), record.time)
  same('kind', row.kind, record.kind)
  same('writer', row.writer, record.gw.id)
  const text = typeof row.record === 'string' ? row.record : JSON.stringify(row.record) // canonical members come sorted, and stay so
  same('hash of record', createHash('sha256').update(text).digest('base64url'), record_hash)
  if (record.kind === 'decision') {
    same('effect', row.effect, record.decision.effect)
    same('reason', row.reason, record.decision.reason)
    same('person', row.person, record.person.ref)
    same('resource', row.resource, record.callee?.id)
    same('tool', row.tool, record.callee?.tool)
    same('serial', Number(row.policy_serial), record.policy.serial)
    same('rules', row.rules ?? [], record.policy.rules)
    same('needed', row.needed ?? [], record.request.needed)
    same('chain', (row.chain ?? []).map((h) => [h.actor, h.audience, h.expires.getTime() / 1000]), record.chain.map((h) => [h.actor, h.aud, h.exp]))
  }
  if (record.kind === 'outcome') {
    same('of', row.of, record.of)
    same('status', row.status, record.status)
    same('forwarded', row.forwarded, record.forwarded)
    same('ended', row.ended.toISOString(), record.ended)
  }
  if (record.kind === 'heartbeat') same('effect of a heartbeat', row.effect, null)
})
for (const k of ['decision', 'outcome', 'issuance', 'heartbeat', 'key', 'policy']) if (!kinds.has(k)) fail(`no ${k} was compared`)
console.log(`parquet: ${rows.length} records, all columns agree`)

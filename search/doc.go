// Package search answers questions over records from an index that can be rebuilt from the ledger, and replays them.
//
//	ledger ──(index, payload)──▶ Add ──▶ Index ──▶ Find, Records ──▶ entries
//	                                       │
//	                                       └─────▶ Trace ──▶ Lineage: person → application → agents → callee
//
// An [Index] is derived: it holds nothing that the ledger does not, and is
// made again by reading the ledger from the start. It answers from records
// alone, never from a gateway or a token service: a [Lineage] tells who asked,
// through whom, with which authority at each hop, what each hop gave up, which
// rules decided and what followed, in words for a person who is no engineer
// ([Lineage.WriteText]) and as JSON.
//
// Every answer says as of which checkpoint it holds and whether the index had
// every entry up to it. The package does not verify signatures or proofs; that
// is package evidence. It keeps its index in memory, and does not replay
// decisions yet.
package search

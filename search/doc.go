// Package search answers questions over records from an index that can be rebuilt from the ledger, and replays them.
//
//	ledger ──(index, payload)──▶ Follow ──▶ Store: who, what, when, of each record
//	  │                                        │ indexes of what may answer
//	  └──────────(index, payload)──────────▶ Desk ──▶ Records ──▶ a page of entries
//	                                           ├────▶ Trace ──▶ Lineage: person → application → agents → callee
//	                                           └────▶ Tell ──▶ Stories: whole transactions
//
// An index is derived: it holds nothing that the ledger does not, and is made
// again by reading the ledger from the start. A [Desk] keeps it in a [Store] on
// disk, goes on from where it stands, and looks at each record again in the ledger
// before it is in an answer. An [Index] keeps everything in memory, for small
// logs. Both answer from records alone, never from a gateway or a token service:
// a [Lineage] tells who asked, through whom, with which authority at each hop,
// what each hop gave up, which rules decided and what followed, in words for a
// person who is no engineer ([Lineage.WriteText]) and as JSON.
//
// Every answer says as of which checkpoint it holds and whether the index had
// every entry up to it. The package does not verify signatures or proofs; that
// is package evidence. It does not replay decisions yet.
package search

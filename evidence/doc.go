// Package evidence is the bundle an auditor takes away, written here and verified here, offline, sharing no code with the ledger's writer.
//
//	ledger ──values──▶ Write ──▶ case17.zip ──▶ Verify ──▶ Report
//	                                              ▲          PASS · FAIL · NOT PROVEN
//	                                 policy file ─┘          per dimension
//
// A bundle holds records with their signed envelopes, the checkpoints that
// commit to them, the receipts, policy bundles and disclosures they point to,
// and a signed manifest with the hash of every file. [Write] makes one from
// plain values. [Verify] reads one, opens no network and no other file, and
// says for each dimension whether it holds.
//
// Trust comes from the policy file alone ([ParsePolicy]): the log's key, the
// witnesses, the manifest key, the token issuers. Nothing in a bundle vouches
// for the bundle.
//
// The Merkle tree (RFC 6962), the signed notes, checkpoints, cosignatures and
// proofs (C2SP) are implemented here a second time, on purpose: a bug in the
// ledger's writer, or in a library it uses, cannot hide by being in both.
//
// What a valid bundle does not prove: that every call went past a gateway, that
// a gateway told the truth about what it saw, or, in mode `selected`, that the
// records are all there were. A tree that no witness cosigned proves nothing
// against the operator who holds its key.
package evidence

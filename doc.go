// Package lineal is agent-to-agent authentication for multi-agent systems.
//
// At every call that one agent makes to another agent, to a tool or to a
// model, Lineal asks who is calling, what this call may do, and on whose
// behalf; it refuses a call that cannot answer, and leaves a signed record of
// every decision. docs/DESIGN.md follows one call through the packages.
//
// # Glossary
//
// One word per thing, here and everywhere:
//
//   - person: the natural person at the root of a chain, known by a random
//     reference that carries no name.
//   - agent: a workload that acts, known by one URI, by default its SPIFFE ID.
//   - delegation token: the access token presented on a call; it speaks for one
//     hop and is bound to the key of the workload it was issued to.
//   - hop: one delegation; hop 0, the root, begins with the person's login.
//   - receipt: the issuer's signed statement about one hop, which holds the
//     hash of the receipt and of the token before it. It is no credential.
//   - chain: the receipts, root first, and the token at the end.
//   - scope: what a token permits: OAuth scope and authorization_details.
//   - detail: one element of authorization_details; grant: all of one hop.
//   - audience: the URI of one receiver of calls, an agent, tool or model.
//   - call document: a request as scope and policy see it, normalised.
//   - scope permits, policy decides: what was delegated, and what the
//     organisation accepts. A call needs both.
//   - decision, outcome: the record before a call goes on, and after.
//   - writer: who signs records; each has a sequence of its own.
//   - log, entry, tile, checkpoint: the Merkle tree of records, its leaves, its
//     stored nodes, and the signed statement of its size and root.
//   - evidence bundle: what an auditor takes away and verifies offline.
//   - policy file: what that auditor trusts; policy bundle: the operator's rules.
package lineal

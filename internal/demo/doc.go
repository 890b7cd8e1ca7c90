// Package demo runs the whole product once, on real protocols, and tells what
// happens as it happens.
//
//	Alice ─▶ app ─▶ orchestrator ─┬─▶ CRM lookup            (MCP)
//	                              ├─▶ research ─▶ database   (A2A, A2A)
//	                              │                 └─▶ query (MCP, SQLite)
//	                              └─▶ model                 (OpenAI's API)
//
// Every arrow goes through the gateway, with a token of its own that the token
// service issued for exactly that call, and each leaves a record before it goes
// on. Then the attacks: stolen, leaked, spliced, expired and missing tokens,
// receipts in the place of tokens, and calls beyond what was delegated. At the
// end the way of the database call is told from the records alone, and the
// ledger is exported and verified offline.
//
// Nothing in it is mocked: workloads get their certificates from the SPIFFE
// Workload API, the person signs in with a code flow, agents speak A2A and MCP
// with the official libraries, the database is SQLite. Only the agents' wit is
// missing: they do the same steps each time, and the model is a stand-in that
// says so, unless a real one is configured.
//
// [Run] is strict. It fails if any call that should pass did not, if any attack
// was answered otherwise than expected or has no record, or if the evidence
// does not verify. It listens on free loopback ports and keeps its files in one
// directory, so that any number of demos run side by side.
package demo

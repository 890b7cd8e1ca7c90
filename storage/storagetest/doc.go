// Package storagetest is the contract of a storage engine, in executable form.
//
//	func TestContract(t *testing.T) { storagetest.Run(t, open) }
//
// [Run] holds an engine to what [ledger.Store] says: each write broken in
// every way (refused, lost, done but reported failed, torn), then a restart
// from what is on disk and a full verification; stale writers, conflicts, lost
// epochs, resent batches, concurrent appends, rollback, damage. The fixtures
// are a sealer with a MAC in place of a signature, and a checker of seq and
// prev such as the product injects.
//
// [RunRegistries], [RunRevocations], [RunProofs], [RunLogins] and [RunPins] do the
// same for the contracts of package registry, at two replicas and over a restart.
package storagetest

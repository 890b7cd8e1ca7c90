// Package storagetest is the contract of a storage engine, in executable form.
//
// It holds the fixtures of the ledger's tests: a sealer that signs for real, a
// checker that verifies signature, seq and prev as the product's check does,
// and fixed names and keys.
package storagetest

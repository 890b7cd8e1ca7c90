// Package js holds the second verifier of evidence bundles, for browsers.
//
//	Files: verify.mjs ─▶ chain.mjs, format.mjs
//
// verify.mjs says what it promises. The files need Web Crypto and nothing of
// Node; cli.mjs and compare.mjs, which do, are not among them.
package js

import "embed"

// Files are the modules, as they are served.
//
//go:embed verify.mjs chain.mjs format.mjs
var Files embed.FS

//go:build pgquery_cgo || tinygo

package sqlscope

// With these tags the parser would be C in this process, where a long expression
// ends the process. This line keeps such a build from compiling.
var _ int = "sqlscope does not build with pgquery_cgo or tinygo"

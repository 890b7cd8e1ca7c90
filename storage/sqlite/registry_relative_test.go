package sqlite_test

import "testing"

// A relative directory names the same database as its absolute path.
func TestRegistryRelativeDir(t *testing.T) {
	dir := t.TempDir()
	if err := openRegistry(t, dir).Put(t.Context(), hop(0)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if _, err := openRegistry(t, ".").Get(t.Context(), hop(0).ID); err != nil {
		t.Fatal(err)
	}
}

package a2a_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

var update = flag.Bool("update", false, "write what the tests compare with")

// TestDefinition: the definition that the reader goes by is the one of which
// a2a-go's code is generated.
func TestDefinition(t *testing.T) {
	file := protodesc.ToFileDescriptorProto(a2apb.File_a2a_proto)
	file.Options, file.SourceCodeInfo = nil, nil
	var imports []string
	for _, d := range file.Dependency {
		if len(d) > 15 && d[:16] == "google/protobuf/" {
			imports = append(imports, d)
		}
	}
	file.Dependency = imports
	for _, m := range file.MessageType {
		strip(m)
	}
	for _, s := range file.Service {
		s.Options = nil
		for _, m := range s.Method {
			m.Options = nil
		}
	}
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("a2a.binpb", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("a2a.binpb")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the definition is another: %v", err)
	}
}

// strip takes the options off that name other people's extensions; whether a map
// is one stays.
func strip(m *descriptorpb.DescriptorProto) {
	for _, f := range m.Field {
		f.Options = nil
	}
	for _, n := range m.NestedType {
		strip(n)
	}
}

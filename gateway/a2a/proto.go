package a2a

import (
	_ "embed"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	// What the definition imports.
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
)

// definition is the protocol's own a2a.proto, compiled, without options and
// comments. It is kept here, in no registry that others use: the generated
// packages of both versions call their files the same, and a program that links
// two of them does not start. TestDefinition holds it to the generated one.
//
//go:embed a2a.binpb
var definition []byte

// messages are what an operation takes and gives, as protocol buffers.
type messages struct {
	request, answer protoreflect.MessageDescriptor
}

func (m messages) newRequest() proto.Message { return dynamicpb.NewMessage(m.request) }
func (m messages) newAnswer() proto.Message  { return dynamicpb.NewMessage(m.answer) }

// methods are those of the service that are served, by name.
var methods = func() map[string]messages {
	file := new(descriptorpb.FileDescriptorProto)
	if err := proto.Unmarshal(definition, file); err != nil {
		panic(err) // the definition is a part of the program
	}
	d, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	out := map[string]messages{}
	service := d.Services().ByName("A2AService")
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		if _, ok := operations[string(m.Name())]; ok {
			out[string(m.Name())] = messages{m.Input(), m.Output()}
		}
	}
	return out
}()

var _ = emptypb.File_google_protobuf_empty_proto // imported by the definition

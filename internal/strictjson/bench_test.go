package strictjson

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// toolsCall is a call with many small values, about 2 KB.
func toolsCall() []byte {
	var b strings.Builder
	b.WriteString(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"find","arguments":{"items":[`)
	for i := 0; b.Len() < 1850; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"status":"open","note":"the customer asked for a call back in the morning","total":%d.50}`, i, i)
	}
	b.WriteString(`]}}}`)
	return []byte(b.String())
}

// chat is a conversation: a few long texts with line ends and quotes, 94 KB.
func chat() []byte {
	var b strings.Builder
	b.WriteString(`{"model":"eu/large","stream":true,"max_tokens":1024,"messages":[`)
	for i := 0; b.Len() < 92<<10; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		role := []string{"user", "assistant"}[i%2]
		text := strings.Repeat(`The contract says:\n- \"delivery within thirty days of the order, at the place that the customer names\"\n- the rest of it is as it was agreed upon in the year before.\n`, 12)
		fmt.Fprintf(&b, `{"role":%q,"content":"%s"}`, role, text)
	}
	b.WriteString(`]}`)
	return []byte(b.String())
}

func benchRead(b *testing.B, data []byte) {
	b.Run("strictjson", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := Parse(data, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			var v any
			if err := json.Unmarshal(data, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReadToolsCall reads 2 KB of small values, beside what reads them
// loosely.
func BenchmarkReadToolsCall(b *testing.B) { benchRead(b, toolsCall()) }

// BenchmarkReadChat reads 94 KB of text.
func BenchmarkReadChat(b *testing.B) { benchRead(b, chat()) }

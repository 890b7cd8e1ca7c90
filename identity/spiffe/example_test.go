package spiffe_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
)

// A workload takes its identity from a Workload API socket and calls another
// by mutual TLS. In production the socket is that of a SPIRE agent; here it is
// that of the development CA.
func Example() {
	ca, err := devca.New(devca.Config{TrustDomain: "acme.example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = ca.Close() }()
	socket, err := ca.Serve(identity.MustParseAgent("spiffe://acme.example/triage"), devca.Profile{})
	if err != nil {
		fmt.Println(err)
		return
	}

	source, err := spiffe.Open(context.Background(), spiffe.Config{Socket: socket, TrustDomain: "acme.example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = source.Close() }()
	fmt.Println("I am", source.Agent())

	// A server: every handler asks who is on the connection.
	server := &http.Server{TLSConfig: source.ServerTLS(), ReadHeaderTimeout: 10 * time.Second}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := source.Identify(r, time.Now())
		if err != nil {
			http.Error(w, "no workload identity", http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintln(w, "hello", caller.Agent)
	})

	// A client: only the gateway itself may answer.
	client := source.HTTPClient(identity.MustParseAgent("spiffe://acme.example/gateway"))
	defer client.CloseIdleConnections()

	// Output: I am spiffe://acme.example/triage
}

package evidence_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/ledger"
)

// The operator writes a bundle; the auditor verifies it under a policy file
// that he got by another way. This bundle is of a log without records yet.
func Example() {
	log := signerOf("ledger.example/std/1", 1)
	manifest, err := evidence.NewSigner("ledger.example/manifest", privateKey(2))
	if err != nil {
		fmt.Println(err)
		return
	}
	empty := sha256.Sum256(nil) // the root of no leaves
	checkpoint, err := note.Sign(&note.Note{
		Text: "ledger.example/std/1\n0\n" + base64.StdEncoding.EncodeToString(empty[:]) + "\n",
	}, log)
	if err != nil {
		fmt.Println(err)
		return
	}
	logKey, err := evidence.NewKey(log.Name(), privateKey(1).Public().(ed25519.PublicKey))
	if err != nil {
		fmt.Println(err)
		return
	}

	var bundle, policyFile bytes.Buffer
	if err := evidence.WritePolicy(&policyFile, evidence.Trust{Logs: []evidence.Key{logKey}, Manifests: []evidence.Key{manifest.Key()}}); err != nil {
		fmt.Println(err)
		return
	}
	err = evidence.Write(&bundle, evidence.Contents{
		Mode: evidence.ModeRange, Origin: "ledger.example/std/1", Query: "everything", Created: time.Unix(1803978838, 0),
		Last: checkpoint, Signer: manifest,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	policy, err := evidence.ParsePolicy(policyFile.Bytes())
	if err != nil {
		fmt.Println(err)
		return
	}
	report := evidence.Verify(bundle.Bytes(), policy)
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "checkpoint") || strings.HasPrefix(line, "result") {
			fmt.Print(line)
		}
	}
	// Output:
	// checkpoint   PASS        size 0
	// result       VALID   exit 0
}

func privateKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// signerOf is the log's key as its writer holds it.
func signerOf(name string, n byte) note.Signer {
	s, _, err := ledger.NewCheckpointKey(name, privateKey(n))
	if err != nil {
		panic(err)
	}
	return s
}

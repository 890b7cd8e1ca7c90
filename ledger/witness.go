package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Witness is a party outside of the deployment that cosigns checkpoints of a
// log which only grew (C2SP tlog-witness v1.0.0).
type Witness struct {
	Name     string        // in messages and metrics
	URL      string        // of the witness, without /add-checkpoint
	Verifier note.Verifier // of its cosignatures, by NewWitnessVerifier
}

// algCosignature is the signature type of Ed25519 cosignatures.
const algCosignature = 0x04

// NewWitnessVerifier reads the vkey of a witness: `<name>+<key id>+<key>`, of
// the type of Ed25519 cosignatures (C2SP tlog-cosignature v1.0.1).
func NewWitnessVerifier(vkey string) (note.Verifier, error) {
	name, rest, ok1 := strings.Cut(vkey, "+")
	id, material, ok2 := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(material)
	if !ok1 || !ok2 || name == "" || strings.ContainsAny(name, " \t\r\n") || err != nil ||
		len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignature {
		return nil, errors.New("parsing witness key: not <name>+<id>+<Ed25519 cosignature key>")
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), raw...))
	v := &witnessVerifier{name: name, id: binary.BigEndian.Uint32(sum[:]), pub: raw[1:]}
	if id != fmt.Sprintf("%08x", v.id) {
		return nil, errors.New("parsing witness key: key id is not that of its name and key")
	}
	return v, nil
}

type witnessVerifier struct {
	name string
	id   uint32
	pub  ed25519.PublicKey
}

func (v *witnessVerifier) Name() string    { return v.name }
func (v *witnessVerifier) KeyHash() uint32 { return v.id }

// Verify checks a timestamped signature over the text of a checkpoint.
func (v *witnessVerifier) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	if at > 1<<62 {
		return false
	}
	return ed25519.Verify(v.pub, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text), sig[8:])
}

// errRefused: the witness does not know the log or its key (403, 404).
var errRefused = errors.New("the witness does not accept this log")

// conflict is a 409: the witness's tree has another size than the request says.
type conflict struct{ size int64 }

func (c *conflict) Error() string { return fmt.Sprintf("the witness has seen %d entries", c.size) }

// maxAnswer bounds a witness's answer, in bytes.
const maxAnswer = 16 << 10

// addCheckpoint is one request. It returns the cosignature lines of the answer
// that verify, and it does not trust anything else in it.
func addCheckpoint(ctx context.Context, c *http.Client, w Witness, old int64, proof []Hash, msg []byte) ([]byte, error) {
	var body bytes.Buffer
	body.WriteString("old " + strconv.FormatInt(old, 10) + "\n")
	for _, h := range proof {
		body.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	body.WriteString("\n")
	body.Write(msg)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(w.URL, "/")+"/add-checkpoint", &body)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if len(answer) > maxAnswer {
		return nil, errors.New("the answer is too long")
	}
	switch res.StatusCode {
	case http.StatusOK:
		return cosignatures(answer, w.Verifier, msg)
	case http.StatusConflict:
		size, err := strconv.ParseInt(strings.TrimSuffix(string(answer), "\n"), 10, 64)
		if err != nil || size < 0 {
			return nil, errors.New("conflict without a size")
		}
		return nil, &conflict{size}
	case http.StatusUnprocessableEntity:
		return nil, fmt.Errorf("%w: it refuses the consistency proof", ErrWitnessDisagrees)
	case http.StatusForbidden, http.StatusNotFound:
		return nil, fmt.Errorf("%w: status %d", errRefused, res.StatusCode)
	default:
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
}

// cosignatures picks the lines of an answer that are the witness's, over this
// note: one, unless it signs twice.
func cosignatures(answer []byte, v note.Verifier, msg []byte) ([]byte, error) {
	cut := bytes.LastIndex(msg, []byte("\n\n"))
	if cut < 0 {
		return nil, errors.New("the checkpoint has no signature")
	}
	var out []byte
	for line := range strings.Lines(string(answer)) {
		name, b64, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "— "), "\n"), " ")
		raw, err := base64.StdEncoding.Strict().DecodeString(b64)
		if !ok || err != nil || !strings.HasPrefix(line, "— ") || !strings.HasSuffix(line, "\n") || name != v.Name() || len(raw) < 4 ||
			binary.BigEndian.Uint32(raw) != v.KeyHash() {
			continue
		}
		if !v.Verify(msg[:cut+1], raw[4:]) {
			return nil, errors.New("its cosignature does not verify")
		}
		out = append(out, line...)
	}
	if out == nil {
		return nil, errors.New("no cosignature of its key in the answer")
	}
	return out, nil
}

// cosigned counts the witnesses whose cosignature on a note verifies.
func cosigned(msg []byte, ws []Witness) int {
	vs := make([]note.Verifier, len(ws))
	for i, w := range ws {
		vs[i] = w.Verifier
	}
	n, err := note.Open(msg, note.VerifierList(vs...))
	if err != nil {
		return 0
	}
	return len(n.Sigs)
}

// witnessTimeout bounds one round, in which all witnesses are asked at once.
const witnessTimeout = 5 * time.Second

// unwitnessedAlarm is how long a checkpoint may wait for its quorum before the
// log says so at every round (ledger.md §5.2).
const unwitnessedAlarm = time.Minute

// Witnessed is when a witness last cosigned a checkpoint, by its own clock: the
// newest of the cosignatures on the note that verify. The zero time if there is
// none.
func Witnessed(msg []byte, ws []Witness) time.Time {
	var vs []note.Verifier
	for _, w := range ws {
		vs = append(vs, w.Verifier)
	}
	n, err := note.Open(msg, note.VerifierList(vs...))
	if err != nil { // no cosignature of theirs, or one that does not verify
		return time.Time{}
	}
	var last time.Time
	for _, s := range n.Sigs {
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil || len(raw) != 4+8+ed25519.SignatureSize {
			continue
		}
		if at := time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0); at.After(last) { //nolint:gosec // Verify bounds it
			last = at
		}
	}
	return last
}

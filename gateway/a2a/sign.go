package a2a

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/gowebpki/jcs"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// canonicalOf is the canonical form of a card (RFC 8785).
func canonicalOf(card strictjson.Value) ([]byte, error) {
	out, err := jcs.Transform(card.AppendJSON(nil))
	if err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	return out, nil
}

// required are members that stay in the canonical form with their default value
// too, because the protocol requires them.
var required = []string{
	"name", "description", "version", "supportedInterfaces", "capabilities", "defaultInputModes", "defaultOutputModes", "skills",
	"id", "tags", "url", "organization", "protocolBinding", "protocolVersion", "scheme",
}

// optional are members that protocol buffers keep if they were set at all.
var optional = []string{"documentationUrl", "iconUrl", "provider", "streaming", "pushNotifications", "extendedAgentCard"}

// opaque members hold what is no message of the protocol: nothing is left out.
var opaque = []string{"params", "schemes", "securitySchemes", "scopes"}

// withoutDefaults leaves out what protocol buffers leave out when they write a
// card: members with the default value of their type.
func withoutDefaults(v strictjson.Value) strictjson.Value {
	switch v.Kind() {
	case strictjson.KindArray:
		items := v.Items()
		for i := range items {
			items[i] = withoutDefaults(items[i])
		}
		return strictjson.Array(items...)
	case strictjson.KindObject:
		var kept []strictjson.Member
		for _, m := range v.Members() {
			if !slices.Contains(opaque, m.Name) {
				m.Value = withoutDefaults(m.Value)
			}
			if !isDefault(m.Value) || slices.Contains(required, m.Name) || slices.Contains(optional, m.Name) && !m.Value.IsNull() {
				kept = append(kept, m)
			}
		}
		return strictjson.Object(kept...)
	default:
		return v
	}
}

func isDefault(v strictjson.Value) bool {
	switch v.Kind() {
	case strictjson.KindNull:
		return true
	case strictjson.KindString:
		return text(v) == ""
	case strictjson.KindBool:
		return !v.Bool()
	case strictjson.KindArray:
		return v.Len() == 0
	case strictjson.KindNumber:
		n, ok := v.Int64()
		return ok && n == 0
	default:
		return false
	}
}

// cardAlgorithms are those that cards are signed with.
var cardAlgorithms = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA, jose.RS256, jose.PS256}

// maxSignatures bounds the work that a card can make (threat N5).
const maxSignatures = 8

// cardKeys are the keys that may sign a card.
type cardKeys struct{ keys []jose.JSONWebKey }

func parseCardKeys(set []byte) (cardKeys, error) {
	if len(set) == 0 {
		return cardKeys{}, nil
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(set, &keys); err != nil {
		return cardKeys{}, fmt.Errorf("reading card keys: %w", err)
	}
	for _, k := range keys.Keys {
		if !k.Valid() || !k.IsPublic() || k.KeyID == "" || k.Algorithm == "" {
			return cardKeys{}, fmt.Errorf("card key %q: want a public key with kid and alg", k.KeyID)
		}
		if !slices.Contains(cardAlgorithms, jose.SignatureAlgorithm(k.Algorithm)) {
			return cardKeys{}, fmt.Errorf("card key %q: algorithm %q is not accepted", k.KeyID, k.Algorithm)
		}
	}
	return cardKeys{keys.Keys}, nil
}

// withoutEmpty leaves out every member and item that is empty, which is what
// @a2a-js/sdk signs.
func withoutEmpty(v strictjson.Value) strictjson.Value {
	isEmpty := func(v strictjson.Value) bool {
		container := v.Kind() == strictjson.KindArray || v.Kind() == strictjson.KindObject
		return v.IsNull() || container && v.Len() == 0 || v.Kind() == strictjson.KindString && text(v) == ""
	}
	switch v.Kind() {
	case strictjson.KindArray:
		var items []strictjson.Value
		for _, item := range v.Items() {
			if item = withoutEmpty(item); !isEmpty(item) {
				items = append(items, item)
			}
		}
		return strictjson.Array(items...)
	case strictjson.KindObject:
		var members []strictjson.Member
		for _, m := range v.Members() {
			if m.Value = withoutEmpty(m.Value); !isEmpty(m.Value) {
				members = append(members, m)
			}
		}
		return strictjson.Object(members...)
	default:
		return v
	}
}

// verify finds a signature by one of the keys: of the card as it is written, of
// what protocol buffers would have written, or of that without what is empty. It
// gives back the one that was signed: nothing else is served.
func (k cardKeys) verify(card, bare strictjson.Value) (kid string, signed strictjson.Value, err error) {
	signatures, _ := card.Get("signatures")
	if signatures.Kind() != strictjson.KindArray || signatures.Len() == 0 {
		return "", signed, errors.New("it is not signed")
	}
	for _, form := range []strictjson.Value{bare, withoutDefaults(bare), withoutEmpty(bare)} {
		payload, err := canonicalOf(form)
		if err != nil {
			return "", signed, err
		}
		for _, s := range signatures.Items()[:min(signatures.Len(), maxSignatures)] {
			protected, _ := s.Get("protected")
			signature, _ := s.Get("signature")
			if kid := k.signed(text(protected), text(signature), payload); kid != "" {
				return kid, form, nil
			}
		}
	}
	return "", signed, errors.New("no signature by a configured key")
}

// signed is the id of the key that signed the payload, "" if none did. The
// header names key and algorithm, and brings neither (threat P10).
func (k cardKeys) signed(protected, signature string, payload []byte) string {
	jws, err := jose.ParseSignedCompact(protected+"."+base64.RawURLEncoding.EncodeToString(payload)+"."+signature, cardAlgorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return ""
	}
	h := jws.Signatures[0].Header
	for _, key := range k.keys {
		if key.KeyID != h.KeyID || key.Algorithm != h.Algorithm {
			continue
		}
		if _, err := jws.Verify(key.Key); err == nil {
			return key.KeyID
		}
	}
	return ""
}

// CardSigner signs the cards that the gateway serves.
type CardSigner struct {
	signer jose.Signer
	set    jose.JSONWebKeySet // the public half
}

// NewCardSigner signs with a key on P-256 (ES256). Its id is its thumbprint
// (RFC 7638).
func NewCardSigner(key *ecdsa.PrivateKey) (*CardSigner, error) {
	public := jose.JSONWebKey{Key: key.Public(), Algorithm: string(jose.ES256), Use: "sig"}
	sum, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("card key: %w", err)
	}
	public.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key},
		(&jose.SignerOptions{}).WithType("JOSE").WithHeader("kid", public.KeyID))
	if err != nil {
		return nil, fmt.Errorf("card key: %w", err)
	}
	return &CardSigner{signer: signer, set: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}}}, nil
}

// sign is the card without defaults and with our signature: what is signed is
// what stands there, for every reader.
func (s *CardSigner) sign(card strictjson.Value) ([]byte, error) {
	card = withoutDefaults(card)
	payload, err := canonicalOf(card)
	if err != nil {
		return nil, err
	}
	jws, err := s.signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("signing the card: %w", err)
	}
	compact, err := jws.CompactSerialize()
	if err != nil {
		return nil, fmt.Errorf("signing the card: %w", err)
	}
	parts := strings.Split(compact, ".")
	signature := object(with("protected", str(parts[0])), with("signature", str(parts[2])))
	return canonicalOf(card.With("signatures", strictjson.Array(signature)))
}

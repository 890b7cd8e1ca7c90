package gateway

import (
	"strings"

	"github.com/lineal-auth/lineal/token"
)

const schemeDPoP = "DPoP" // RFC 9449 §7.1

// readProof verifies the DPoP proof that came with the token: its form and key,
// the method and the public URL of this call, nonce and age. That it belongs to
// the token and was never used is for token.Verify, in step 4. A proof beside a
// bearer token is refused: two readers could disagree on what it means.
func (c *call) readProof() (err error) {
	headers := c.r.Header["Dpop"]
	switch {
	case !c.dpop && len(headers) > 0 && c.g.cfg.Proofs != nil:
		c.badProof = true
		return &token.Error{Code: token.CodeProofInvalid, Err: errBearerWithProof}
	case !c.dpop && c.route.RequireDPoP:
		return &token.Error{Code: token.CodeBindingMissing, Err: errRequiresProof}
	case !c.dpop:
		return nil
	}
	if nonce := c.g.cfg.Proofs.Nonce(); nonce != "" {
		c.w.Header().Set("DPoP-Nonce", nonce) // with every answer, so that the next call has one (RFC 9449 §8.2)
	}
	url := strings.TrimSuffix(c.g.cfg.PublicURL, "/") + c.r.URL.EscapedPath()
	if c.proof, err = c.g.cfg.Proofs.Read(headers, c.r.Method, url); err != nil {
		c.badProof = true
	}
	return err
}

// challenges are the WWW-Authenticate values of a refusal: in the scheme that
// the caller used or must use, and in both where a bearer token should perhaps
// have come with a proof.
func (c *call) challenges(refusal *Refusal, a Answer) []string {
	if !c.dpop && (c.route == nil || !c.route.RequireDPoP) {
		all := []string{c.challenge("Bearer", a)}
		if c.g.cfg.Proofs != nil && refusal.Reason == string(token.CodeBindingMissing) {
			all = append(all, schemeDPoP+` algs="`+strings.Join(token.ProofAlgorithms(), " ")+`"`)
		}
		return all
	}
	switch refusal.Reason { // RFC 9449 §7.1, §9
	case string(token.CodeProofNonce):
		a.Challenge, a.Sentence = "use_dpop_nonce", "The proof must hold the nonce of this answer."
	case string(token.CodeProofMissing), string(token.CodeProofInvalid), string(token.CodeProofReplayed):
		a.Challenge, a.Sentence = "invalid_dpop_proof", "The proof is not valid for this call."
	}
	return []string{c.challenge(schemeDPoP, a) + `, algs="` + strings.Join(token.ProofAlgorithms(), " ") + `"`}
}

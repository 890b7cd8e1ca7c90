package gateway

import (
	"log/slog"
	"slices"

	"github.com/lineal-auth/lineal/record"
)

// commits is what a record holds of the content of a call: commitments alone.
// What they commit to goes to the recorder beside it (ledger.md §3.1).
type commits struct {
	call, input string // call_commit, input_digest; "" where there is none
	disclosed   []record.Disclosure
}

// commit commits to the call as far as it was read and judged, once: a refusal
// after the decision names the same values.
func (c *call) commit() *commits {
	if c.commits != nil {
		return c.commits
	}
	c.commits = &commits{}
	if c.request.Action == "" { // never read
		return c.commits
	}
	var salt [32]byte
	if !c.unseen { // the digest of a call is of its body too
		c.g.cfg.Salt(salt[:])
		commit, d, err := record.CommitCall(c.digest(), salt)
		if err != nil {
			c.notCommitted(err)
			return c.commits
		}
		c.commits.call, c.commits.disclosed = commit, []record.Disclosure{d}
	}
	if !c.policyAsked {
		return c.commits
	}
	digest, ds, err := record.CommitInput(c.input, c.decision.Reads, func() string {
		c.g.cfg.Salt(salt[:])
		return record.SaltText(salt)
	})
	if err != nil { // policy was put no question either
		c.notCommitted(err)
		return c.commits
	}
	c.commits.input, c.commits.disclosed = digest, append(c.commits.disclosed, ds...)
	return c.commits
}

func (c *call) notCommitted(err error) {
	c.g.log.WarnContext(c.r.Context(), "the content of a call cannot be decided again",
		slog.String("request_id", c.id), slog.String("cause", err.Error()))
}

// into puts the commitments into a decision.
func (m *commits) into(d *record.Decision) {
	d.Request.CallCommit, d.Policy.InputDigest = m.call, m.input
	d.SD = make([]string, len(m.disclosed))
	for i, v := range m.disclosed {
		d.SD[i] = v.Digest()
	}
	slices.Sort(d.SD)
}

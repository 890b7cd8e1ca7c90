package demo

import (
	"strings"
	"sync"
)

// Type says what an event tells of.
type Type string

// The events.
const (
	TypeSetup    Type = "setup"    // a part is running
	TypeLogin    Type = "login"    // a person signed in
	TypeRoot     Type = "root"     // a person authorised the first agent
	TypeCall     Type = "call"     // a call went through the gateway
	TypeAnswer   Type = "answer"   // the person got an answer
	TypeAttack   Type = "attack"   // an attack, and how it was answered
	TypeWait     Type = "wait"     // time passes
	TypeTrace    Type = "trace"    // the way of a call, from the records alone
	TypeEvidence Type = "evidence" // a finding of the offline verification
	TypeExplore  Type = "explore"  // a command to go on with
)

// Event is one thing that happened. As JSON its members are stable; one that
// says nothing is left out.
type Event struct {
	Type Type `json:"type"`
	// Step is the chapter of the story, from 1.
	Step int `json:"step"`
	// Person is whom the call was made for, by first name.
	Person string `json:"person,omitempty"`
	// Chain is who acted, the application first, the caller last.
	Chain []string `json:"chain,omitempty"`
	// Callee is the agent, tool or model called.
	Callee string `json:"callee,omitempty"`
	// Authority is what the caller held for this call, in words.
	Authority []string `json:"authority,omitempty"`
	// Decision is "permitted" or "refused".
	Decision string `json:"decision,omitempty"`
	// Name is that of an attack or of a verified dimension.
	Name string `json:"name,omitempty"`
	// Status and Code are what the caller saw: the HTTP status, and Lineal's
	// code or the OAuth error. Reason is what the record says.
	Status int    `json:"status,omitempty"`
	Code   string `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Call is the call's id, Record the id of its record in the ledger.
	Call   string `json:"call,omitempty"`
	Record string `json:"record,omitempty"`
	// Text is the whole of it in one sentence; of a trace and a report, several
	// lines.
	Text string `json:"text"`
}

// The decisions.
const (
	permitted = "permitted"
	refused   = "refused"
)

// Summary is how it ended.
type Summary struct {
	Type string `json:"type"` // "summary"
	OK   bool   `json:"ok"`
	// Problems are what differed from what was expected; none if OK.
	Problems []string `json:"problems"`
	Calls    Calls    `json:"calls"`
	Tokens   Tokens   `json:"tokens"`
	// Attacks are in the order in which they were made.
	Attacks []AttackResult `json:"attacks"`
	// MaxDepth is the del_depth of the deepest chain that a call was decided on.
	MaxDepth int    `json:"max_depth"`
	Ledger   Ledger `json:"ledger"`
	DataDir  string `json:"data_dir,omitempty"` // empty if it was removed
	Millis   int64  `json:"duration_ms"`
}

// Calls counts the gateway's decisions, as the ledger has them.
type Calls struct {
	Allowed int `json:"allowed"`
	Refused int `json:"refused"`
}

// Tokens counts the token service's decisions, as the ledger has them.
type Tokens struct {
	Issued  int `json:"issued"`
	Refused int `json:"refused"`
}

// AttackResult is one attack.
type AttackResult struct {
	Name string `json:"name"`
	// Status and Code are as the attacker saw them, Reason as it was recorded.
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Reason  string `json:"reason"`
	Refused bool   `json:"refused"` // as expected, recorded, and nothing reached its goal
	Record  string `json:"record"`
}

// Ledger is what the evidence says.
type Ledger struct {
	Origin  string `json:"origin"`
	Entries int64  `json:"entries"`
	Verify  string `json:"verify"` // "valid"
	Bundle  string `json:"bundle,omitempty"`
	Policy  string `json:"policy,omitempty"`
}

// chapters are the headings of the story, by step.
var chapters = []string{
	"", "Setting up", "Alice signs in", "Alice asks", "Lee asks", "Attacks", "The answer, from the records alone", "The evidence, verified offline", "Go on from here, while everything keeps running; Ctrl-C ends it",
}

// The steps.
const (
	stepSetup = 1 + iota
	stepLogin
	stepQuestion
	stepSecond
	stepAttacks
	stepTrace
	stepEvidence
	stepExplore
)

// narrator hands events on, one at a time, each with the step that runs.
type narrator struct {
	mu   sync.Mutex // guards what follows, and the order of events
	step int
	emit func(Event)
}

func (n *narrator) chapter(step int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.step = step
}

func (n *narrator) tell(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e.Step = n.step
	n.emit(e)
}

// sentence tells on whose behalf something was done: the person, each agent
// that handed on, and what the last one did. The application stands at the
// beginning of the chain; it is named where nobody else acted.
func sentence(person string, chain []string, did string) string {
	if len(chain) < 2 {
		return person + ", signed in at " + strings.Join(chain, "") + ", " + did
	}
	s := person + " authorised " + chain[1]
	for _, name := range chain[2:] {
		s += ", which delegated to " + name
	}
	return s + ", which " + did
}

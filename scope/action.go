package scope

import (
	"slices"
	"strings"
)

// The actions: the closed list of what a detail can permit. Discovery needs no
// action, see Grant.CoversLocation.
const (
	MCPToolsCall     = "mcp:tools/call"
	MCPTasksUse      = "mcp:tasks/use"      // tasks/get, update, cancel
	MCPResourcesRead = "mcp:resources/read" // also subscriptions, per URI
	MCPPromptsGet    = "mcp:prompts/get"    // also completion/complete
	A2ASend          = "a2a:send"           // message/send, message/stream and their 1.0 names
	A2ATask          = "a2a:task"           // get, list, subscribe
	A2ACancel        = "a2a:cancel"
	A2APush          = "a2a:push" // push notification configurations
	LLMChat          = "llm:chat" // chat/completions, responses, messages
	LLMEmbed         = "llm:embed"
	HTTPGet          = "http:GET"
	HTTPHead         = "http:HEAD"
	HTTPPost         = "http:POST"
	HTTPPut          = "http:PUT"
	HTTPPatch        = "http:PATCH"
	HTTPDelete       = "http:DELETE"
)

// root is a first segment of a call document's paths.
type root uint8

const (
	rootArgs root = iota
	rootMCP
	rootURI
	rootURLs
	rootA2A
	rootLLM
	rootHTTP
	rootSQL
	numRoots
)

var rootNames = [numRoots]string{"args", "mcp", "uri", "urls", "a2a", "llm", "http", "sql"}

// rootMembers closes what stands directly below a root. A constraint on a fact
// that no reader ever emits would look like one and, if optional, be none.
// Roots that are not here have any member.
var rootMembers = [numRoots]set{
	rootMCP: newSet([]string{"version", "task_id", "input_responses", "retry"}),
	rootURI: urlMembers,
	rootA2A: newSet([]string{
		"version", "method", "streaming", "tenant", "context_id", "task_id", "reference_task_ids", "role",
		"kinds", "media_types", "fetch_hosts", "text_bytes", "extensions", "metadata", "push",
	}),
	rootLLM: newSet([]string{
		"api", "stream", "store", "max_tokens", "messages", "input_bytes", "media", "fetch_hosts", "tools",
		"tool_choice", "hosted_tools", "hosted_hosts", "previous_response_id",
	}),
	rootHTTP: newSet([]string{"method", "host", "port", "path", "params", "query", "headers", "media_type", "body_bytes"}),
	rootSQL:  newSet([]string{"dialect", "kind", "tables", "columns", "pred", "functions", "limit"}),
}

var (
	urlMembers  = newSet([]string{"scheme", "host", "port", "path", "query"})
	pushMembers = newSet([]string{"scheme", "host", "path"})
)

// guarded are the paths that lead beyond what the gateway sees: to tables, to
// hosts that someone else fetches from, to answers smuggled into a retry. Where a
// detail does not name one, it says absent.
var guarded = []string{
	"/sql/tables", "/llm/hosted_tools", "/llm/hosted_hosts", "/llm/fetch_hosts",
	"/a2a/fetch_hosts", "/a2a/push/host", "/mcp/input_responses",
}

// rootSet is a bit per root.
type rootSet uint16

func rootsOf(rs ...root) (s rootSet) {
	for _, r := range rs {
		s |= 1 << r
	}
	return s
}

func (s rootSet) has(r root) bool { return s&(1<<r) != 0 }

// emits reports the roots that any of the actions may emit.
func emits(as set) (s rootSet) {
	for _, a := range as {
		s |= actions[a].roots
	}
	return s
}

type action struct {
	verb  string
	roots rootSet
}

// actions is the closed table: action, verb, roots. GET, HEAD and DELETE have
// no /args, because content in them has no defined meaning (RFC 9110 §9.3).
var actions = func() map[string]action {
	var (
		tool  = rootsOf(rootArgs, rootMCP, rootURLs, rootSQL)
		fetch = rootsOf(rootHTTP, rootURLs)
		post  = rootsOf(rootArgs, rootHTTP, rootURLs, rootSQL)
		a2a   = rootsOf(rootA2A)
		llm   = rootsOf(rootLLM)
	)
	return map[string]action{
		MCPToolsCall:     {"mcp:call", tool},
		MCPTasksUse:      {"mcp:call", rootsOf(rootMCP)},
		MCPResourcesRead: {"mcp:read", rootsOf(rootMCP, rootURI)},
		MCPPromptsGet:    {"mcp:prompt", rootsOf(rootArgs, rootMCP, rootURLs)},
		A2ASend:          {"a2a:send", a2a},
		A2ATask:          {"a2a:task", a2a},
		A2ACancel:        {"a2a:task", a2a},
		A2APush:          {"a2a:push", a2a},
		LLMChat:          {"llm:chat", llm},
		LLMEmbed:         {"llm:embed", llm},
		HTTPGet:          {"http:read", fetch},
		HTTPHead:         {"http:read", fetch},
		HTTPPost:         {"http:write", post},
		HTTPPut:          {"http:write", post},
		HTTPPatch:        {"http:write", post},
		HTTPDelete:       {"http:write", fetch},
	}
}()

// Verb returns the OAuth scope value that an action implies; false if the action
// is not in the closed list.
func Verb(action string) (string, bool) {
	a, ok := actions[action]
	return a.verb, ok
}

// Actions returns all actions, sorted.
func Actions() []string {
	as := make([]string, 0, len(actions))
	for a := range actions {
		as = append(as, a)
	}
	slices.Sort(as)
	return as
}

// Roots returns the roots of the call document that an action may emit, such as
// "/args"; nil if the action is not in the closed list. A call with a fact under
// another root is not permitted.
func Roots(action string) []string {
	var rs []string
	for r := range numRoots {
		if actions[action].roots.has(r) {
			rs = append(rs, "/"+rootNames[r])
		}
	}
	return rs
}

// protocol is the part of an action before the colon.
func protocol(action string) string {
	p, _, _ := strings.Cut(action, ":")
	return p
}

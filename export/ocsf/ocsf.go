// Package ocsf writes records as events of the Open Cybersecurity Schema Framework, version 1.8.0.
//
//	decision, outcome, issuance,          ──▶ API Activity 6003
//	revocation, registry, query
//	heartbeat, gap, policy, key, erasure,  ──▶ Application Lifecycle 6002
//	period
//
// An event has what the schema requires of its class, and no attribute that the
// schema does not know: what OCSF has no word for, the chain of delegations
// above all, is below `unmapped.lineal`, with origin, index and record_hash. The
// record itself is not in it; [export.Line] has it.
//
// An outcome names its call and not who made it: its actor is the gateway that
// wrote it, and `metadata.correlation_uid` joins it to the decision. AI agents
// have an object of their own from 1.9.0 on; until then they are `actor.app_uid`.
package ocsf

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/record"
)

// SchemaVersion is the version of the schema that events follow.
const SchemaVersion = "1.8.0"

// The classes, and the category that both are of.
const (
	classLifecycle = 6002
	classAPI       = 6003
	category       = 6
)

// Activities of the two classes.
const (
	apiRead         = 2
	lifecycleStart  = 3
	lifecycleStop   = 4
	lifecycleUpdate = 8
	activityOther   = 99
)

// Severities and statuses.
const (
	severityInformational = 1
	severityLow           = 2
	severityMedium        = 3
	severityHigh          = 4

	statusUnknown = 0
	statusSuccess = 1
	statusFailure = 2
)

type object = map[string]any

// Event is the event of an entry as one JSON object without a line break, its
// members sorted. The same entry gives the same bytes.
func Event(e export.Entry) ([]byte, error) {
	event, err := eventOf(e)
	if err != nil {
		return nil, fmt.Errorf("making event of entry %d: %w", e.Index, err)
	}
	return json.Marshal(prune(event))
}

func eventOf(e export.Entry) (object, error) {
	at, err := e.Record.Time.Time()
	if err != nil {
		return nil, err
	}
	event := object{"time": at.UnixMilli(), "category_uid": category, "category_name": "Application Activity", "metadata": metadata(e)}
	more := object{"origin": e.Origin, "index": e.Index, "record_hash": e.Hash, "kind": string(e.Record.Kind)}
	r := e.Record
	switch {
	case r.Decision != nil:
		decision(event, more, r.Decision)
	case r.Outcome != nil:
		outcome(event, more, r)
	case r.Issuance != nil:
		issuance(event, more, r.Issuance)
	case r.Revocation != nil:
		v := r.Revocation
		operator(event, v.By, "lineal:revoke", string(v.Target)+" "+v.Value)
		severity(event, severityLow)
		event["status_detail"] = v.Cause
	case r.Registry != nil:
		v := r.Registry
		operator(event, cmp.Or(v.By, "unknown"), "lineal:registry:"+string(v.Op), string(v.Entry)+" "+v.Target)
		status(event, v.Result == record.RegistryApplied, v.Reason)
	case r.Query != nil:
		v := r.Query
		operator(event, v.By, "lineal:query", v.Question)
		event["activity_id"], event["activity_name"] = apiRead, "Read"
	default:
		lifecycle(event, more, r)
	}
	event["type_uid"] = event["class_uid"].(int)*100 + event["activity_id"].(int)
	event["unmapped"] = object{"lineal": more}
	return event, nil
}

// metadata says which record of which log the event is.
func metadata(e export.Entry) object {
	r := e.Record
	m := object{
		"version": SchemaVersion, "uid": r.ID, "event_code": string(r.Kind), "log_name": r.Log, "log_provider": r.Writer.ID,
		"original_time": string(r.Time), "product": object{"name": "Lineal", "vendor_name": "Lineal"},
	}
	switch {
	case r.Decision != nil:
		m["correlation_uid"] = r.Decision.CallID
	case r.Outcome != nil:
		m["correlation_uid"] = r.Outcome.CallID
	case r.Issuance != nil:
		m["correlation_uid"] = r.Issuance.Txn
	}
	if e.Index < 1<<31 { // an integer_t; the index itself is in unmapped
		m["sequence"] = e.Index
	}
	return m
}

func severity(event object, id int) {
	event["severity_id"] = id
	event["severity"] = map[int]string{
		severityInformational: "Informational", severityLow: "Low", severityMedium: "Medium", severityHigh: "High",
	}[id]
}

// status says how it ended; what was refused is of medium severity.
func status(event object, good bool, code string) {
	event["status_id"], event["status"] = statusSuccess, "Success"
	severity(event, severityInformational)
	if !good {
		event["status_id"], event["status"] = statusFailure, "Failure"
		severity(event, severityMedium)
	}
	event["status_code"] = code
}

func api(event object, activity int, name string) {
	event["class_uid"], event["class_name"] = classAPI, "API Activity"
	event["activity_id"], event["activity_name"] = activity, name
}

// activity is what an operation does, as far as OCSF has a word for it.
func activity(op string) (int, string) {
	switch {
	case strings.HasSuffix(op, "/list"), strings.HasSuffix(op, "/read"), strings.HasSuffix(op, "/get"):
		return apiRead, "Read"
	case op == "":
		return activityOther, "No route"
	default:
		return activityOther, op
	}
}

func decision(event, more object, d *record.Decision) {
	agent := cmp.Or(d.Caller.Claimed, d.Caller.Proven)
	op, resource, kind, tool := "", "", "", ""
	if d.Callee != nil {
		op, resource, kind, tool = d.Callee.Op, d.Callee.ID, string(d.Callee.Kind), d.Callee.Tool
	}
	id, name := activity(op)
	api(event, id, name)
	status(event, d.Verdict.Effect == record.Permit, d.Verdict.Reason)
	if x := d.Verdict.Exceeded; x != nil {
		event["status_detail"] = "the delegated scope ended at hop " + strconv.FormatInt(x.Hop, 10) + ", " + x.Path
	}
	event["message"] = message(d, agent, op, cmp.Or(tool, resource))
	event["actor"] = object{
		"user": person(d.Person), "app_uid": cmp.Or(agent, "unknown"), "idp": idp(d.Person), "invoked_by": invoker(d.Chain),
		"session":        object{"uid": d.Txn, "issuer": d.Issuer},
		"authorizations": []any{object{"decision": string(d.Verdict.Effect), "policy": policy(d.Policy)}},
	}
	event["api"] = object{
		"operation": cmp.Or(op, "unknown"), "request": object{"uid": d.CallID}, "service": object{"uid": resource, "name": kind},
		"response": object{"error": refusal(d.Verdict)},
	}
	event["src_endpoint"] = object{"uid": cmp.Or(d.Caller.Proven, agent, "unknown"), "svc_name": agent}
	if resource != "" {
		event["dst_endpoint"] = object{"uid": resource, "svc_name": resource}
		event["resources"] = []any{object{"uid": resource, "name": tool, "type": kind}}
	}
	more["proof"], more["auth"], more["needed"], more["rules"] = string(d.Caller.Proof), string(d.Caller.Auth), d.Request.Needed, d.Policy.Rules
	more["scope"], more["policy"], more["durability"] = string(d.Verdict.Scope), string(d.Verdict.Policy), string(d.Durability)
	more["chain"], more["trace"], more["parent_call"] = hops(d.Chain), d.Trace, d.ParentCall
}

func message(d *record.Decision, agent, op, target string) string {
	verdict := map[bool]string{true: "was permitted", false: "was refused"}[d.Verdict.Effect == record.Permit]
	return strings.Join(strings.Fields(strings.Join([]string{cmp.Or(agent, "an unknown caller"), verdict, op, target}, " ")), " ") +
		" (" + d.Verdict.Reason + ")"
}

// hops are the chain, root first: who held the authority of whom.
func hops(chain []record.Hop) []any {
	var out []any
	for _, h := range chain {
		out = append(out, object{
			"actor": h.Actor, "aud": h.Audience, "scope": h.Scope, "receipt_hash": h.ReceiptHash, "token_hash": h.TokenHash,
			"iat": h.IssuedAt, "exp": h.Expires,
		})
	}
	return out
}

// invoker is the agent before the caller.
func invoker(chain []record.Hop) string {
	if len(chain) < 2 {
		return ""
	}
	return chain[len(chain)-2].Actor
}

func person(p record.Person) object {
	if p.Ref == "" {
		return nil
	}
	return object{"uid": p.Ref, "type_id": 1, "type": "User"}
}

func idp(p record.Person) object {
	if p.Issuer == "" {
		return nil
	}
	return object{"uid": p.Issuer, "name": p.Issuer}
}

func policy(p record.Policy) object {
	return object{"uid": p.BundleDigest, "name": strings.Join(p.Rules, " "), "version": strconv.FormatInt(p.Serial, 10)}
}

func refusal(v record.Verdict) string {
	if v.Effect == record.Permit {
		return ""
	}
	return v.Reason
}

func outcome(event, more object, r record.Record) {
	o := r.Outcome
	api(event, activityOther, "Outcome")
	switch o.Status {
	case record.StatusCompleted:
		status(event, true, string(o.Status))
	case record.StatusUnknown:
		event["status_id"], event["status"], event["status_code"] = statusUnknown, "Unknown", string(o.Status)
		severity(event, severityLow)
	default:
		status(event, false, string(o.Status))
		severity(event, severityLow)
	}
	event["status_detail"] = o.Reason
	response := object{}
	if o.Code != nil {
		response["code"] = *o.Code
	}
	event["actor"] = object{"app_uid": r.Writer.ID}
	event["api"] = object{"operation": "lineal:outcome", "request": object{"uid": o.CallID}, "response": response}
	event["src_endpoint"] = object{"uid": r.Writer.ID}
	more["of"], more["forwarded"], more["bytes"] = o.Of, o.Forwarded, o.Bytes
	if o.Model != nil {
		more["model"] = o.Model
	}
}

func issuance(event, more object, i *record.Issuance) {
	api(event, activityOther, "Issue token")
	status(event, i.Result == record.Issued, i.Reason)
	event["actor"] = object{"user": person(i.Person), "app_uid": cmp.Or(i.Actor, "unknown"), "idp": idp(i.Person), "session": object{"uid": i.Txn}}
	event["api"] = object{"operation": "lineal:token", "service": object{"uid": i.Audience, "name": "token service"}}
	event["src_endpoint"] = object{"uid": cmp.Or(i.Actor, "unknown")}
	if i.Audience != "" {
		event["resources"] = []any{object{"uid": i.Audience}}
	}
	more["jti"], more["receipt_hash"], more["token_hash"], more["parent_hash"] = i.JTI, i.ReceiptHash, i.TokenHash, i.ParentHash
	more["client_auth"] = i.ClientAuth
}

// operator fills in what somebody with a role did.
func operator(event object, by, operation, resource string) {
	api(event, activityOther, operation)
	status(event, true, record.ReasonAllowed)
	event["actor"] = object{"app_uid": by}
	event["api"] = object{"operation": operation}
	event["src_endpoint"] = object{"uid": by}
	event["resources"] = []any{object{"name": strings.TrimSpace(resource)}}
}

// lifecycle is what a process of the product, or the log itself, went through.
func lifecycle(event, more object, r record.Record) {
	event["class_uid"], event["class_name"] = classLifecycle, "Application Lifecycle"
	event["app"] = object{"name": "Lineal " + string(r.Writer.Role), "uid": r.Writer.ID}
	event["activity_id"], event["activity_name"] = activityOther, string(r.Kind)
	severity(event, severityInformational)
	switch {
	case r.Heartbeat != nil:
		switch r.Heartbeat.State {
		case record.BeatStart:
			event["activity_id"], event["activity_name"] = lifecycleStart, "Start"
		case record.BeatStop:
			event["activity_id"], event["activity_name"] = lifecycleStop, "Stop"
		case record.Beat: // it goes on
		}
		more["counts"] = r.Heartbeat.Counts
	case r.Gap != nil:
		severity(event, severityHigh)
		more["gap"] = r.Gap
	case r.PolicyChange != nil:
		event["activity_id"], event["activity_name"] = lifecycleUpdate, "Update"
		more["policy"] = r.PolicyChange
	case r.KeyChange != nil:
		event["activity_id"], event["activity_name"] = lifecycleUpdate, "Update"
		if r.KeyChange.Op == record.KeyRevoke {
			severity(event, severityHigh)
		}
		more["key"] = r.KeyChange
	case r.Erasure != nil:
		severity(event, severityLow)
		more["erasure"] = r.Erasure
	case r.Period != nil:
		more["period"] = r.Period
	}
}

// prune leaves out what is empty, so that an event says nothing of what the
// record does not. Numbers and truth values stay.
func prune(v any) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for name, m := range v {
			if m = prune(m); m != nil {
				out[name] = m
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		var out []any
		for _, m := range v {
			if m = prune(m); m != nil {
				out = append(out, m)
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []string:
		if len(v) == 0 {
			return nil
		}
		return v
	case string:
		if v == "" {
			return nil
		}
		return v
	default:
		return v
	}
}

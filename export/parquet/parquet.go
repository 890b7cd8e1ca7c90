// Package parquet writes records as one Apache Parquet file, for those who ask with SQL.
//
//	Entry ──▶ Row: a column for each thing that one asks by ──▶ row groups ──▶ file
//	                └── record: the canonical JSON, for the rest
//
// [Row] is the schema: its members are the columns, in that order, and a column
// of which a record has nothing is null. Times are TIMESTAMP in UTC, in
// milliseconds. Columns are only ever added. The writer holds one row group of
// at most [RowGroup] rows in memory.
//
// A file is a copy like every form of package export: record_hash compares a row
// with a verified bundle.
package parquet

import (
	"fmt"
	"io"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/record"
)

// RowGroup is how many rows are held at once.
const RowGroup = 5000

// Row is one record. Strings that a record lacks are null.
type Row struct {
	// Origin and Index are the place in the log, RecordHash the SHA-256 of Record,
	// unpadded base64url.
	Origin     string `parquet:"origin,dict"`
	Index      int64  `parquet:"index,delta"`
	RecordHash string `parquet:"record_hash"`
	RecordID   string `parquet:"record_id"`
	// Kind is decision, outcome, issuance and so on; Time is the writer's assertion.
	Kind      string    `parquet:"kind,dict"`
	Time      time.Time `parquet:"time,timestamp(millisecond:utc)"`
	Writer    string    `parquet:"writer,dict"`
	Role      string    `parquet:"role,dict"`
	DataClass string    `parquet:"data_class,dict"`
	Region    string    `parquet:"region,dict"`
	// Txn, CallID, ParentCall and Trace join records: of decisions, Txn of issuances,
	// CallID of outcomes too.
	Txn        string `parquet:"txn,optional"`
	CallID     string `parquet:"call_id,optional"`
	ParentCall string `parquet:"parent_call,optional"`
	Trace      string `parquet:"trace,optional"`
	// Person is the reference; PersonIssuer where the person logged in.
	Person       string `parquet:"person,optional,dict"`
	PersonIssuer string `parquet:"person_issuer,optional,dict"`
	// Agent is the caller as claimed, of an issuance who gets the token, of an
	// operator's act who did it; CallerProven what the connection proved.
	Agent        string `parquet:"agent,optional,dict"`
	CallerProven string `parquet:"caller_proven,optional,dict"`
	Proof        string `parquet:"proof,optional,dict"`
	Auth         string `parquet:"auth,optional,dict"`
	// Resource is what was called, of an issuance its audience.
	CalleeKind string `parquet:"callee_kind,optional,dict"`
	Resource   string `parquet:"resource,optional,dict"`
	Tool       string `parquet:"tool,optional,dict"`
	Op         string `parquet:"op,optional,dict"`
	// Effect is permit or deny, of an issuance issued or refused, of a change of the
	// registry applied or refused. Reason is `allowed` or a code.
	Effect       string   `parquet:"effect,optional,dict"`
	Reason       string   `parquet:"reason,optional,dict"`
	ScopeAnswer  string   `parquet:"scope_answer,optional,dict"`
	PolicyAnswer string   `parquet:"policy_answer,optional,dict"`
	PolicyDigest string   `parquet:"policy_digest,optional,dict"`
	PolicySerial *int64   `parquet:"policy_serial,optional"`
	Rules        []string `parquet:"rules,list"`
	Needed       []string `parquet:"needed,list"`
	// Chain is every hop, root first.
	Chain []Hop `parquet:"chain,list"`
	// Of is the decision of an outcome, by record_id; Status how the call ended.
	Of            string     `parquet:"of,optional"`
	Status        string     `parquet:"status,optional,dict"`
	Forwarded     *bool      `parquet:"forwarded,optional"`
	Code          *int64     `parquet:"code,optional"`
	RequestBytes  *int64     `parquet:"request_bytes,optional"`
	ResponseBytes *int64     `parquet:"response_bytes,optional"`
	Ended         *time.Time `parquet:"ended,optional,timestamp(millisecond:utc)"`
	JTI           string     `parquet:"jti,optional"`
	// Record is the canonical JSON of the whole record.
	Record string `parquet:"record,json"`
}

// Hop is one hop of a chain.
type Hop struct {
	Actor    string    `parquet:"actor,dict"`
	Audience string    `parquet:"audience,dict"`
	Scope    string    `parquet:"scope,dict"`
	Hash     string    `parquet:"hash"` // of the receipt, of the last hop of the token
	IssuedAt time.Time `parquet:"issued_at,timestamp(millisecond:utc)"`
	Expires  time.Time `parquet:"expires,timestamp(millisecond:utc)"`
}

// Writer writes a file. Close it, else the file has no end.
type Writer struct{ w *parquet.GenericWriter[Row] }

// NewWriter begins a file.
func NewWriter(w io.Writer) *Writer {
	return &Writer{parquet.NewGenericWriter[Row](w, parquet.MaxRowsPerRowGroup(RowGroup), parquet.Compression(&zstd.Codec{}),
		parquet.CreatedBy("lineal", "", ""))}
}

// Write adds an entry.
func (w *Writer) Write(e export.Entry) error {
	row, err := RowOf(e)
	if err == nil {
		_, err = w.w.Write([]Row{row})
	}
	if err != nil {
		return fmt.Errorf("writing entry %d: %w", e.Index, err)
	}
	return nil
}

// Close writes what is held and the end of the file; the io.Writer stays open.
func (w *Writer) Close() error { return w.w.Close() }

// RowOf gives the columns of an entry.
func RowOf(e export.Entry) (Row, error) {
	r := e.Record
	at, err := r.Time.Time()
	if err != nil {
		return Row{}, err
	}
	row := Row{
		Origin: e.Origin, Index: e.Index, RecordHash: e.Hash, RecordID: r.ID, Kind: string(r.Kind), Time: at, Writer: r.Writer.ID,
		Role: string(r.Writer.Role), DataClass: string(r.DataClass), Region: string(r.Region), Record: string(e.Payload),
	}
	switch {
	case r.Decision != nil:
		row.decision(r.Decision)
	case r.Outcome != nil:
		err = row.outcome(r.Outcome)
	case r.Issuance != nil:
		i := r.Issuance
		row.Txn, row.Person, row.PersonIssuer, row.Agent, row.Auth = i.Txn, i.Person.Ref, i.Person.Issuer, i.Actor, i.ClientAuth
		row.Resource, row.Effect, row.Reason, row.PolicyDigest, row.JTI = i.Audience, string(i.Result), i.Reason, i.BundleDigest, i.JTI
	case r.Registry != nil:
		row.Agent, row.Effect, row.Reason = r.Registry.By, string(r.Registry.Result), r.Registry.Reason
	case r.Revocation != nil:
		row.Agent, row.Reason = r.Revocation.By, r.Revocation.Cause
	case r.Query != nil:
		row.Agent = r.Query.By
	case r.PolicyChange != nil:
		row.PolicyDigest, row.PolicySerial = r.PolicyChange.BundleDigest, &r.PolicyChange.Serial
	default: // what it says is in Record alone
	}
	return row, err
}

func (row *Row) decision(d *record.Decision) {
	row.Txn, row.CallID, row.ParentCall, row.Trace = d.Txn, d.CallID, d.ParentCall, d.Trace
	row.Person, row.PersonIssuer, row.Agent, row.CallerProven = d.Person.Ref, d.Person.Issuer, d.Caller.Claimed, d.Caller.Proven
	row.Proof, row.Auth = string(d.Caller.Proof), string(d.Caller.Auth)
	if row.Agent == "" {
		row.Agent = d.Caller.Proven
	}
	if c := d.Callee; c != nil {
		row.CalleeKind, row.Resource, row.Tool, row.Op = string(c.Kind), c.ID, c.Tool, c.Op
	}
	v := d.Verdict
	row.Effect, row.Reason, row.ScopeAnswer, row.PolicyAnswer = string(v.Effect), v.Reason, string(v.Scope), string(v.Policy)
	row.PolicyDigest, row.PolicySerial, row.Rules = d.Policy.BundleDigest, &d.Policy.Serial, d.Policy.Rules
	row.Needed, row.RequestBytes = d.Request.Needed, &d.Request.Bytes
	for _, h := range d.Chain {
		row.Chain = append(row.Chain, Hop{
			Actor: h.Actor, Audience: h.Audience, Scope: h.Scope, Hash: h.ReceiptHash + h.TokenHash, // one of them is ""
			IssuedAt: time.Unix(h.IssuedAt, 0).UTC(), Expires: time.Unix(h.Expires, 0).UTC(),
		})
	}
}

func (row *Row) outcome(o *record.Outcome) error {
	ended, err := o.Ended.Time()
	row.CallID, row.Of, row.Status, row.Reason = o.CallID, o.Of, string(o.Status), o.Reason
	row.Forwarded, row.Code, row.ResponseBytes, row.Ended = &o.Forwarded, o.Code, &o.Bytes, &ended
	return err
}

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
)

// Feed sends every record on to one receiver as it is published: each at least
// once, in order, with origin and index as its key. Where it stands is kept in
// feeds/<name>.json in the data directory. Of processes that share a store, one
// lists it. Exactly one of file, syslog and webhook says where to.
type Feed struct {
	// Name is of lower-case letters, digits and inner hyphens, 32 at most.
	Name string `yaml:"name"`
	// Format is "jsonl" (default), the records themselves, or "ocsf", events of the
	// Open Cybersecurity Schema Framework 1.8.0.
	Format string `yaml:"format,omitempty"`
	// Kinds are the kinds of record that are sent: decision, outcome, issuance, …;
	// default: all.
	Kinds []string `yaml:"kinds,omitempty"`
	// FromEnd has a new feed begin at what is published next; default: at the start
	// of the period now open.
	FromEnd bool `yaml:"from_end,omitempty"`
	// File is the absolute path of a file that lines are appended to. It may be
	// renamed at any time, and is then made anew.
	File    string   `yaml:"file,omitempty"`
	Syslog  *Syslog  `yaml:"syslog,omitempty"`
	Webhook *Webhook `yaml:"webhook,omitempty"`
}

// Syslog is a receiver of RFC 5424 messages over TLS (RFC 5425), or over TCP on a
// loopback address. A batch is acknowledged when the receiver closed the
// connection after it had read it.
type Syslog struct {
	// Address is its host:port, "siem.acme.example:6514".
	Address string `yaml:"address"`
	// CA is a PEM file of authorities of the receiver; default: the system's.
	CA string `yaml:"ca,omitempty"`
	// Cert and Key are PEM files of a client certificate, which are read for each
	// connection; default: none.
	Cert string `yaml:"cert,omitempty"`
	Key  string `yaml:"key,omitempty"`
	// Plain sends without TLS, to a loopback address alone: a relay on this machine.
	Plain bool `yaml:"plain,omitempty"`
	// CloseNotify counts a batch as read only if the receiver ended TLS too, so that
	// nobody on the way can pretend it; for receivers that do (rsyslog with GnuTLS
	// does not). Default: the end of the connection counts.
	CloseNotify bool `yaml:"close_notify,omitempty"`
	// Hostname of the messages; default: the host of public_url.
	Hostname string `yaml:"hostname,omitempty"`
	// Facility is 0 to 23; default 13, log audit.
	Facility *int `yaml:"facility,omitempty"`
	// MaxBytes is the longest message that the receiver takes; a longer record is
	// sent as its index and hash. Default 65536, which every record fits: have the
	// receiver take as much (rsyslog: maxMessageSize).
	MaxBytes int `yaml:"max_bytes,omitempty"`
	// Resend is how many records are sent again after a failure, for what the
	// receiver had read and not yet kept; default 1000.
	Resend *int64 `yaml:"resend,omitempty"`
}

// Webhook is a URL that batches are posted to, signed as Standard Webhooks says.
// A 2xx acknowledges a batch.
type Webhook struct {
	// URL is https, without a query.
	URL string `yaml:"url"`
	// SecretFiles hold one signing secret each, `whsec_…`; two while one replaces
	// the other.
	SecretFiles []string `yaml:"secret_files"`
	// AuthorizationFile holds the value of the header Authorization, and is read for
	// each delivery; default: none is sent.
	AuthorizationFile string `yaml:"authorization_file,omitempty"`
	// CA is a PEM file of authorities of the receiver; default: the system's.
	CA string `yaml:"ca,omitempty"`
	// Networks are reached besides public addresses, "10.20.0.0/16"; default: none.
	Networks []string `yaml:"networks,omitempty"`
}

// DefaultResend is how many records a syslog feed sends again.
const DefaultResend = 1000

// The formats of feeds.
const (
	FormatJSONL = "jsonl"
	FormatOCSF  = "ocsf"
)

func (c Config) validateFeeds() (errs []error) {
	seen := make(map[string]bool)
	for i, f := range c.Feeds {
		at := fmt.Sprintf("feeds[%d]", i)
		if !nodeName.MatchString(f.Name) {
			errs = append(errs, fmt.Errorf("%s.name: %q is not of lower-case letters, digits and inner hyphens, 32 at most", at, f.Name))
		}
		if seen[f.Name] {
			errs = append(errs, fmt.Errorf("%s.name: %s is listed twice", at, f.Name))
		}
		seen[f.Name] = true
		if f.File == "" && f.Syslog == nil && f.Webhook == nil {
			errs = append(errs, fmt.Errorf("%s: one of file, syslog and webhook is required", at))
		}
		if err := f.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
	}
	return errs
}

// feedKinds are the kinds of record, as package record has them.
var feedKinds = []string{
	"decision", "outcome", "issuance", "revocation", "policy", "key", "heartbeat", "gap", "erasure", "query", "period", "registry",
}

// Validate checks a feed, but for its name and that it has a receiver.
func (f Feed) Validate() error {
	var errs []error
	to := 0
	for _, there := range []bool{f.File != "", f.Syslog != nil, f.Webhook != nil} {
		if there {
			to++
		}
	}
	if to > 1 {
		errs = append(errs, errors.New("of file, syslog and webhook there is one"))
	}
	if f.File != "" && !filepath.IsAbs(f.File) {
		errs = append(errs, errors.New("file: must be an absolute path"))
	}
	if !slices.Contains([]string{"", FormatJSONL, FormatOCSF}, f.Format) {
		errs = append(errs, fmt.Errorf("format: %q is neither jsonl nor ocsf", f.Format))
	}
	for _, k := range f.Kinds {
		if !slices.Contains(feedKinds, k) {
			errs = append(errs, fmt.Errorf("kinds: %q is none of %q", k, feedKinds))
		}
	}
	if f.Syslog != nil {
		errs = append(errs, f.Syslog.validate()...)
	}
	if f.Webhook != nil {
		errs = append(errs, f.Webhook.validate()...)
	}
	return errors.Join(errs...)
}

func (s Syslog) validate() (errs []error) {
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil || host == "" {
		errs = append(errs, errors.New("syslog.address: want host:port"))
	}
	if addr, err := netip.ParseAddr(host); s.Plain && (err != nil || !addr.IsLoopback()) {
		errs = append(errs, errors.New("syslog.plain: is for a loopback address"))
	}
	if s.Plain && (s.CA != "" || s.Cert != "") {
		errs = append(errs, errors.New("syslog.plain: has no certificates"))
	}
	if (s.Cert == "") != (s.Key == "") {
		errs = append(errs, errors.New("syslog.cert, syslog.key: one without the other"))
	}
	if s.Facility != nil && (*s.Facility < 0 || *s.Facility > 23) {
		errs = append(errs, errors.New("syslog.facility: is not 0 to 23"))
	}
	if s.MaxBytes != 0 && s.MaxBytes < 480 {
		errs = append(errs, errors.New("syslog.max_bytes: every receiver takes 480"))
	}
	if s.Resend != nil && *s.Resend < 0 {
		errs = append(errs, errors.New("syslog.resend: is negative"))
	}
	return errs
}

func (w Webhook) validate() (errs []error) {
	if w.URL == "" {
		errs = append(errs, errors.New("webhook.url: required"))
	}
	if len(w.SecretFiles) == 0 {
		errs = append(errs, errors.New("webhook.secret_files: at least one is required"))
	}
	for _, n := range w.Networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			errs = append(errs, fmt.Errorf("webhook.networks: %q is no prefix", n))
		}
	}
	return errs
}

package registry

import (
	"context"
	"errors"
	"fmt"
)

// EntryKind is a kind of entry.
type EntryKind string

// The kinds of entries.
const (
	EntryIssuer   EntryKind = "issuer"   // a PersonIssuer, by its issuer
	EntryAgent    EntryKind = "agent"    // an Agent, by its URI
	EntryResource EntryKind = "resource" // an Audience, by its URI
	EntryClient   EntryKind = "client"   // a Client, by its id
)

// EntryKinds are the kinds, each after those that it may refer to.
func EntryKinds() []EntryKind {
	return []EntryKind{EntryIssuer, EntryAgent, EntryResource, EntryClient}
}

// Entry is an agent, resource, issuer or client as a document.
type Entry struct {
	Kind EntryKind
	// ID is the URI, issuer or client id, as in the document.
	ID string
	// Revision is the number of the change that made the entry what it is; 0 for
	// one of the configuration.
	Revision int64
	// Document is JSON in the one form of [ParseEntry]; nil: no entry.
	Document []byte
}

// ErrChanged says that somebody else changed the catalog first.
var ErrChanged = errors.New("changed by another in between")

// Catalog keeps what operators register while the services run. Its changes are
// numbered from 1 without a gap. A catalog knows no rule but that of the number:
// what an entry says, and whether it fits the others, is judged by [Live].
//
// Catalog is safe for concurrent use, also from several processes.
type Catalog interface {
	// CatalogRevision is the number of the last change, 0 if there never was one.
	// It is asked at each use of the directory.
	CatalogRevision(ctx context.Context) (int64, error)
	// CatalogEntries returns all entries, sorted by kind and id, as they are at
	// one revision.
	CatalogEntries(ctx context.Context) (entries []Entry, revision int64, err error)
	// ChangeCatalog sets the entry of e's kind and id, or removes it if it has no
	// document, as change at+1. ErrChanged if the last change is not number at. It
	// is durable when ChangeCatalog returns nil; on another error it may be there
	// or not. e.Revision is ignored.
	ChangeCatalog(ctx context.Context, at int64, e Entry) error
}

// maxDocument bounds a document as drivers keep it.
const maxDocument = 64 << 10

// Check reports what every driver refuses in an entry by itself.
func (e Entry) Check() error {
	switch e.Kind {
	case EntryAgent, EntryResource, EntryIssuer, EntryClient:
	default:
		return fmt.Errorf("entry of kind %q", e.Kind)
	}
	if e.ID == "" || len(e.ID) > 2048 || len(e.Document) > maxDocument {
		return errors.New("entry without id, or too long")
	}
	return nil
}

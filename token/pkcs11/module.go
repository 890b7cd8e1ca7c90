//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"
)

// A C library is there once in a process, whoever asks, and C_Finalize ends it
// for all. So the modules in use are counted here.
var modules struct {
	sync.Mutex // guards open
	open       map[string]*module
}

type module struct {
	*pkcs11.Ctx
	path  string
	users int
}

// load loads and initialises a module, or shares it.
func load(path string) (*module, error) {
	modules.Lock()
	defer modules.Unlock()
	if m := modules.open[path]; m != nil {
		m.users++
		return m, nil
	}
	m := &module{Ctx: pkcs11.New(path), path: path, users: 1}
	if m.Ctx == nil {
		return nil, fmt.Errorf("%s is no PKCS #11 module", path)
	}
	if err := m.Initialize(); err != nil && !is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		m.Destroy()
		return nil, fmt.Errorf("initialising %s: %w", path, err)
	}
	if modules.open == nil {
		modules.open = map[string]*module{}
	}
	modules.open[path] = m
	return m, nil
}

func (m *module) release() error {
	modules.Lock()
	defer modules.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	delete(modules.open, m.path)
	err := m.Finalize()
	m.Destroy()
	return err
}

// slot finds the one token that the URI names.
func (m *module) slot(u uri) (uint, error) {
	slots, err := m.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("listing tokens: %w", err)
	}
	var found []uint
	for _, s := range slots {
		info, err := m.GetTokenInfo(s)
		if err != nil {
			continue
		}
		if (u.token == "" || u.token == info.Label) && (u.serial == "" || u.serial == info.SerialNumber) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d tokens of this name, not one", len(found))
	}
	return found[0], nil
}

// find returns the one object of a class with these attributes.
func (m *module) find(s pkcs11.SessionHandle, class uint, id, label string) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if id != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(id)))
	}
	if label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	if err := m.FindObjectsInit(s, template); err != nil {
		return 0, err
	}
	found, _, err := m.FindObjects(s, 2)
	if err = errors.Join(err, m.FindObjectsFinal(s)); err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d objects of this name, not one", len(found))
	}
	return found[0], nil
}

// is reports whether err is this return value of the module.
func is(err error, rv uint) bool {
	var e pkcs11.Error
	return errors.As(err, &e) && uint(e) == rv
}

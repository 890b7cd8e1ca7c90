package sts

import (
	"context"
	"errors"

	"github.com/lineal-auth/lineal/token"
)

// fixedKeys is the IssuerKeys of one key that never changes.
type fixedKeys struct {
	token.OneKey
	*token.StaticKeys
	public token.PublicKey
}

func fixed(s token.Signer) (IssuerKeys, error) {
	if s == nil {
		return nil, errors.New("no keys and no signer")
	}
	public, err := token.PublicKeyOf(s)
	if err != nil {
		return nil, err
	}
	set, err := token.NewStaticKeys(public)
	return fixedKeys{token.OneKey{Signer: s}, set, public}, err
}

func (k fixedKeys) Refresh(context.Context) error               { return nil }
func (k fixedKeys) Published(context.Context) []token.PublicKey { return []token.PublicKey{k.public} }

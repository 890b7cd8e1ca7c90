package a2a

import (
	"errors"
	"slices"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// members03 are what only version 0.3 has in a card.
var members03 = []string{"url", "preferredTransport", "additionalInterfaces", "protocolVersion", "security", "supportsAuthenticatedExtendedCard"}

// bearer is the one security scheme of ours, by its name.
const bearer = "lineal"

func object(ms ...strictjson.Member) strictjson.Value { return strictjson.Object(ms...) }

func with(name string, v strictjson.Value) strictjson.Member {
	return strictjson.Member{Name: name, Value: v}
}

func str(s string) strictjson.Value { return strictjson.String(s) }

// rewrite makes the agent's card that of the route: our URL and security
// scheme, the bindings and versions that are read here, and no capability that
// would be refused. A card of 1.0 loses what only 0.3 has, because signatures of
// 1.0 do not cover it.
func (r *Reader) rewrite(card strictjson.Value) (strictjson.Value, error) {
	names := append([]string{"supportedInterfaces", "capabilities", "securitySchemes", "securityRequirements", "signatures"}, members03...)
	if err := strictjson.KnownOpen(card, names...); err != nil {
		return card, err
	}
	card = without(card, "signatures")
	if capabilities, ok := card.Get("capabilities"); ok {
		if err := strictjson.KnownOpen(capabilities, "pushNotifications", "extendedAgentCard"); err != nil {
			return card, err
		}
		for _, name := range []string{"pushNotifications", "extendedAgentCard"} {
			if name == "pushNotifications" && r.cfg.Push != nil || name == "extendedAgentCard" && r.cards.extended() {
				continue
			}
			if _, ok := capabilities.Get(name); ok {
				capabilities = capabilities.With(name, strictjson.Bool(false))
			}
		}
		card = card.With("capabilities", capabilities)
	}
	if interfaces, ok := card.Get("supportedInterfaces"); ok {
		return r.rewrite10(without(card, members03...), interfaces)
	}
	return r.rewrite03(card)
}

func (r *Reader) rewrite10(card, interfaces strictjson.Value) (strictjson.Value, error) {
	if interfaces.Kind() != strictjson.KindArray {
		return card, errors.New("supportedInterfaces is no list")
	}
	var kept []strictjson.Value
	for _, i := range interfaces.Items() {
		if err := strictjson.KnownOpen(i, "url", "protocolBinding", "protocolVersion", "tenant"); err != nil {
			return card, err
		}
		binding, _ := i.Get("protocolBinding")
		version, _ := i.Get("protocolVersion")
		at := r.cfg.URL
		switch text(binding) {
		case "GRPC":
			if at = r.cfg.GRPC; at == "" || text(version) != Version10 {
				continue
			}
		case "JSONRPC", "HTTP+JSON":
		default:
			continue
		}
		if slices.Contains(r.cfg.Versions, text(version)) {
			kept = append(kept, i.With("url", str(at)))
		}
	}
	if len(kept) == 0 {
		return card, errors.New("no interface that is read here")
	}
	card = card.With("supportedInterfaces", strictjson.Array(kept...))
	card = card.With("securitySchemes", object(with(bearer, object(with("httpAuthSecurityScheme", object(with("scheme", str("Bearer")), with("bearerFormat", str("JWT"))))))))
	return card.With("securityRequirements", strictjson.Array(object(with("schemes", object(with(bearer, object(with("list", strictjson.Strings(r.scopes()...))))))))), nil
}

func (r *Reader) rewrite03(card strictjson.Value) (strictjson.Value, error) {
	if !slices.Contains(r.cfg.Versions, Version03) {
		return card, errors.New("no interface that is read here")
	}
	preferred, ok := card.Get("preferredTransport")
	if ok && text(preferred) != "JSONRPC" && text(preferred) != "HTTP+JSON" {
		return card, errors.New("no interface that is read here")
	}
	card = card.With("url", str(r.cfg.URL))
	if additional, ok := card.Get("additionalInterfaces"); ok {
		var kept []strictjson.Value
		for _, i := range additional.Items() {
			if err := strictjson.KnownOpen(i, "url", "transport"); err != nil {
				return card, err
			}
			if name, _ := i.Get("transport"); text(name) == "JSONRPC" || text(name) == "HTTP+JSON" {
				kept = append(kept, i.With("url", str(r.cfg.URL)))
			}
		}
		card = card.With("additionalInterfaces", strictjson.Array(kept...))
	}
	if _, ok := card.Get("supportsAuthenticatedExtendedCard"); ok && !r.cards.extended() {
		card = card.With("supportsAuthenticatedExtendedCard", strictjson.Bool(false))
	}
	card = card.With("securitySchemes", object(with(bearer, object(with("type", str("http")), with("scheme", str("Bearer")), with("bearerFormat", str("JWT"))))))
	return card.With("security", strictjson.Array(object(with(bearer, strictjson.Strings(r.scopes()...))))), nil
}

// scopes are what a client asks for to use all of the route.
func (r *Reader) scopes() []string {
	var verbs []string
	for _, action := range r.Actions() {
		if verb, ok := scope.Verb(action); ok && !slices.Contains(verbs, verb) {
			verbs = append(verbs, verb)
		}
	}
	return verbs
}

func without(v strictjson.Value, names ...string) strictjson.Value {
	return object(slices.DeleteFunc(v.Members(), func(m strictjson.Member) bool { return slices.Contains(names, m.Name) })...)
}

var _ gateway.Publisher = (*Reader)(nil)

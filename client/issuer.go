package client

import "github.com/lineal-auth/lineal/token"

// ConfigFor is the Config for one issuer, its URL as `iss` names it: where tokens
// are exchanged, and how delegations that come in are verified, by the keys and
// chains that the issuer publishes. All of it is asked over remote's HTTP, which
// is required; clock and logger are remote's. Who receives calls adds Audience,
// and who has a certificate that rotates Thumbprint.
func ConfigFor(issuer string, remote token.RemoteConfig) (Config, error) {
	keys, err := token.NewRemoteKeys(issuer+"/jwks", remote)
	if err != nil {
		return Config{}, err
	}
	// The gateway has asked whether what it handed over is revoked, and asks again.
	verifier, err := token.NewVerifier(token.Config{
		Issuers: []token.TrustedIssuer{{Name: issuer, Keys: keys}}, Chains: token.NewRemoteChains(remote),
		Revocations: token.NoRevocations{}, Now: remote.Now, Logger: remote.Logger,
	})
	if err != nil {
		return Config{}, err
	}
	return Config{TokenURL: issuer + "/token", HTTP: remote.HTTP, Verifier: verifier, Now: remote.Now, Logger: remote.Logger}, nil
}

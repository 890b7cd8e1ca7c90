package aws_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/aws"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	audience  = "https://sts.acme.example"
	iss       = "https://3f2c9a70-8b1d-4e55-a0c7-5d6e7f809a1b.tokens.sts.global.api.aws"
	account   = "123456789012"
	arn       = "arn:aws:iam::123456789012:role/agents/ResearchAgent"
	namespace = "https://sts.amazonaws.com/"
)

// newRig is a source for one account and a JWT as sts:GetWebIdentityToken returns
// it to a Lambda function's role.
func newRig(t testing.TB, alg string, edit func(*aws.Config)) issuertest.Rig {
	t.Helper()
	net := issuertest.NewNetwork(t)
	key := issuertest.NewKey(t, "EC384_0", alg)
	net.Issuer(t, iss, iss+"/.well-known/jwks.json", key)
	cfg := aws.Config{Name: "aws-prod", Issuer: iss, Account: account, Audience: audience, HTTP: net.Client()}
	if edit != nil {
		edit(&cfg)
	}
	source, err := aws.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return issuertest.Rig{
		Source: source, Key: key, Agent: arn, Name: "aws-prod", Header: map[string]any{"typ": "JWT"},
		Claims: map[string]any{
			"aud": audience, "sub": arn, "iss": iss, "iat": issuertest.Now, "exp": issuertest.Now + 300,
			"jti": "7c1d5f0e-24a9-4b1c-8f43-0a5b2f7c9d11",
			namespace: map[string]any{
				"aws_account": account, "source_region": "eu-west-1", "org_id": "o-abc1234567",
				"ou_path":                    []string{"o-abc1234567/r-ab12/ou-ab12-11111111/"},
				"principal_tags":             map[string]any{"team": "research"},
				"request_tags":               map[string]any{"aws_account": "999999999999"},
				"lambda_source_function_arn": "arn:aws:lambda:eu-west-1:123456789012:function:research",
			},
		},
		ForeignAudiences: []string{"sts.amazonaws.com", "https://api.openai.com/v1", "api://AzureADTokenExchange", iss},
		Lookalikes: []string{
			"https://00000000-8b1d-4e55-a0c7-5d6e7f809a1b.tokens.sts.global.api.aws", iss + ".evil.test", "https://tokens.sts.global.api.aws",
			"https://sts.amazonaws.com/", "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE",
		},
	}
}

func TestAlgorithms(t *testing.T) {
	for _, alg := range []string{"RS256", "ES384"} {
		r := newRig(t, alg, nil)
		r.Accept(t, r.JWT(t))
	}
	r := newRig(t, "ES256", nil) // not what AWS signs with
	r.Refuse(t, r.JWT(t), identity.AssertionAlgorithm)
}

func TestI4Keys(t *testing.T)      { newRig(t, "ES384", nil).Keys(t) }
func TestI5Audience(t *testing.T)  { newRig(t, "RS256", nil).Audience(t) }
func TestI8Times(t *testing.T)     { newRig(t, "RS256", nil).Times(t, 300*time.Second) }
func TestP10Headers(t *testing.T)  { newRig(t, "ES384", nil).Headers(t) }
func TestP9Spellings(t *testing.T) { newRig(t, "RS256", nil).Spellings(t) }

// The row of tokens.md §9: the account's issuer speaks for the account, and sub is
// a principal of it.
func TestAccount(t *testing.T) {
	claim, workload, claims := issuertest.Claim, identity.AssertionWorkload, identity.AssertionClaims
	cases := []issuertest.Case{
		issuertest.Wrong("another account", claim("999999999999", namespace, "aws_account"), workload),
		issuertest.Wrong("no account", claim(nil, namespace, "aws_account"), workload),
		issuertest.Wrong("account as a number", claim(123456789012, namespace, "aws_account"), claims),
		issuertest.Wrong("no namespace", claim(nil, namespace), workload),
		issuertest.Wrong("account at the top", func(h, c map[string]any) {
			claim(nil, namespace)(h, c)
			claim(account, "aws_account")(h, c)
		}, workload),
		issuertest.Wrong("namespace without the slash", func(h, c map[string]any) {
			claim(nil, namespace)(h, c)
			claim(map[string]any{"aws_account": account}, "https://sts.amazonaws.com")(h, c)
		}, workload),
		issuertest.Wrong("folded account", claim(account, namespace, "AWS_account"), claims),
		issuertest.Wrong("account of a tag", func(h, c map[string]any) {
			claim(nil, namespace, "aws_account")(h, c)
			claim(account, namespace, "request_tags", "aws_account")(h, c)
		}, workload),
	}
	for _, sub := range []string{
		"arn:aws:iam::999999999999:role/ResearchAgent", "arn:aws:iam::123456789012", "arn:aws:iam::123456789012:", "arn:aws:s3::123456789012:bucket",
		"arn:aws:iam:eu-west-1:123456789012:role/x", "role/ResearchAgent", "AROAEXAMPLE:session", "123456789012", "arn::iam::123456789012:role/x",
		"arn:aws:iam::123456789012:role/a b", "arn:aws:iam::123456789012:role/é", "x:arn:aws:iam::123456789012:role/x",
	} {
		cases = append(cases, issuertest.Case{Name: "sub " + sub, Edit: claim(sub, "sub"), Want: workload})
	}
	newRig(t, "RS256", nil).Cases(t, cases...)
}

func TestMappedAgents(t *testing.T) {
	r := newRig(t, "RS256", func(c *aws.Config) {
		c.Agents = map[string]identity.Agent{arn: identity.MustParseAgent("spiffe://acme.example/research")}
	})
	r.Agent = "spiffe://acme.example/research"
	r.Accept(t, r.JWT(t))
	r.Agent = arn + "2"
	r.Accept(t, r.JWT(t, issuertest.Claim(arn+"2", "sub")))
}

func TestConfigRefusals(t *testing.T) {
	for name, edit := range map[string]func(*aws.Config){
		"no name":           func(c *aws.Config) { c.Name = "" },
		"no issuer":         func(c *aws.Config) { c.Issuer = "" },
		"everyone's issuer": func(c *aws.Config) { c.Issuer = "https://tokens.sts.global.api.aws" },
		"other domain":      func(c *aws.Config) { c.Issuer += ".evil.test" },
		"a path before":     func(c *aws.Config) { c.Issuer = "https://evil.test/x.tokens.sts.global.api.aws" },
		"a user before":     func(c *aws.Config) { c.Issuer = "https://x@y.tokens.sts.global.api.aws" },
		"plain":             func(c *aws.Config) { c.Issuer = "http" + c.Issuer[5:] },
		"slash":             func(c *aws.Config) { c.Issuer += "/" },
		"no account":        func(c *aws.Config) { c.Account = "" },
		"short account":     func(c *aws.Config) { c.Account = "12345" },
		"account in words":  func(c *aws.Config) { c.Account = "acmeaccount1" },
		"AWS's audience":    func(c *aws.Config) { c.Audience = "sts.amazonaws.com" },
		"zero agent":        func(c *aws.Config) { c.Agents = map[string]identity.Agent{arn: {}} },
		"other account's agent": func(c *aws.Config) {
			c.Agents = map[string]identity.Agent{"arn:aws:iam::999999999999:role/x": identity.MustParseAgent("spiffe://a/b")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := aws.Config{Name: "aws-prod", Issuer: iss, Account: account, Audience: audience}
			if _, err := aws.New(cfg); err != nil {
				t.Fatal(err)
			}
			edit(&cfg)
			if _, err := aws.New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func ExampleNew() {
	source, err := aws.New(aws.Config{
		Name:     "aws-prod",
		Issuer:   "https://3f2c9a70-8b1d-4e55-a0c7-5d6e7f809a1b.tokens.sts.global.api.aws",
		Account:  "123456789012",
		Audience: "https://sts.acme.example",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = source.Authenticate(context.Background(), identity.AssertionJWT, "not a token", time.Now())
	fmt.Println(err)
	// Output: assertion_malformed: source aws-prod: byte 3 is outside the alphabet
}

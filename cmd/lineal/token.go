package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/demo"
	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/internal/handout"
)

// tokenRequest is what `lineal token` is asked for.
type tokenRequest struct {
	dataDir, as, route, user, out, details string
}

func newToken(s streams) *cobra.Command {
	var r tokenRequest
	c := &cobra.Command{
		Use:   "token --data DIR --as AGENT --for ROUTE",
		Short: "Get a delegation token, with the certificate it is bound to, as files",
		Long: "Sign a person in at a running demo (`lineal demo --keep`), exchange the login for a\n" +
			"delegation token, and write token, certificate, key and authority as files. The token is\n" +
			"printed; it is of no use without the key.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return getToken(c.Context(), s, r) },
	}
	f := c.Flags()
	f.StringVar(&r.dataDir, "data", "", "the data directory of the running demo (required)")
	f.StringVar(&r.as, "as", "desk", "the agent that will hold the token")
	f.StringVar(&r.route, "for", "", "the route that it is for (required)")
	f.StringVar(&r.user, "user", "alice@example.com", "the person who signs in")
	f.StringVar(&r.details, "details", "", "authorization_details to ask for; default: what the route's calls need")
	f.StringVar(&r.out, "out", "", "the directory to write to; default: below the data directory")
	c.AddCommand(newTokenCert(s), newTokenExec(s), newTokenJWT(s))
	return c
}

func newTokenExec(s streams) *cobra.Command {
	var r tokenRequest
	c := &cobra.Command{
		Use:   "exec --data DIR --as AGENT --for ROUTE",
		Short: "Print a delegation token as kubectl's credential plugins do",
		Long: "Get a delegation token as `lineal token` does and print it, with the certificate and key that\n" +
			"it is bound to, as an ExecCredential of client.authentication.k8s.io/v1, for programs that\n" +
			"run a plugin for their credential. Nothing stays on disk, and nothing is printed on a terminal.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if isTerminal(s) {
				return &exitError{code: exitUsage, err: errors.New("this prints a private key: not on a terminal"), hint: "lineal token writes files"}
			}
			return execCredential(c.Context(), s, r)
		},
	}
	f := c.Flags()
	f.StringVar(&r.dataDir, "data", "", "the data directory of the running demo (required)")
	f.StringVar(&r.as, "as", "desk", "the agent that will hold the token")
	f.StringVar(&r.route, "for", "", "the route that it is for (required)")
	f.StringVar(&r.user, "user", "alice@example.com", "the person who signs in")
	f.StringVar(&r.details, "details", "", "authorization_details to ask for; default: what the route's calls need")
	return c
}

// credential is an ExecCredential (client.authentication.k8s.io/v1).
type credential struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Status     credentialStatus `json:"status"`
}

type credentialStatus struct {
	Expires string `json:"expirationTimestamp"`
	Token   string `json:"token"`
	Cert    string `json:"clientCertificateData"`
	Key     string `json:"clientKeyData"`
}

func execCredential(ctx context.Context, s streams, r tokenRequest) (err error) {
	if r.out, err = os.MkdirTemp("", "lineal-token-"); err != nil {
		return failed(err, "")
	}
	defer func() { _ = os.RemoveAll(r.out) }()
	files, err := handOut(ctx, r)
	if err != nil {
		return err
	}
	c := credential{APIVersion: "client.authentication.k8s.io/v1", Kind: "ExecCredential"}
	c.Status.Expires = files.Expires.UTC().Format(time.RFC3339)
	for path, to := range map[string]*string{files.Token: &c.Status.Token, files.Cert: &c.Status.Cert, files.Key: &c.Status.Key} {
		text, err := os.ReadFile(path)
		if err != nil {
			return failed(err, "")
		}
		*to = string(text)
	}
	c.Status.Token = strings.TrimSpace(c.Status.Token)
	return json.NewEncoder(s.out).Encode(c)
}

func newTokenCert(s streams) *cobra.Command {
	var dataDir, as, out string
	c := &cobra.Command{
		Use:   "cert --data DIR --as AGENT --out DIR",
		Short: "Get an agent's certificate alone, as files, to exchange tokens with",
		Long: "Fetch the certificate of an agent of a running demo (`lineal demo --keep`) from its Workload\n" +
			"API and write certificate, key and authority as files: for a program that exchanges tokens\n" +
			"itself, by an OAuth library of its own language.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return getCertificate(c.Context(), s, dataDir, as, out) },
	}
	f := c.Flags()
	f.StringVar(&dataDir, "data", "", "the data directory of the running demo (required)")
	f.StringVar(&as, "as", "", "the agent (required)")
	f.StringVar(&out, "out", "", "the directory to write to (required)")
	return c
}

func newTokenJWT(s streams) *cobra.Command {
	var dataDir, as, out string
	c := &cobra.Command{
		Use:   "jwt --data DIR --as AGENT --out FILE",
		Short: "Get an agent's JWT-SVID for the token service, as a file",
		Long: "Fetch a JWT-SVID of an agent of a running demo (`lineal demo --keep`) from its Workload API and\n" +
			"write it to a file, mode 0600: for clients that show who they are by such a file.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if out == "" {
				return &exitError{code: exitUsage, err: errors.New("no file to write to: --out FILE")}
			}
			d, agent, err := deployedAgent(dataDir, as)
			if err != nil {
				return err
			}
			if err := handout.GetJWT(c.Context(), agent.Socket, d.Issuer, out); err != nil {
				return failed(err, "is the demo still running?")
			}
			return json.NewEncoder(s.out).Encode(map[string]string{"agent": agent.URI, "jwt": out})
		},
	}
	f := c.Flags()
	f.StringVar(&dataDir, "data", "", "the data directory of the running demo (required)")
	f.StringVar(&as, "as", "", "the agent (required)")
	f.StringVar(&out, "out", "", "the file to write to (required)")
	return c
}

func getCertificate(ctx context.Context, s streams, dataDir, as, out string) error {
	if out == "" {
		return &exitError{code: exitUsage, err: errors.New("no directory to write to: --out DIR")}
	}
	_, agent, err := deployedAgent(dataDir, as)
	if err != nil {
		return err
	}
	files, err := handout.GetCertificate(ctx, agent.Socket, out)
	if err != nil {
		return failed(err, "is the demo still running?")
	}
	return json.NewEncoder(s.out).Encode(files)
}

func getToken(ctx context.Context, s streams, r tokenRequest) error {
	files, err := handOut(ctx, r)
	if err != nil {
		return err
	}
	report, err := json.Marshal(files)
	if err != nil {
		return failed(err, "")
	}
	token, err := os.ReadFile(files.Token)
	if err != nil {
		return failed(err, "")
	}
	_, _ = fmt.Fprintf(s.err, "%s\n", report)
	_, err = s.out.Write(token)
	return err
}

// handOut signs the person in and writes token and certificate.
func handOut(ctx context.Context, r tokenRequest) (handout.Files, error) {
	d, err := readDeployment(r.dataDir)
	if err != nil {
		return handout.Files{}, failed(err, "start one with: lineal demo --keep")
	}
	agent, route, password, err := choose(d, r)
	if err != nil {
		return handout.Files{}, &exitError{code: exitUsage, err: err, hint: filepath.Join(r.dataDir, demo.DeploymentFile) + " lists agents, routes and people"}
	}
	login, err := signIn(ctx, d, agent, r.user, password)
	if err != nil {
		return handout.Files{}, failed(err, "is the demo still running?")
	}
	if r.details == "" {
		r.details = string(route.Details)
	}
	if r.out == "" {
		r.out = filepath.Join(r.dataDir, "tokens", r.as+"-"+r.route)
	}
	files, err := handout.Get(ctx, handout.Request{
		Socket: agent.Socket, TokenURL: d.TokenURL, TokenService: d.Tokens, IDToken: login.IDToken,
		Audience: route.Audience, Details: []byte(r.details), Dir: r.out,
	})
	if err != nil {
		return handout.Files{}, failed(err, "")
	}
	return files, nil
}

func readDeployment(dataDir string) (d demo.Deployment, err error) {
	if dataDir == "" {
		return d, errors.New("no data directory: --data DIR")
	}
	text, err := os.ReadFile(filepath.Join(dataDir, demo.DeploymentFile))
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(text, &d)
}

// deployedAgent finds an agent of a running demo by name.
func deployedAgent(dataDir, name string) (d demo.Deployment, agent demo.DeployedAgent, err error) {
	if d, err = readDeployment(dataDir); err != nil {
		return d, agent, failed(err, "start one with: lineal demo --keep")
	}
	i := slices.IndexFunc(d.Agents, func(a demo.DeployedAgent) bool { return a.Name == name })
	if i < 0 {
		return d, agent, &exitError{code: exitUsage, err: fmt.Errorf("no agent %q", name), hint: filepath.Join(dataDir, demo.DeploymentFile) + " lists agents"}
	}
	return d, d.Agents[i], nil
}

// choose finds agent, route and person by name.
func choose(d demo.Deployment, r tokenRequest) (agent demo.DeployedAgent, route demo.DeployedRoute, password string, err error) {
	for _, a := range d.Agents {
		if a.Name == r.as {
			agent = a
		}
	}
	for _, x := range d.Routes {
		if x.Name == r.route {
			route = x
		}
	}
	for _, u := range d.Users {
		if u.Username == r.user {
			password = u.Password
		}
	}
	switch {
	case agent.Name == "":
		err = fmt.Errorf("no agent %q", r.as)
	case agent.OIDCClient == "":
		err = fmt.Errorf("%s signs nobody in: it gets its tokens from the calls it serves", r.as)
	case route.Name == "":
		err = fmt.Errorf("no route %q", r.route)
	case password == "":
		err = fmt.Errorf("no person %q", r.user)
	}
	return agent, route, password, err
}

// signIn is the code flow with the browser's part played.
func signIn(ctx context.Context, d demo.Deployment, agent demo.DeployedAgent, user, password string) (devidp.LoginResult, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return devidp.LoginResult{}, err
	}
	return devidp.Login(ctx, &http.Client{Jar: jar}, devidp.LoginConfig{
		Issuer: d.Provider, ClientID: agent.OIDCClient, RedirectURI: d.Redirect, Username: user, Password: password,
	})
}

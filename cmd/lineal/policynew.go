package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/server"
)

// policyNew are the flags of `policy new`.
type policyNew struct {
	from, service, out, environment, bearer string
	reads, sql, agents                      []string
}

func newPolicyNew(s streams) *cobra.Command {
	var n policyNew
	c := &cobra.Command{
		Use:   "new --from FILE|URL --service NAME --out DIR",
		Short: "Write a first policy set from an MCP server's list of tools",
		Long: "Write a first policy set from an MCP server's list of tools: a file with the result of\n" +
			"tools/list, or the server's URL. Each tool is permitted to the group \"agents\" on behalf of\n" +
			"the group \"people\", and counts as writing unless you say that it reads: what a server says\n" +
			"of its own tools is no approval. The set passes check and test; who is in the groups is\n" +
			"yours to say, in entities.json.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return n.run(c.Context(), s) },
	}
	flags := c.Flags()
	flags.StringVar(&n.from, "from", "", "a file with the result of tools/list, or the URL of an MCP server")
	flags.StringVar(&n.service, "service", "", "the name of the route that leads to the server")
	flags.StringVar(&n.out, "out", "", "the folder to write; new or empty")
	flags.StringVar(&n.environment, "environment", "", `of the service (default "staging")`)
	flags.StringVar(&n.bearer, "bearer-env", "", "the environment variable that holds a token for the server")
	flags.StringArrayVar(&n.reads, "read", nil, "a tool that only reads; repeat it for more")
	flags.StringArrayVar(&n.sql, "sql", nil, "a tool whose SQL the route reads; repeat it for more")
	flags.StringArrayVar(&n.agents, "agent", nil, "an agent of the group, by its URI; repeat it for more")
	return c
}

func (n policyNew) run(ctx context.Context, s streams) error {
	if n.from == "" || n.service == "" || n.out == "" {
		return &exitError{
			code: exitUsage, err: errors.New("--from, --service and --out are required"),
			hint: "lineal policy new --from tools.json --service orders --out policy",
		}
	}
	tools, err := n.tools(ctx, s)
	if err != nil {
		return err
	}
	p, err := server.NewPolicyProposal(n.service, tools, n.agents)
	if err != nil {
		return failed(err, "--agent is a URI such as spiffe://acme.example/agent")
	}
	p.Environment, p.Reads, p.SQL = n.environment, n.reads, n.sql
	if err := server.ProposePolicy(p, n.out); err != nil {
		return failed(err, "")
	}
	set, err := openPolicy(n.out, "")
	if err != nil {
		return err
	}
	if err := printFindings(s, n.out, set.Check(ctx).Findings); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, n.out)
	return err
}

func (n policyNew) tools(ctx context.Context, s streams) ([]byte, error) {
	if !strings.HasPrefix(n.from, "https://") && !strings.HasPrefix(n.from, "http://") {
		text, err := os.ReadFile(n.from)
		if err != nil {
			return nil, failed(err, "--from is the result of tools/list, or a URL")
		}
		return text, nil
	}
	header := http.Header{}
	if n.bearer != "" {
		token := s.env(n.bearer)
		if token == "" {
			return nil, failed(fmt.Errorf("%s is not set", n.bearer), "")
		}
		header.Set("Authorization", "Bearer "+token)
	}
	list, err := server.FetchTools(ctx, n.from, header)
	if err != nil {
		return nil, failed(err, "save the result of tools/list to a file and name that")
	}
	return list, nil
}

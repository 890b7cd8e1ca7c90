package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/adminclient"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

const agents = "agents"

func newAgent(s streams) *cobra.Command {
	o := &operatorFlags{}
	c := &cobra.Command{
		Use:   "agent",
		Short: "List, add, change, disable and remove the agents of a running server",
		Long: "Agents of the configuration are listed and cannot be changed here. What an agent may ever be delegated\n" +
			"is its authority: authorization_details as JSON, without \"from\"." + operatorHelp,
	}
	o.add(c)
	c.AddCommand(newAgentList(s, o), newAgentShow(s, o), newAgentAdd(s, o), newAgentSet(s, o),
		newAgentEnable(s, o), newAgentDisable(s, o), newAgentRemove(s, o))
	return c
}

// agentDocument is what the list shows of an agent.
type agentDocument struct {
	URI     string `json:"uri"`
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"`
}

func newAgentList(s streams, o *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the agents", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				all, err := a.List(c.Context(), agents)
				if err != nil || o.output == "json" {
					return errors.Join(err, printIf(s, err == nil, all))
				}
				var rows [][]any
				for _, e := range all {
					var d agentDocument
					if err := strictjson.UnmarshalOpen(e.Entry, &d, strictjson.Limits{}); err != nil {
						return err
					}
					state := "disabled"
					if d.Enabled {
						state = "enabled"
					}
					if e.Excluded != "" {
						state = "excluded"
					}
					rows = append(rows, []any{d.URI, d.Name, state, e.Source, e.Revision})
				}
				return table(s, []any{"URI", "NAME", "STATE", "SOURCE", "REVISION"}, rows)
			})
		},
	}
}

func printIf(s streams, ok bool, v any) error {
	if !ok {
		return nil
	}
	return printJSON(s, v)
}

func newAgentShow(s streams, o *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show URI", Short: "Show an agent with its authority", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				e, err := a.Get(c.Context(), agents, args[0])
				return errors.Join(err, printIf(s, err == nil, e))
			})
		},
	}
}

// agentEdit is what add and set are told.
type agentEdit struct {
	name, authority   string
	service, disabled bool
}

func (e *agentEdit) add(c *cobra.Command) {
	c.Flags().StringVar(&e.name, "name", "", "a name for people")
	c.Flags().StringVar(&e.authority, "authority", "", "all that it may ever hold: a file, or the JSON itself")
}

// apply sets the members of a document that were given.
func (e agentEdit) apply(doc strictjson.Value) (strictjson.Value, error) {
	if e.name != "" {
		doc = doc.With("name", strictjson.String(e.name))
	}
	if e.authority == "" {
		return doc, nil
	}
	text := []byte(e.authority)
	if !strings.HasPrefix(strings.TrimSpace(e.authority), "[") {
		var err error
		if text, err = os.ReadFile(e.authority); err != nil {
			return doc, err
		}
	}
	v, err := strictjson.Parse(text, strictjson.Limits{})
	if err != nil {
		return doc, fmt.Errorf("authority: %w", err)
	}
	return doc.With("authority", v), nil
}

func newAgentAdd(s streams, o *operatorFlags) *cobra.Command {
	var e agentEdit
	c := &cobra.Command{
		Use: "add URI", Short: "Register an agent", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			profile := "ai_agent"
			if e.service {
				profile = "service"
			}
			doc, err := e.apply(strictjson.Object(
				strictjson.Member{Name: "uri", Value: strictjson.String(args[0])}, strictjson.Member{Name: "profile", Value: strictjson.String(profile)},
				strictjson.Member{Name: "enabled", Value: strictjson.Bool(!e.disabled)},
			))
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				made, err := a.Put(c.Context(), agents, args[0], 0, doc.AppendJSON(nil))
				return errors.Join(err, printIf(s, err == nil && o.output == "json", made))
			})
		},
	}
	e.add(c)
	c.Flags().BoolVar(&e.service, "service", false, "it is an application and no agent")
	c.Flags().BoolVar(&e.disabled, "disabled", false, "it does not take part yet")
	return c
}

// changeAgent changes an agent from the state that it is in now.
func changeAgent(ctx context.Context, s streams, o *operatorFlags, a *adminclient.Client, uri string, edit func(strictjson.Value) (strictjson.Value, error)) error {
	e, err := a.Get(ctx, agents, uri)
	if err != nil {
		return err
	}
	doc, err := strictjson.Parse(e.Entry, strictjson.Limits{})
	if err != nil {
		return err
	}
	if doc, err = edit(doc); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if e.Source == "configuration" {
		return &adminclient.Error{Code: "entry_configured", Message: "The entry is of the configuration, and is changed there."}
	}
	made, err := a.Put(ctx, agents, uri, e.Revision, doc.AppendJSON(nil))
	return errors.Join(err, printIf(s, err == nil && o.output == "json", made))
}

func newAgentSet(s streams, o *operatorFlags) *cobra.Command {
	var e agentEdit
	c := &cobra.Command{
		Use: "set URI", Short: "Change the name or the authority of an agent", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if e.name == "" && e.authority == "" {
				return &exitError{code: exitUsage, err: errors.New("nothing to change"), hint: "--authority or --name"}
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				return changeAgent(c.Context(), s, o, a, args[0], e.apply)
			})
		},
	}
	e.add(c)
	return c
}

func enable(on bool) func(strictjson.Value) (strictjson.Value, error) {
	return func(doc strictjson.Value) (strictjson.Value, error) {
		return doc.With("enabled", strictjson.Bool(on)), nil
	}
}

func newAgentEnable(s streams, o *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use: "enable URI", Short: "Let an agent take part", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				return changeAgent(c.Context(), s, o, a, args[0], enable(true))
			})
		},
	}
}

func newAgentDisable(s streams, o *operatorFlags) *cobra.Command {
	var cause string
	var keep bool
	c := &cobra.Command{
		Use: "disable URI --cause TEXT", Short: "Let an agent begin nothing more, and end what it began", Args: cobra.ExactArgs(1),
		Long: "No exchange of the agent succeeds any more, from the next one on, at every token service. What was\n" +
			"delegated through it is revoked too, unless --keep-tokens is given: then its tokens end by themselves.",
		RunE: func(c *cobra.Command, args []string) error {
			if cause == "" && !keep {
				return &exitError{code: exitUsage, err: errors.New("no cause"), hint: `--cause "why, for the record", or --keep-tokens`}
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				if err := changeAgent(c.Context(), s, o, a, args[0], enable(false)); err != nil || keep {
					return err
				}
				_, err := a.Revoke(c.Context(), adminclient.NewRevocation{Kind: "agent", Value: args[0], Cause: cause})
				return err
			})
		},
	}
	c.Flags().StringVar(&cause, "cause", "", "why, for the record of the revocation")
	c.Flags().BoolVar(&keep, "keep-tokens", false, "do not revoke what was delegated through it")
	return c
}

func newAgentRemove(s streams, o *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use: "remove URI", Short: "Forget an agent", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.with(c.Context(), s, func(a *adminclient.Client) error { return removeEntry(c.Context(), a, agents, args[0], 0) })
		},
	}
}

// removeEntry removes an entry of the given revision, or as it is now.
func removeEntry(ctx context.Context, a *adminclient.Client, collection, id string, revision int64) error {
	if revision == 0 {
		e, err := a.Get(ctx, collection, id)
		if err != nil {
			return err
		}
		revision = max(e.Revision, 1) // that of the configuration is refused as such
	}
	return a.Delete(ctx, collection, id, revision)
}

// instantFlag reads RFC 3339; "" is none.
func instantFlag(name, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // absent is a choice
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("--%s: %w", name, err), hint: "2026-11-23T14:00:00Z"}
	}
	return &t, nil
}

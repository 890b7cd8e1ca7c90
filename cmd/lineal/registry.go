package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/lineal-auth/lineal/internal/adminclient"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// idMembers are the collections, each with the member that names an entry.
var idMembers = map[string]string{"agents": "uri", "resources": "uri", "issuers": "issuer", "clients": "client_id"}

func newRegistry(s streams) *cobra.Command {
	o := &operatorFlags{}
	c := &cobra.Command{
		Use:   "registry",
		Short: "List, put and remove agents, resources, issuers and clients of a running server",
		Long: "KIND is agents, resources, issuers or clients. Entries are JSON documents, as openapi.yaml of package\n" +
			"admin describes them. Entries of the configuration are listed and cannot be changed here." + operatorHelp,
	}
	o.add(c)
	c.AddCommand(newRegistryList(s, o), newRegistryGet(s, o), newRegistryPut(s, o), newRegistryRemove(s, o))
	return c
}

func checkKind(kind string) error {
	if idMembers[kind] == "" {
		return &exitError{code: exitUsage, err: fmt.Errorf("kind %q", kind), hint: "agents, resources, issuers or clients"}
	}
	return nil
}

func newRegistryList(s streams, o *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list KIND", Short: "List entries", Args: cobra.ExactArgs(1), ValidArgs: []string{"agents", "resources", "issuers", "clients"},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkKind(args[0]); err != nil {
				return err
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				all, err := a.List(c.Context(), args[0])
				if err != nil || o.output == "json" {
					return errors.Join(err, printIf(s, err == nil, all))
				}
				var rows [][]any
				for _, e := range all {
					doc, err := strictjson.Parse(e.Entry, strictjson.Limits{})
					if err != nil {
						return err
					}
					id, _ := doc.Get(idMembers[args[0]])
					name, _ := id.Text()
					rows = append(rows, []any{name, e.Source, e.Revision, e.Excluded})
				}
				return table(s, []any{"ID", "SOURCE", "REVISION", "EXCLUDED"}, rows)
			})
		},
	}
}

func newRegistryGet(s streams, o *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use: "get KIND ID", Short: "Show an entry", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkKind(args[0]); err != nil {
				return err
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				e, err := a.Get(c.Context(), args[0], args[1])
				return errors.Join(err, printIf(s, err == nil, e))
			})
		},
	}
}

func newRegistryPut(s streams, o *operatorFlags) *cobra.Command {
	var revision int64
	c := &cobra.Command{
		Use: "put KIND FILE", Short: "Register an entry, or change it; - reads the document from standard input", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkKind(args[0]); err != nil {
				return err
			}
			id, document, err := readDocument(c.InOrStdin(), args[0], args[1])
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				at := revision
				if !c.Flags().Changed("revision") {
					switch e, err := a.Get(c.Context(), args[0], id); {
					case err == nil:
						at = max(e.Revision, 1) // that of the configuration is refused as such
					case !isNotFound(err):
						return err
					}
				}
				made, err := a.Put(c.Context(), args[0], id, at, document)
				return errors.Join(err, printIf(s, err == nil && o.output == "json", made))
			})
		},
	}
	c.Flags().Int64Var(&revision, "revision", 0, "the revision that is changed, 0: there must be none; default: what there is now")
	return c
}

// readDocument reads a document and finds its id.
func readDocument(stdin io.Reader, kind, path string) (id string, document []byte, err error) {
	if path == "-" {
		document, err = io.ReadAll(io.LimitReader(stdin, 1<<20))
	} else {
		document, err = os.ReadFile(path) //nolint:gosec // the operator names the file
	}
	if err != nil {
		return "", nil, err
	}
	doc, err := strictjson.Parse(document, strictjson.Limits{})
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	v, _ := doc.Get(idMembers[kind])
	if id, _ = v.Text(); id == "" {
		return "", nil, fmt.Errorf("%s: the document has no %q", path, idMembers[kind])
	}
	return id, document, nil
}

func newRegistryRemove(s streams, o *operatorFlags) *cobra.Command {
	var revision int64
	c := &cobra.Command{
		Use: "remove KIND ID", Short: "Remove an entry", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkKind(args[0]); err != nil {
				return err
			}
			return o.with(c.Context(), s, func(a *adminclient.Client) error {
				return removeEntry(c.Context(), a, args[0], args[1], revision)
			})
		},
	}
	c.Flags().Int64Var(&revision, "revision", 0, "the revision that is removed; default: what there is now")
	return c
}

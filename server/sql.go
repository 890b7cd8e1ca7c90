package server

import (
	"fmt"

	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/scope/sqlscope"
)

// sqlReader makes the one reader of SQL, if a tool needs one: its parsers take
// seconds of CPU to compile.
func (s *Server) sqlReader() (mcp.SQL, error) {
	for _, u := range s.cfg.Upstreams.MCP {
		for _, t := range u.Tools {
			if t.SQL == "" {
				continue
			}
			r, err := sqlscope.New(sqlscope.Config{Now: s.now, Logger: s.logger})
			if err != nil {
				return nil, fmt.Errorf("making the reader of SQL for tool %s: %w", t.Name, err)
			}
			return r, nil
		}
	}
	return nil, nil
}

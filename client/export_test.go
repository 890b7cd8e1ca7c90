package client

import "time"

// Idle waits until no exchange is under way, and reports whether that was so
// within the bound.
func (c *Client) Idle(bound time.Duration) bool {
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		c.pool.flight.runs.Wait()
	}()
	select {
	case <-idle:
		return true
	case <-time.After(bound):
		return false
	}
}

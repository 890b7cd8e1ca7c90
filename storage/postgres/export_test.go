package postgres

import "context"

// Setting reads a setting in a session that writes.
func (s *Store) Setting(ctx context.Context, name string) (v string, err error) {
	err = s.db.write.QueryRow(ctx, `SELECT current_setting($1)`, name).Scan(&v)
	return v, err
}

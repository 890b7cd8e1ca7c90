package scope

// Within checks that every detail of child lies within some detail of limit,
// whatever its `from` says. It holds a grant to a bound that is no hop of its
// chain: what a workload may ever hold. The error is a *WidenedError. It is as
// sound, and on purpose as incomplete, as Subsumes: a child that only two
// details of limit together cover is refused.
func Within(limit, child Grant) error {
	if limit.IsZero() || child.IsZero() {
		return &WidenedError{Detail: -1, From: -1, Path: "authorization_details", Reason: "no details"}
	}
	for i := range child.details {
		var nearest *WidenedError
		for j := range limit.details {
			err := child.details[i].within(&limit.details[j])
			if err == nil {
				nearest = nil
				break
			}
			nearest = err
		}
		if nearest != nil {
			nearest.Detail, nearest.From = i, -1
			return nearest
		}
	}
	return nil
}

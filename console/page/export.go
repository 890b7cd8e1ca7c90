package page

import (
	"context"
	"slices"

	"github.com/lineal-auth/lineal/console"
)

// mostChosen bounds the records of an export from the page; a range or a whole
// log is for `lineal export`.
const mostChosen = 50

// export gives the records that were chosen as an evidence bundle. Each of them
// must be one that the viewer may see.
func (s *Service) export(ctx context.Context, x *request) (answer, error) {
	for name := range x.PostForm {
		if name != "id" && name != "token" {
			return answer{}, refuse(console.CodeParameterInvalid, "%.40q", name)
		}
	}
	ids := slices.Compact(slices.Sorted(slices.Values(x.PostForm["id"])))
	if len(ids) == 0 || len(ids) > mostChosen {
		return answer{}, refuse(console.CodeParameterInvalid, "choose 1 to %d records", mostChosen)
	}
	cites := 0
	for i, id := range ids {
		l, err := x.desk.Trace(ctx, id)
		if err != nil {
			return answer{}, asCode(err)
		}
		ids[i] = l.RecordID // and not what else an id may name
		cites += 1 + len(l.Outcomes)
	}
	return x.bundle(ctx, ids, "lineal-evidence.zip", cites)
}

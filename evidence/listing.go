package evidence

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
)

// listing is a manifest that is read. In the form that [Write] gives it, its files
// are read line by line, however many there are; in any other spelling, which is
// as good, it is read whole.
type listing struct {
	manifest // with Files only if it was read whole
	sum      Hash
	lines    func() io.Reader // of the files; nil if it was read whole
}

// maxFrame bounds what stands before the files in a manifest that is read by lines.
const maxFrame = 1 << 18

// filesBegin is how the files begin in that form.
const filesBegin = "\n \"files\": {\n"

func readListing(src *source, m member) (listing, error) {
	raw, err := decodeDigest(src.digest(m))
	if err != nil {
		return listing{}, err
	}
	l := listing{sum: Hash(raw)}
	if ok := l.byLines(src, m); ok {
		return l, nil
	}
	l.lines = nil
	l.manifest, err = parseManifest(src.data(m))
	return l, err
}

// byLines reads what stands before the files, and makes sure of the form of the rest.
func (l *listing) byLines(src *source, m member) bool {
	if int64(m.size) > int64(manifestLimits.MaxBytes) {
		return false
	}
	head := src.peek(make([]byte, min(maxFrame, int(m.size))), m.at)
	at := bytes.Index(head, []byte(filesBegin))
	if at < 0 {
		return false
	}
	var err error
	frame := append(bytes.Clone(head[:at+len(filesBegin)-len("{\n")]), noFiles...)
	if l.manifest, err = parseManifest(frame); err != nil {
		return false
	}
	begin := int64(at + len(filesBegin))
	l.lines = func() io.Reader { return src.section(m.at+begin, int64(m.size)-begin) }
	n, last := 0, ""
	for f, err := range l.read() {
		if n++; err != nil || n > maxBundleFiles || f.name <= last {
			return false
		}
		last = f.name
	}
	return n > 0
}

// listed is a file as a manifest names it.
type listed struct{ name, hash string }

// files gives them by name.
func (l listing) files() iter.Seq[listed] {
	return func(yield func(listed) bool) {
		if l.lines == nil {
			for _, name := range slices.Sorted(maps.Keys(l.Files)) {
				if !yield(listed{name, l.Files[name]}) {
					return
				}
			}
			return
		}
		for f, err := range l.read() {
			if err != nil || !yield(f) { // their form was made sure of
				return
			}
		}
	}
}

// names reports whether it has a file with this hash.
func (l listing) names(name, hash string) bool {
	for f := range l.files() {
		if f.name == name {
			return f.hash == hash
		}
	}
	return false
}

var errNoLine = errors.New("not a line of files")

// read gives the files line by line; an error if a line is none.
func (l listing) read() iter.Seq2[listed, error] {
	return func(yield func(listed, error) bool) {
		r := bufio.NewReaderSize(l.lines(), 1<<16)
		for more := true; more; {
			line, err := r.ReadSlice('\n')
			if err != nil {
				yield(listed{}, err)
				return
			}
			line, more = bytes.CutSuffix(line[:len(line)-1], []byte(","))
			name, rest, ok := plain(line, `  "`)
			hash, rest, ok2 := plain(rest, `": "`)
			if !ok || !ok2 || string(rest) != `"` {
				yield(listed{}, errNoLine)
				return
			}
			if !yield(listed{name, hash}, nil) {
				return
			}
		}
		if end, err := io.ReadAll(io.LimitReader(r, 8)); err != nil || string(end) != " }\n}\n" {
			yield(listed{}, errNoLine)
		}
	}
}

// plain takes a text off a line, up to the quote: one that needs no escape in JSON.
func plain(line []byte, before string) (text string, rest []byte, ok bool) {
	line, ok = bytes.CutPrefix(line, []byte(before))
	end := bytes.IndexByte(line, '"')
	if !ok || end < 0 {
		return "", nil, false
	}
	for _, c := range line[:end] {
		if c < ' ' || c >= 0x7f || c == '\\' {
			return "", nil, false
		}
	}
	return string(line[:end]), line[end:], true
}

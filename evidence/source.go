package evidence

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// source is the bundle that is read, a part at a time. It keeps the first error of
// reading: what was judged after that counts for nothing.
type source struct {
	r    io.ReaderAt
	size int64
	err  error
	buf  []byte // of copy
}

func (s *source) section(at, size int64) io.Reader {
	return kept{io.NewSectionReader(s.r, at, size), s}
}

// kept is a reader whose error its source keeps.
type kept struct {
	io.Reader
	src *source
}

func (k kept) Read(p []byte) (int, error) {
	n, err := k.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		k.src.fail(err)
	}
	return n, err
}

func (s *source) fail(err error) {
	s.err = cmp.Or(s.err, fmt.Errorf("reading evidence bundle: %w", err))
}

// peek fills b from a place on, as far as there is something.
func (s *source) peek(b []byte, at int64) []byte {
	n, err := s.r.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		s.fail(err)
	}
	return b[:n]
}

// bytes are those of a part that lies within the bundle.
func (s *source) bytes(at, size int64) []byte {
	b := make([]byte, size)
	if got := s.peek(b, at); int64(len(got)) < size {
		s.fail(io.ErrUnexpectedEOF) // it was shorter than it said when it was opened
	}
	return b
}

// data are those of a file.
func (s *source) data(m member) []byte { return s.bytes(m.at, int64(m.size)) }

// copy gives w the data of a file.
func (s *source) copy(w io.Writer, m member) {
	if s.buf == nil {
		s.buf = make([]byte, 1<<16)
	}
	n, err := io.CopyBuffer(w, s.section(m.at, int64(m.size)), s.buf)
	if err == nil && n < int64(m.size) {
		s.fail(io.ErrUnexpectedEOF)
	}
}

// digest is that of a file's data.
func (s *source) digest(m member) string {
	h := sha256.New()
	s.copy(h, m)
	return encodeDigest(Hash(h.Sum(nil)))
}

// cache keeps what was made lately: max of it at least, and twice that at most.
type cache[K comparable, V any] struct {
	now, old map[K]V
	max      int
}

func (c *cache[K, V]) get(k K, create func() V) V {
	if v, ok := c.now[k]; ok {
		return v
	}
	v, ok := c.old[k]
	if !ok {
		v = create()
	}
	if c.now == nil || len(c.now) >= c.max {
		c.now, c.old = make(map[K]V), c.now
	}
	c.now[k] = v
	return v
}

// recordID is an id of a record or a call, a UUID.
type recordID [16]byte

// idOf packs an id: maps hold millions of them. One that is no UUID, which no
// record has, gets what no other one has.
func idOf(s string) (id recordID) {
	n := 0
	for i := 0; i < len(s) && n < 2*len(id); i++ {
		c := s[i]
		switch {
		case c == '-' && len(s) == 36:
			continue
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			sum := sha256.Sum256([]byte(s))
			return recordID(sum[:len(id)])
		}
		id[n/2] = id[n/2]<<4 | c
		n++
	}
	return id
}

// hashOf packs a digest as records write it.
func hashOf(s string) Hash {
	raw, err := decodeDigest(s)
	if err != nil {
		return sha256.Sum256([]byte(s))
	}
	return Hash(raw)
}

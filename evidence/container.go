package evidence

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
)

// The container is a ZIP file with one spelling: files stored, not
// compressed; no extra fields, comments or data descriptors; one date; the
// manifest first, then the other files in the order of their names. A reader
// that writes the container again from its parts must get the same bytes, so
// there is no byte in it that nobody looked at. It is written here and not by
// a library, because a bundle of today must still have these bytes when the
// library has changed.

// file is one part of the container.
type file struct {
	name string
	data []byte
}

// The files that every bundle begins with.
const (
	manifestFile = "manifest.json"
	manifestNote = "manifest.sig"
)

const (
	localHeader   = 30
	centralHeader = 46
	sigLocal      = 0x04034b50
	sigCentral    = 0x02014b50
	sigEnd        = 0x06054b50
	sigEnd64      = 0x06064b50
	sigLocator64  = 0x07064b50
	zipVersion    = 20
	madeOnUnix    = 3<<8 | zipVersion
	dosDate       = 1<<5 | 1 // 1 January 1980, the first day that ZIP knows
	unixMode      = 0o100644 << 16
	extra64       = 12 // bytes of the extra field for a place beyond 4 GiB
	maxFileName   = 255
)

// compareFiles is the order of the container.
func compareFiles(a, b file) int { return compareNames(a.name, b.name) }

func compareNames(a, b string) int {
	rank := func(name string) int {
		switch name {
		case manifestFile:
			return 0
		case manifestNote:
			return 1
		}
		return 2
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
}

// writeContainer writes the files in their order.
func writeContainer(w io.Writer, files []file) error {
	files = slices.SortedStableFunc(slices.Values(files), compareFiles)
	c := newContainer(w, &scratch{})
	for _, f := range files {
		if err := c.add(f.name, int64(len(f.data)), crc32.ChecksumIEEE(f.data), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	return c.finish()
}

// container is one being written. Its files must come in their order.
type container struct {
	out     *bufio.Writer
	central *scratch // the directory, which comes last
	offset  int64
	count   int64
	last    string // name of the file before
}

func newContainer(w io.Writer, central *scratch) *container {
	return &container{out: bufio.NewWriterSize(w, 1<<16), central: central}
}

// add writes one file, of which size and checksum are known.
func (c *container) add(name string, size int64, crc uint32, data io.Reader) error {
	switch {
	case len(name) == 0 || len(name) > maxFileName:
		return fmt.Errorf("file name of %d bytes", len(name))
	case c.count > 0 && name == c.last:
		return fmt.Errorf("two files %q", name)
	case size >= math.MaxUint32:
		return fmt.Errorf("%s is over 4 GiB", name)
	}
	h := header{name: name, size: uint32(size), crc: crc} //nolint:gosec // just compared
	_, _ = c.out.Write(h.local(nil))                      // bufio keeps the first error for Flush
	_, _ = c.out.WriteString(name)
	if n, err := io.Copy(c.out, data); err != nil {
		return err
	} else if n != size {
		return fmt.Errorf("%s has %d bytes, not %d", name, n, size)
	}
	if _, err := c.central.Write(h.central(nil, c.offset)); err != nil {
		return err
	}
	c.offset += localHeader + int64(len(name)) + size
	c.count++
	c.last = name
	return nil
}

// finish writes the directory.
func (c *container) finish() error {
	if err := c.central.flush(); err != nil {
		return err
	}
	if _, err := io.Copy(c.out, c.central.section(0, c.central.size)); err != nil {
		return err
	}
	_, _ = c.out.Write(appendEnd(nil, c.count, c.central.size, c.offset))
	return c.out.Flush()
}

// header is what is said of a file, before it and in the directory.
type header struct {
	name string
	size uint32
	crc  uint32
}

func (h header) local(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, sigLocal)
	b = le.AppendUint16(b, zipVersion)
	return h.common(b, 0)
}

func (h header) common(b []byte, extra uint16) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, 0) // flags
	b = le.AppendUint16(b, 0) // method: stored
	b = le.AppendUint16(b, 0) // time
	b = le.AppendUint16(b, dosDate)
	b = le.AppendUint32(b, h.crc)
	b = le.AppendUint32(b, h.size)
	b = le.AppendUint32(b, h.size)
	b = le.AppendUint16(b, uint16(len(h.name))) //nolint:gosec // add and the reader of containers bound it
	return le.AppendUint16(b, extra)
}

// central is the file's entry in the directory. Where the file begins beyond 4 GiB
// the place is in an extra field (APPNOTE 4.5.3), and nowhere else.
func (h header) central(b []byte, offset int64) []byte {
	le := binary.LittleEndian
	far := offset >= math.MaxUint32
	short, extra := uint32(math.MaxUint32), uint16(extra64)
	if !far {
		short, extra = uint32(offset), 0 //nolint:gosec // just compared
	}
	b = le.AppendUint32(b, sigCentral)
	b = le.AppendUint16(b, madeOnUnix)
	b = le.AppendUint16(b, zipVersion)
	b = h.common(b, extra)
	b = le.AppendUint16(b, 0) // comment
	b = le.AppendUint16(b, 0) // disk
	b = le.AppendUint16(b, 0) // internal attributes
	b = le.AppendUint32(b, unixMode)
	b = le.AppendUint32(b, short)
	b = append(b, h.name...)
	if far {
		b = le.AppendUint16(b, 1)
		b = le.AppendUint16(b, 8)
		b = le.AppendUint64(b, uint64(offset)) //nolint:gosec // never negative
	}
	return b
}

// appendEnd ends the directory. The fields of 64 bits are there only where those of
// 16 and 32 cannot say it.
func appendEnd(b []byte, count, size, offset int64) []byte {
	le := binary.LittleEndian
	if count >= math.MaxUint16 || size >= math.MaxUint32 || offset >= math.MaxUint32 {
		b = le.AppendUint32(b, sigEnd64)
		b = le.AppendUint64(b, 44) // of what follows in this record
		b = le.AppendUint16(b, 45)
		b = le.AppendUint16(b, 45)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(count))  //nolint:gosec // none of these is negative
		b = le.AppendUint64(b, uint64(count))  //nolint:gosec // as above
		b = le.AppendUint64(b, uint64(size))   //nolint:gosec // as above
		b = le.AppendUint64(b, uint64(offset)) //nolint:gosec // as above
		b = le.AppendUint32(b, sigLocator64)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(offset+size)) //nolint:gosec // as above
		b = le.AppendUint32(b, 1)
	}
	short := uint16(min(count, math.MaxUint16)) //nolint:gosec // just bounded
	b = le.AppendUint32(b, sigEnd)
	b = le.AppendUint32(b, 0) // this disk, first disk
	b = le.AppendUint16(b, short)
	b = le.AppendUint16(b, short)
	b = le.AppendUint32(b, uint32(min(size, math.MaxUint32)))   //nolint:gosec // just bounded
	b = le.AppendUint32(b, uint32(min(offset, math.MaxUint32))) //nolint:gosec // just bounded
	return le.AppendUint16(b, 0)                                // comment
}

// member is a file of a container that is read: where its data are.
type member struct {
	name string
	at   int64
	size uint32
	crc  uint32 // known once it was checked
}

// readContainer reads the names one after the other from the front. It looks
// at names and sizes alone: [checkContainer] compares the rest.
func readContainer(src *source) ([]member, error) {
	le := binary.LittleEndian
	var files []member
	at := int64(0)
	head, text := make([]byte, localHeader), make([]byte, math.MaxUint16)
	for {
		b := src.peek(head, at)
		if len(b) < localHeader || le.Uint32(b) != sigLocal {
			break
		}
		size, name, extra := le.Uint32(b[18:]), int64(le.Uint16(b[26:])), int64(le.Uint16(b[28:]))
		end := at + localHeader + name + extra + int64(size)
		if end > src.size {
			return files, fmt.Errorf("damaged at byte %d, %s: a file runs past the end", at, after(files))
		}
		files = append(files, member{name: string(src.peek(text[:name], at+localHeader)), at: at + localHeader + name + extra, size: size})
		at = end
	}
	if len(files) == 0 {
		return nil, errors.New("not an evidence bundle: it does not begin as one")
	}
	if b := src.peek(head[:4], at); len(b) < 4 || le.Uint32(b) != sigCentral {
		return files, fmt.Errorf("damaged at byte %d, %s: no further file and no directory", at, after(files))
	}
	return files, nil
}

func after(files []member) string {
	if len(files) == 0 {
		return "at the first file"
	}
	return fmt.Sprintf("after the file %q", files[len(files)-1].name)
}

// inOrder sorts files as the container has them. Of a container that is as written
// they are.
func inOrder(files []member) []member {
	byName := func(a, b member) int { return compareNames(a.name, b.name) }
	if !slices.IsSortedFunc(files, byName) {
		files = slices.SortedStableFunc(slices.Values(files), byName)
	}
	return files
}

// checkContainer writes the container again from its files and compares every byte.
func checkContainer(src *source, files []member) error {
	c := &comparer{src: src, want: bufio.NewReaderSize(src.section(0, src.size), 1<<16)}
	err := rewrite(c, src, inOrder(files))
	switch {
	case errors.Is(err, errDiffers) || err == nil && c.n != src.size:
		return fmt.Errorf("byte %d is not as written: %s", c.n, place(c.n, files))
	case err != nil:
		return err
	}
	return nil
}

// rewrite gives c what the container must be.
func rewrite(c *comparer, src *source, files []member) error {
	var b []byte
	begins := func(f member) int64 { return f.at - localHeader - int64(len(f.name)) }
	for i := range files {
		f := &files[i]
		switch {
		case len(f.name) == 0 || len(f.name) > maxFileName:
			return fmt.Errorf("file name of %d bytes", len(f.name))
		case i > 0 && files[i-1].name == f.name:
			return fmt.Errorf("two files %q", f.name)
		case f.size == math.MaxUint32:
			return fmt.Errorf("%s is over 4 GiB", f.name)
		}
		crc := crc32.NewIEEE()
		src.copy(crc, *f)
		f.crc = crc.Sum32()
		b = append(header{f.name, f.size, f.crc}.local(b[:0]), f.name...)
		if _, err := c.Write(b); err != nil {
			return err
		}
		if c.n != f.at { // as much as is equal so far ends where these data begin, or the files are in another order
			return errDiffers
		}
		if err := c.skip(int64(f.size)); err != nil {
			return err
		}
	}
	offset, size := c.n, int64(0)
	for _, f := range files {
		b = header{f.name, f.size, f.crc}.central(b[:0], begins(f))
		size += int64(len(b))
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	_, err := c.Write(appendEnd(nil, int64(len(files)), size, offset))
	return err
}

var errDiffers = errors.New("differs")

// comparer is a writer that fails at the first byte unlike what is to be read; n
// counts the equal ones.
type comparer struct {
	src  *source // of skip
	want *bufio.Reader
	n    int64
	buf  []byte

	differs bool
}

func (c *comparer) Write(p []byte) (int, error) {
	if c.differs {
		return 0, errDiffers
	}
	c.buf = slices.Grow(c.buf[:0], len(p))[:len(p)]
	n, _ := io.ReadFull(c.want, c.buf) // the reader's owner keeps its error
	if n == len(p) && bytes.Equal(p, c.buf) {
		c.n += int64(n)
		return n, nil
	}
	for i := 0; i < n && p[i] == c.buf[i]; i++ {
		c.n++
	}
	c.differs = true
	return 0, errDiffers
}

// skip takes bytes as they are, of which there are so many.
func (c *comparer) skip(n int64) error {
	c.n += n
	if n > int64(c.want.Size()) {
		c.want.Reset(c.src.section(c.n, c.src.size-c.n))
		return nil
	}
	if _, err := c.want.Discard(int(n)); err != nil {
		return errDiffers // its source keeps the error
	}
	return nil
}

// place names the part of the container in which a byte lies.
func place(n int64, files []member) string {
	at := int64(0)
	for _, f := range files {
		head := at + localHeader + int64(len(f.name))
		at = head + int64(f.size)
		switch {
		case n < head:
			return fmt.Sprintf("in the header of %q (its name, size, checksum or order)", f.name)
		case n < at:
			return fmt.Sprintf("in %q", f.name)
		}
	}
	for _, f := range files {
		at += centralHeader + int64(len(f.name))
		if n < at {
			return fmt.Sprintf("in the directory entry of %q", f.name)
		}
	}
	return "at the end of the directory"
}

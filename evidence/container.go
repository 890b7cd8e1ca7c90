package evidence

import (
	"bufio"
	"bytes"
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
	localHeader    = 30
	centralHeader  = 46
	sigLocal       = 0x04034b50
	sigCentral     = 0x02014b50
	sigEnd         = 0x06054b50
	sigEnd64       = 0x06064b50
	sigLocator64   = 0x07064b50
	zipVersion     = 20
	madeOnUnix     = 3<<8 | zipVersion
	dosDate        = 1<<5 | 1 // 1 January 1980, the first day that ZIP knows
	unixMode       = 0o100644 << 16
	maxContainer   = math.MaxUint32 - 1
	maxFileName    = 255
	maxUint16Count = math.MaxUint16
)

// compareFiles is the order of the container.
func compareFiles(a, b file) int {
	rank := func(name string) int {
		switch name {
		case manifestFile:
			return 0
		case manifestNote:
			return 1
		}
		return 2
	}
	if c := rank(a.name) - rank(b.name); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}

// writeContainer writes the files in their order.
func writeContainer(w io.Writer, files []file) error {
	files = slices.SortedStableFunc(slices.Values(files), compareFiles)
	out := bufio.NewWriter(w)
	var central []byte
	offset := 0
	for i, f := range files {
		switch {
		case len(f.name) == 0 || len(f.name) > maxFileName:
			return fmt.Errorf("file name of %d bytes", len(f.name))
		case i > 0 && files[i-1].name == f.name:
			return fmt.Errorf("two files %q", f.name)
		case offset+len(central)+len(f.data)+localHeader+2*maxFileName > maxContainer:
			return errors.New("bundle is over 4 GiB")
		}
		crc := crc32.ChecksumIEEE(f.data)
		_, _ = out.Write(appendLocal(nil, f, crc)) // bufio keeps the first error for Flush
		_, _ = out.WriteString(f.name)
		_, _ = out.Write(f.data)
		central = appendCentral(central, f, crc, offset)
		offset += localHeader + len(f.name) + len(f.data)
	}
	_, _ = out.Write(central)
	_, _ = out.Write(appendEnd(nil, len(files), len(central), offset))
	return out.Flush()
}

func appendLocal(b []byte, f file, crc uint32) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, sigLocal)
	b = le.AppendUint16(b, zipVersion)
	return appendCommon(b, f, crc)
}

func appendCommon(b []byte, f file, crc uint32) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, 0) // flags
	b = le.AppendUint16(b, 0) // method: stored
	b = le.AppendUint16(b, 0) // time
	b = le.AppendUint16(b, dosDate)
	b = le.AppendUint32(b, crc)
	b = le.AppendUint32(b, uint32(len(f.data)))
	b = le.AppendUint32(b, uint32(len(f.data)))
	b = le.AppendUint16(b, uint16(len(f.name)))
	return le.AppendUint16(b, 0) // extra
}

func appendCentral(b []byte, f file, crc uint32, offset int) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, sigCentral)
	b = le.AppendUint16(b, madeOnUnix)
	b = le.AppendUint16(b, zipVersion)
	b = appendCommon(b, f, crc)
	b = le.AppendUint16(b, 0) // comment
	b = le.AppendUint16(b, 0) // disk
	b = le.AppendUint16(b, 0) // internal attributes
	b = le.AppendUint32(b, unixMode)
	b = le.AppendUint32(b, uint32(offset))
	return append(b, f.name...)
}

func appendEnd(b []byte, count, size, offset int) []byte {
	le := binary.LittleEndian
	short := uint16(count)
	if count >= maxUint16Count {
		short = maxUint16Count
		b = le.AppendUint32(b, sigEnd64)
		b = le.AppendUint64(b, 44) // of what follows in this record
		b = le.AppendUint16(b, 45)
		b = le.AppendUint16(b, 45)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(count))
		b = le.AppendUint64(b, uint64(count))
		b = le.AppendUint64(b, uint64(size))
		b = le.AppendUint64(b, uint64(offset))
		b = le.AppendUint32(b, sigLocator64)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(offset+size))
		b = le.AppendUint32(b, 1)
	}
	b = le.AppendUint32(b, sigEnd)
	b = le.AppendUint32(b, 0) // this disk, first disk
	b = le.AppendUint16(b, short)
	b = le.AppendUint16(b, short)
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint32(b, uint32(offset))
	return le.AppendUint16(b, 0) // comment
}

// readContainer reads the files one after the other from the front. It looks
// at names, sizes and data alone: [checkContainer] compares the rest. The data
// are slices of b.
func readContainer(b []byte) ([]file, error) {
	le := binary.LittleEndian
	var files []file
	rest := b
	for len(rest) >= localHeader && le.Uint32(rest) == sigLocal {
		size, name, extra := uint64(le.Uint32(rest[18:])), uint64(le.Uint16(rest[26:])), uint64(le.Uint16(rest[28:]))
		end := localHeader + name + extra + size
		if end > uint64(len(rest)) {
			return files, fmt.Errorf("damaged at byte %d, %s: a file runs past the end", len(b)-len(rest), after(files))
		}
		start := localHeader + name + extra
		files = append(files, file{string(rest[localHeader : localHeader+name]), rest[start:end:end]})
		rest = rest[end:]
	}
	if len(files) == 0 {
		return nil, errors.New("not an evidence bundle: it does not begin as one")
	}
	if len(rest) < 4 || le.Uint32(rest) != sigCentral {
		return files, fmt.Errorf("damaged at byte %d, %s: no further file and no directory", len(b)-len(rest), after(files))
	}
	return files, nil
}

func after(files []file) string {
	if len(files) == 0 {
		return "at the first file"
	}
	return fmt.Sprintf("after the file %q", files[len(files)-1].name)
}

// checkContainer writes the container again from its files and compares every
// byte with b.
func checkContainer(b []byte, files []file) error {
	c := &comparer{want: b}
	err := writeContainer(c, files)
	switch {
	case errors.Is(err, errDiffers) || err == nil && c.n != len(b):
		return fmt.Errorf("byte %d is not as written: %s", c.n, place(c.n, files))
	case err != nil:
		return err
	}
	return nil
}

var errDiffers = errors.New("differs")

// comparer is a writer that fails at the first byte unlike want; n counts the
// equal ones.
type comparer struct {
	want []byte
	n    int
}

func (c *comparer) Write(p []byte) (int, error) {
	rest := c.want[c.n:]
	if len(p) <= len(rest) && bytes.Equal(p, rest[:len(p)]) {
		c.n += len(p)
		return len(p), nil
	}
	for i := 0; i < len(p) && i < len(rest) && p[i] == rest[i]; i++ {
		c.n++
	}
	return 0, errDiffers
}

// place names the part of the container in which a byte lies.
func place(n int, files []file) string {
	at := 0
	for _, f := range files {
		head := at + localHeader + len(f.name)
		at = head + len(f.data)
		switch {
		case n < head:
			return fmt.Sprintf("in the header of %q (its name, size, checksum or order)", f.name)
		case n < at:
			return fmt.Sprintf("in %q", f.name)
		}
	}
	for _, f := range files {
		at += centralHeader + len(f.name)
		if n < at {
			return fmt.Sprintf("in the directory entry of %q", f.name)
		}
	}
	return "at the end of the directory"
}

package strictjson

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Parse reads data, which must be exactly one JSON document with white space
// around it at most. It does not keep data. Every error is an *Error.
func Parse(data []byte, lim Limits) (Value, error) {
	lim = lim.withDefaults()
	if len(data) > lim.MaxBytes {
		return Value{}, &Error{Code: CodeTooLarge, Offset: lim.MaxBytes}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) || bytes.HasPrefix(data, []byte("\xfe\xff")) || bytes.HasPrefix(data, []byte("\xff\xfe")) {
		return Value{}, &Error{Code: CodeBOM, Offset: 0}
	}
	if !utf8.Valid(data) {
		return Value{}, &Error{Code: CodeInvalidUTF8, Offset: validPrefix(data)}
	}
	p := parsers.Get().(*parser)
	defer p.release()
	p.lim, p.src = lim, string(data)
	p.dec.Reset(bytes.NewBuffer(data))
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	end := int(p.dec.InputOffset())
	if rest := strings.TrimLeft(p.src[end:], " \t\r\n"); rest != "" {
		return Value{}, &Error{Code: CodeTrailingData, Offset: len(p.src) - len(rest)}
	}
	return v, nil
}

// parser builds the tree from the tokens of one decoder. src is a copy of the
// document: strings and literals are slices of it where no escape changes them.
type parser struct {
	dec           *jsontext.Decoder
	src           string
	lim           Limits
	names, values int
	stack         []Member // the elements of the arrays and objects being read
	unquoted      []byte   // the last string that had escapes
}

// parsers keeps the decoder and the two buffers from one document to the next.
var parsers = sync.Pool{New: func() any { return &parser{dec: jsontext.NewDecoder(new(bytes.Buffer))} }}

// What a parser keeps at most, in elements and bytes.
const (
	keepStack    = 256
	keepUnquoted = 16 << 10
)

// release gives p back, without anything of the document: no value may be held
// by, or seen in, the next one.
func (p *parser) release() {
	stack, unquoted := p.stack[:cap(p.stack)], p.unquoted[:cap(p.unquoted)]
	if len(stack) > keepStack {
		stack = nil
	}
	if len(unquoted) > keepUnquoted {
		unquoted = nil
	}
	clear(stack)
	clear(unquoted)
	p.dec.Reset(new(bytes.Buffer))
	*p = parser{dec: p.dec, stack: stack[:0], unquoted: unquoted[:0]}
	parsers.Put(p)
}

// value reads the next value; depth is the number of arrays and objects around
// it.
func (p *parser) value(depth int) (Value, error) {
	if p.values++; p.values > p.lim.MaxValues {
		return Value{}, p.refuse(CodeTooManyValues)
	}
	switch p.dec.PeekKind() {
	case jsontext.KindBeginArray, jsontext.KindBeginObject:
		if depth >= p.lim.MaxDepth {
			return Value{}, p.refuse(CodeTooDeep)
		}
		tok, err := p.dec.ReadToken()
		if err != nil {
			return Value{}, p.syntax(err)
		}
		if tok.Kind() == jsontext.KindBeginArray {
			return p.array(depth + 1)
		}
		return p.object(depth + 1)
	case jsontext.KindString:
		s, err := p.text()
		if err != nil {
			return Value{}, err
		}
		if strings.IndexByte(s, 0) >= 0 {
			return Value{}, p.refuse(CodeNULInString)
		}
		return Value{kind: KindString, text: s}, nil
	case jsontext.KindNumber:
		return p.literal(KindNumber)
	case jsontext.KindTrue, jsontext.KindFalse:
		return p.literal(KindBool)
	case jsontext.KindNull:
		return p.literal(KindNull)
	default:
		// A misplaced delimiter, the end of the input, or no JSON: reading tells.
		_, err := p.dec.ReadToken()
		return Value{}, p.syntax(err)
	}
}

func (p *parser) array(depth int) (Value, error) {
	first := len(p.stack)
	for p.dec.PeekKind() != jsontext.KindEndArray {
		v, err := p.value(depth)
		if err != nil {
			return Value{}, err
		}
		p.stack = append(p.stack, Member{Value: v})
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return Value{}, p.syntax(err)
	}
	return Value{kind: KindArray, list: newList(p.pop(first), false)}, nil
}

func (p *parser) object(depth int) (Value, error) {
	first := len(p.stack)
	for p.dec.PeekKind() != jsontext.KindEndObject {
		if p.names++; p.names > p.lim.MaxNames {
			return Value{}, p.refuse(CodeTooManyNames)
		}
		name, err := p.text()
		if err != nil {
			return Value{}, err
		}
		if strings.IndexByte(name, 0) >= 0 {
			return Value{}, p.refuse(CodeNULInName)
		}
		v, err := p.value(depth)
		if err != nil {
			return Value{}, err
		}
		p.stack = append(p.stack, Member{Name: name, Value: v})
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return Value{}, p.syntax(err)
	}
	return Value{kind: KindObject, list: newList(p.pop(first), true)}, nil
}

// pop takes the elements from first on off the stack, in a slice of their own.
func (p *parser) pop(first int) []Member {
	elems := slices.Clone(p.stack[first:])
	p.stack = p.stack[:first]
	return elems
}

// raw reads a scalar as it is written.
func (p *parser) raw() (string, error) {
	b, err := p.dec.ReadValue()
	if err != nil {
		return "", p.syntax(err)
	}
	end := int(p.dec.InputOffset())
	return p.src[end-len(b) : end], nil
}

func (p *parser) literal(k Kind) (Value, error) {
	s, err := p.raw()
	if err != nil {
		return Value{}, err
	}
	return Value{kind: k, text: s}, nil
}

// text reads a string or name and resolves its escapes.
func (p *parser) text() (string, error) {
	if p.dec.PeekKind() != jsontext.KindString {
		// Not a string where only a name may stand; or the end of the input.
		_, err := p.dec.ReadToken()
		return "", p.syntax(err)
	}
	s, err := p.raw()
	if err != nil {
		return "", err
	}
	if strings.IndexByte(s, '\\') < 0 {
		return s[1 : len(s)-1], nil
	}
	b, err := jsontext.AppendUnquote(p.unquoted[:0], s)
	p.unquoted = b
	if err != nil {
		return "", p.syntax(err)
	}
	return string(b), nil
}

func (p *parser) refuse(c Code) error {
	return &Error{Code: c, Offset: int(p.dec.InputOffset())}
}

// syntax names the decoder's refusal. A nil err is one too: a token was read
// where only an error could be.
func (p *parser) syntax(err error) error {
	e := &Error{Code: CodeSyntax, Offset: int(p.dec.InputOffset()), Err: err}
	var syn *jsontext.SyntacticError
	if errors.As(err, &syn) {
		e.Offset = int(syn.ByteOffset)
	}
	switch {
	case err == nil:
		e.Err = errors.New("unexpected token")
	case errors.Is(err, jsontext.ErrDuplicateName):
		e.Code = CodeDuplicateName
	case strings.Contains(err.Error(), "surrogate pair"):
		// The library has no value for this; a test holds it to its words.
		e.Code = CodeInvalidUTF8
	}
	return e
}

func validPrefix(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

package config

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxSource bounds the size of a configuration file, in bytes.
const maxSource = 1 << 20

// span is a piece of the source: the bytes from start up to end.
type span struct{ start, end int }

// kind is the type of a value as the operator wrote it.
type kind string

const (
	kindString   kind = "a string"
	kindInteger  kind = "an integer"
	kindFloat    kind = "a number with a fraction"
	kindBool     kind = "a boolean"
	kindDateTime kind = "a date or time"
	kindArray    kind = "a list"
	kindTable    kind = "a table"
	kindTables   kind = "a list of tables"
)

// value is one value of the document and where it stands.
type value struct {
	kind  kind
	at    span
	text  string   // decoded string, or the literal of a scalar
	items []*value // elements of a list or of a list of tables
	table *table   // of a table
}

// table is one table of the document. Keys keep their order.
type table struct {
	at     span // its header, or the key that began it
	keys   []string
	values map[string]*entry
}

// entry is a key with its value.
type entry struct {
	at    span // the key
	value *value
}

func newTable(at span) *table { return &table{at: at, values: map[string]*entry{}} }

func (t *table) add(name string, e *entry) {
	t.keys = append(t.keys, name)
	t.values[name] = e
}

// parse reads TOML into tables that know their positions. It reports the first syntax error only, because what follows it
// cannot be told apart from its consequences.
func parse(source []byte) (*table, *Problem) {
	if len(source) > maxSource {
		return nil, &Problem{Line: 1, Column: 1, Message: fmt.Sprintf("the file is larger than %d bytes", maxSource)}
	}
	if bytes.HasPrefix(source, []byte("\xef\xbb\xbf")) {
		return nil, &Problem{Line: 1, Column: 1, Message: "the file begins with a byte order mark",
			Hint: "save it as UTF-8 without a byte order mark"}
	}
	// The decoder knows all rules of the language, duplicate keys included; the tree below only adds positions.
	var anything map[string]any
	if err := toml.Unmarshal(source, &anything); err != nil {
		var syntax *toml.DecodeError
		if !errors.As(err, &syntax) {
			return nil, &Problem{Line: 1, Column: 1, Message: err.Error()}
		}
		line, column := syntax.Position()
		return nil, syntaxProblem(source, line, column, syntax.Error())
	}
	b := builder{root: newTable(span{})}
	b.current = b.root
	b.parser.Reset(source)
	for b.parser.NextExpression() {
		if err := b.expression(b.parser.Expression()); err != nil {
			return nil, &Problem{Line: 1, Column: 1, Message: err.Error()}
		}
	}
	if err := b.parser.Error(); err != nil {
		return nil, &Problem{Line: 1, Column: 1, Message: err.Error()}
	}
	return b.root, nil
}

// builder makes tables from the parser's expressions.
type builder struct {
	parser  unstable.Parser
	root    *table
	current *table
}

func (b *builder) expression(n *unstable.Node) error {
	switch n.Kind {
	case unstable.Comment:
		return nil
	case unstable.Table, unstable.ArrayTable:
		path := b.path(n.Key())
		parent, err := b.descend(b.root, path[:len(path)-1])
		if err != nil {
			return err
		}
		last := path[len(path)-1]
		if n.Kind == unstable.Table {
			b.current, err = b.descend(parent, []part{last})
		} else {
			b.current, err = b.appendTable(parent, last)
		}
		if err == nil {
			// The header that names the table itself is the better place for what it lacks.
			b.current.at = span{path[0].at.start, last.at.end}
		}
		return err
	case unstable.KeyValue:
		return b.keyValue(b.current, n)
	default:
		return fmt.Errorf("unexpected %s", n.Kind)
	}
}

// part is one part of a dotted key.
type part struct {
	name string
	at   span
}

func (b *builder) path(keys unstable.Iterator) []part {
	var path []part
	for keys.Next() {
		n := keys.Node()
		path = append(path, part{string(n.Data), b.span(n.Raw)})
	}
	return path
}

func (b *builder) span(r unstable.Range) span {
	return span{int(r.Offset), int(r.Offset + r.Length)}
}

// descend follows the path from t, making tables on the way.
func (b *builder) descend(t *table, path []part) (*table, error) {
	for _, p := range path {
		e, ok := t.values[p.name]
		if !ok {
			e = &entry{at: p.at, value: &value{kind: kindTable, at: p.at, table: newTable(p.at)}}
			t.add(p.name, e)
		}
		switch v := e.value; {
		case v.kind == kindTable:
			t = v.table
		case v.kind == kindTables && len(v.items) > 0:
			t = v.items[len(v.items)-1].table
		default:
			return nil, fmt.Errorf("%q is %s, not a table", p.name, v.kind)
		}
	}
	return t, nil
}

func (b *builder) appendTable(t *table, p part) (*table, error) {
	e, ok := t.values[p.name]
	if !ok {
		e = &entry{at: p.at, value: &value{kind: kindTables, at: p.at}}
		t.add(p.name, e)
	}
	if e.value.kind != kindTables {
		return nil, fmt.Errorf("%q is %s, not a list of tables", p.name, e.value.kind)
	}
	added := newTable(p.at)
	e.value.items = append(e.value.items, &value{kind: kindTable, at: p.at, table: added})
	return added, nil
}

func (b *builder) keyValue(t *table, n *unstable.Node) error {
	path := b.path(n.Key())
	last := path[len(path)-1]
	parent, err := b.descend(t, path[:len(path)-1])
	if err != nil {
		return err
	}
	v, err := b.value(n.Value())
	if err != nil {
		return err
	}
	// The parser gives lists no range of their own: they begin behind the equals sign and end with the expression.
	if raw := b.span(n.Raw); v.at.end == 0 {
		v.at = span{b.afterEquals(last.at.end), raw.end}
	}
	if _, ok := parent.values[last.name]; ok {
		return fmt.Errorf("key %q is given twice", last.name)
	}
	parent.add(last.name, &entry{at: last.at, value: v})
	return nil
}

func (b *builder) afterEquals(i int) int {
	data := b.parser.Data()
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '=') {
		i++
	}
	return i
}

func (b *builder) value(n *unstable.Node) (*value, error) {
	v := &value{at: b.span(n.Raw), text: string(n.Data)}
	switch n.Kind {
	case unstable.String:
		v.kind = kindString
	case unstable.Bool:
		v.kind = kindBool
	case unstable.Integer:
		v.kind = kindInteger
	case unstable.Float:
		v.kind = kindFloat
	case unstable.LocalDate, unstable.LocalTime, unstable.LocalDateTime, unstable.DateTime:
		v.kind = kindDateTime
	case unstable.Array:
		v.kind, v.at = kindArray, span{}
		for it := n.Children(); it.Next(); {
			item, err := b.value(it.Node())
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, item)
		}
	case unstable.InlineTable:
		v.kind, v.table = kindTable, newTable(v.at)
		for it := n.Children(); it.Next(); {
			if err := b.keyValue(v.table, it.Node()); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("unexpected %s", n.Kind)
	}
	return v, nil
}

package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one thing that is wrong with a configuration. Line and Column count from 1; a column is a character.
type Problem struct {
	Line, Column int
	Width        int // characters to underline
	Message      string
	Hint         string
}

// Problems is every problem of one configuration file, in the order of the file. It is never empty.
type Problems struct {
	File   string
	Source []byte
	List   []Problem
	More   int // further problems that are not listed
}

// Error tells all problems with file, line, column, source excerpt and hint.
func (p *Problems) Error() string {
	var b strings.Builder
	for i, problem := range p.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s\n", printable(p.File), problem.Line, problem.Column, problem.Message)
		excerpt(&b, p.Source, problem)
		if problem.Hint != "" {
			fmt.Fprintf(&b, "  hint: %s\n", problem.Hint)
		}
	}
	if p.More > 0 {
		fmt.Fprintf(&b, "\n%s: and %d more problems", printable(p.File), p.More)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// excerptWidth is how much of a line an excerpt shows, in characters.
const excerptWidth = 160

// excerpt writes the problem's line with the place underlined.
func excerpt(b *strings.Builder, source []byte, p Problem) {
	lines := bytes.Split(source, []byte{'\n'})
	if p.Line < 1 || p.Line > len(lines) {
		return
	}
	line := []rune(strings.TrimSuffix(string(lines[p.Line-1]), "\r"))
	if len(line) == 0 {
		return
	}
	column := min(max(p.Column-1, 0), len(line))
	if column > excerptWidth/2 && len(line) > excerptWidth {
		cut := column - excerptWidth/2
		line, column = line[cut:], column-cut
	}
	line = []rune(printable(string(line[:min(len(line), excerptWidth)])))
	// The same tabs stand above and below, so that the marks meet their text.
	pad := make([]rune, column)
	for i := range pad {
		pad[i] = ' '
		if line[i] == '\t' {
			pad[i] = '\t'
		}
	}
	width := max(1, min(p.Width, len(line)-column))
	number := fmt.Sprint(p.Line)
	fmt.Fprintf(b, "  %s | %s\n", number, string(line))
	fmt.Fprintf(b, "  %s | %s%s\n", strings.Repeat(" ", len(number)), string(pad), strings.Repeat("^", width))
}

// printable replaces what a terminal would obey, and what it does not show, by U+FFFD. Tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// maxQuoted bounds what a message quotes of the file, in characters.
const maxQuoted = 100

// clip shortens text for a message.
func clip(s string) string {
	if utf8.RuneCountInString(s) <= maxQuoted {
		return s
	}
	return string([]rune(s)[:maxQuoted]) + "..."
}

// maxProblems bounds what one run reports.
const maxProblems = 100

// report collects problems of one source.
type report struct {
	source []byte
	starts []int // offset of each line
	list   []Problem
	more   int // problems beyond maxProblems
}

func newReport(source []byte) *report {
	r := &report{source: source, starts: []int{0}}
	for i, c := range source {
		if c == '\n' {
			r.starts = append(r.starts, i+1)
		}
	}
	return r
}

// add notes a problem at a place of the source. Whatever the file holds, message and hint hold what a terminal may print.
func (r *report) add(at span, hint, format string, args ...any) {
	if len(r.list) == maxProblems {
		r.more++
		return
	}
	line, column := r.position(at.start)
	width := 1
	if at.end > at.start && at.end <= len(r.source) {
		marked, _, _ := bytes.Cut(r.source[at.start:at.end], []byte{'\n'})
		width = utf8.RuneCount(marked)
	}
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			args[i] = clip(s)
		}
	}
	r.list = append(r.list, Problem{Line: line, Column: column, Width: width, Message: printable(fmt.Sprintf(format, args...)), Hint: printable(hint)})
}

// err returns the problems in the order of the file, or nil.
func (r *report) err(file string) error {
	if len(r.list) == 0 {
		return nil
	}
	slices.SortStableFunc(r.list, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return &Problems{File: file, Source: r.source, List: r.list, More: r.more}
}

// position turns an offset into line and column.
func (r *report) position(offset int) (line, column int) {
	offset = min(offset, len(r.source))
	line, found := slices.BinarySearch(r.starts, offset)
	if found {
		line++
	}
	return line, utf8.RuneCount(r.source[r.starts[line-1]:offset]) + 1
}

// nearest returns the candidate that is most like word, if one is like it at all.
func nearest(word string, candidates []string) (string, bool) {
	best, limit := "", max(1, min(3, len(word)/2))
	distance := limit + 1
	for _, c := range candidates {
		if d := edits(strings.ToLower(word), c); d < distance {
			best, distance = c, d
		}
	}
	return best, distance <= limit
}

// edits is the number of insertions, deletions, replacements and swaps of neighbours between two words.
func edits(a, b string) int {
	// Words that differ this much in length are never near, and keys may be as long as the file.
	if d := len(a) - len(b); d > 3 || d < -3 || len(a) > 64 {
		return 4
	}
	older, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], older[j-2]+1)
			}
		}
		older, row = row, next
	}
	return row[len(b)]
}

// quoted joins words as "a", "b" or "c".
func quoted(words []string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", w)
	}
	return b.String()
}

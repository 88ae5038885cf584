package setup

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// OnTerminal is [Gantry.Background] on a terminal with so many columns: the log
// has what was written to it, with all that moves its cursor.
func (g *Gantry) OnTerminal(columns int, args ...string) *Process {
	g.T.Helper()
	p := newProcess(g.T, g.Dir, "gantry-"+args[0]+"-terminal", program(gantry), append(slices.Clone(g.env), "TERM=xterm"), append(slices.Clone(g.cli), args...)...)
	p.ends, p.columns = true, columns
	p.Start()
	return p
}

// terminal is the two ends of one.
type terminal struct {
	program, person *os.File
	copied          chan struct{} // closed when all that was written was passed on
}

// openTerminal passes what a program writes to its end on to w.
func openTerminal(columns int, w io.Writer) (*terminal, error) {
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(person.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	}
	t := &terminal{person: person, copied: make(chan struct{})}
	if err == nil {
		t.program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		_ = person.Close()
		return nil, err
	}
	go func() {
		defer close(t.copied)
		_, _ = io.Copy(w, person) // an error is its end: nobody has the other one
		_ = person.Close()
	}()
	return t, nil
}

// Screen is what a terminal of so many columns shows after a text: its lines.
// Colors are left out. It fails the test if a line was ever too long, and so
// became two, or if something else was sent that it does not know.
func Screen(t testing.TB, text string, columns int) []string {
	t.Helper()
	lines, column := [][]rune{nil}, 0
	for rest := []rune(text); len(rest) > 0; {
		line := &lines[len(lines)-1]
		switch {
		case rest[0] == '\r':
			column, rest = 0, rest[1:]
		case rest[0] == '\n':
			lines, rest = append(lines, nil), rest[1:]
		case rest[0] == '\x1b':
			sequence := rest[:1+slices.IndexFunc(rest, func(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' })]
			switch s := string(sequence); {
			case s == "\x1b[K":
				*line = (*line)[:min(column, len(*line))]
			case !strings.HasPrefix(s, "\x1b[") || !strings.HasSuffix(s, "m"):
				t.Fatalf("the terminal does not know %q", s)
			}
			rest = rest[len(sequence):]
		default:
			for len(*line) <= column {
				*line = append(*line, ' ')
			}
			(*line)[column] = rest[0]
			column, rest = column+1, rest[1:]
			if column > columns {
				t.Fatalf("a line is longer than %d columns: %q", columns, string(*line))
			}
		}
	}
	shown := make([]string, len(lines))
	for i, line := range lines {
		shown[i] = strings.TrimRight(string(line), " ")
	}
	return shown
}

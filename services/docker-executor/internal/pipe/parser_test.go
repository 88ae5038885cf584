package pipe_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
)

func parse(chunks ...string) (states []pipe.State, ignored int) {
	p := pipe.NewParser(func(s pipe.State) { states = append(states, s) })
	for _, c := range chunks {
		_, _ = p.Write([]byte(c)) // never fails
	}
	p.End()
	return states, p.Ignored()
}

func state(message string, total, current float64) pipe.State {
	s := pipe.State{}
	if message != "" {
		s.Message = &message
	}
	if total >= 0 {
		s.Total = &total
	}
	if current >= 0 {
		s.Current = &current
	}
	return s
}

func TestParser(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		in      []string
		want    []pipe.State
		ignored int
	}{
		"merged": {
			in: []string{`{"message":"a","total":10}` + "\n" + `{"current":1}` + "\n" + `{"message":null,"current":2,"total":null}` + "\n"},
			want: []pipe.State{
				state("a", 10, -1), state("a", 10, 1), state("a", 10, 2),
			},
		},
		"no newline at the end": {in: []string{`{"current":5}`}, want: []pipe.State{state("", -1, 5)}},
		"cut anywhere":          {in: []string{`{"cur`, `rent":`, `7}`, "\n", `{"total":8}`}, want: []pipe.State{state("", -1, 7), state("", 8, 7)}},
		"windows newlines":      {in: []string{"{\"current\":1}\r\n\r\n"}, want: []pipe.State{state("", -1, 1)}},
		"empty object":          {in: []string{"{}\n"}, want: []pipe.State{{}}},
		"other fields":          {in: []string{`{"current":1,"x":[1]}`}, want: []pipe.State{state("", -1, 1)}},
		"field names are exact": {in: []string{`{"Current":1}`}, want: []pipe.State{{}}},
		"ignored": {
			in:      []string{"hello\n[1]\n3\nnull\n\"x\"\n{\"current\":\"1\"}\n{\"message\":1}\n{\"total\":NaN}\n{\"total\":Infinity}\n{\"total\":1e999}\n{\"current\":true}\n{\"a\n"},
			ignored: 12,
		},
		"nested": {
			in: []string{`{"message":{"a":"b"}}` + "\n" + `{"current":[1]}` + "\n" + `{"x":{"current":3},"total":4}` + "\n" +
				`{"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}\n"},
			want:    []pipe.State{state("", 4, -1)},
			ignored: 3,
		},
		"huge":             {in: []string{`{"total":1.7e308,"current":123456789012345678901234567890}` + "\n"}, want: []pipe.State{state("", 1.7e308, 123456789012345678901234567890)}},
		"written twice":    {in: []string{`{"current":1,"current":2}` + "\n"}, want: []pipe.State{state("", -1, 2)}},
		"invalid in UTF-8": {in: []string{"{\"message\":\"a\xffb\"}\n"}, want: []pipe.State{state("a\uFFFDb", -1, -1)}},
		"all or nothing":   {in: []string{`{"message":"m","current":"bad"}` + "\n{}"}, want: []pipe.State{{}}, ignored: 1},
		"too long, whole": {
			in:      []string{`{"message":"` + strings.Repeat("x", 64<<10) + `"}` + "\n" + `{"current":1}` + "\n"},
			want:    []pipe.State{state("", -1, 1)},
			ignored: 1,
		},
		"too long, in parts and without end": {in: []string{strings.Repeat("x", 40<<10), strings.Repeat("y", 40<<10), "{}"}, ignored: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ignored := parse(test.in...)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
			if ignored != test.ignored {
				t.Errorf("%d lines ignored, want %d", ignored, test.ignored)
			}
		})
	}
}

// FuzzParser: where the input is cut makes no difference, and no state has a
// number that JSON could not have.
func FuzzParser(f *testing.F) {
	f.Add("{\"message\":\"a\",\"total\":10}\n{\"current\":1}\nnoise\n{\"current\":2}", 7)
	f.Add("\n\n{}\n[]", 1)
	f.Add(strings.Repeat("x", 70000)+"\n{}", 65536)
	f.Fuzz(func(t *testing.T, in string, cut int) {
		whole, ignored := parse(in)
		size := 1 + (cut&math.MaxInt)%max(len(in), 1)
		var chunks []string
		for rest := in; rest != ""; {
			n := min(size, len(rest))
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		parts, partsIgnored := parse(chunks...)
		if diff := cmp.Diff(whole, parts); diff != "" || ignored != partsIgnored {
			t.Errorf("cut in pieces of %d: %d ignored instead of %d, states (-whole +parts):\n%s", size, partsIgnored, ignored, diff)
		}
		for _, s := range whole {
			for _, n := range []*float64{s.Total, s.Current} {
				if n != nil && (math.IsNaN(*n) || math.IsInf(*n, 0)) {
					t.Errorf("number %v", *n)
				}
			}
		}
	})
}

package slicer_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/pipe"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/slicer"
)

// outcome is what a filter made of its input.
type outcome struct {
	text     string
	progress []string
	ignored  int
}

func filter(t testing.TB, chunks ...string) outcome {
	t.Helper()
	var text bytes.Buffer
	var got outcome
	f := slicer.NewFilter(&text, func(s pipe.State) {
		if *s.Total != 1 || math.IsNaN(*s.Current) || math.IsInf(*s.Current, 0) {
			t.Errorf("progress %v of %v", *s.Current, *s.Total)
		}
		got.progress = append(got.progress, fmt.Sprintf("%v %s", *s.Current, *s.Message))
	})
	for _, chunk := range chunks {
		if n, err := f.Write([]byte(chunk)); n != len(chunk) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if err := f.End(); err != nil {
		t.Error(err)
	}
	got.text, got.ignored = text.String(), f.Ignored()
	return got
}

// pieces cuts text into pieces of a size.
func pieces(text string, size int) []string {
	var all []string
	for ; len(text) > size; text = text[size:] {
		all = append(all, text[:size])
	}
	return append(all, text)
}

const run = `begin
<filter-start>
<filter-name>Median</filter-name>
<filter-comment> removes &quot;noise&quot; &amp;lt; 3 </filter-comment>
</filter-start>

<filter-progress>0.25</filter-progress>
between <b>bold</b>
  <filter-progress> 1 </filter-progress><filter-stage-progress>0.5</filter-stage-progress> end of line
<filter-end>
<filter-name>Median</filter-name>
<filter-time>3.5</filter-time>
</filter-end>
done
`

var tests = map[string]struct {
	in   string
	want outcome
}{
	"a whole run": {run, outcome{
		text:     "begin\nbetween <b>bold</b>\n  end of line\ndone\n",
		progress: []string{`0.25 removes "noise" &lt; 3`, `1 removes "noise" &lt; 3`},
	}},
	"plain text":                     {"a < b && c > d\n\n", outcome{text: "a < b && c > d\n\n"}},
	"nothing":                        {"", outcome{}},
	"no name and no comment":         {"<filter-progress>1e-1</filter-progress>", outcome{progress: []string{"0.1 Unknown"}}},
	"a name":                         {"<filter-name>n</filter-name><filter-progress>0</filter-progress>", outcome{progress: []string{"0 n"}}},
	"an empty comment":               {"<filter-comment>c</filter-comment><filter-name>n</filter-name><filter-comment> </filter-comment><filter-progress>.5</filter-progress>", outcome{progress: []string{"0.5 n"}}},
	"each progress is told":          {"<filter-progress>1</filter-progress>\n<filter-progress>2</filter-progress>\n", outcome{progress: []string{"1 Unknown", "2 Unknown"}}},
	"white space after it goes":      {"a\n<filter-time>1</filter-time> \t\r\n\v\f\n b", outcome{text: "a\nb"}},
	"no numbers":                     {"<filter-progress>NaN</filter-progress>a<filter-progress>-inf</filter-progress><filter-progress>1e999</filter-progress><filter-progress></filter-progress><filter-progress>half</filter-progress>", outcome{text: "a", ignored: 5}},
	"ignored in a block":             {"<filter-end><filter-progress>x</filter-progress></filter-end>", outcome{ignored: 1}},
	"unknown elements are text":      {"<filter-foo>1</filter-foo><filter-progress >1</filter-progress>", outcome{text: "<filter-foo>1</filter-foo><filter-progress >1</filter-progress>"}},
	"an end alone is text":           {"</filter-progress>\n", outcome{text: "</filter-progress>\n"}},
	"never ended":                    {"a<filter-progress>0.5", outcome{text: "a<filter-progress>0.5"}},
	"never ended block":              {"<filter-start>\n<filter-name>n</filter-name>", outcome{text: "<filter-start>\n<filter-name>n</filter-name>"}},
	"half a tag":                     {"a<filter-pro", outcome{text: "a<filter-pro"}},
	"another element inside":         {"<filter-progress>1<filter-name>n</filter-name>2</filter-progress>", outcome{text: "<filter-progress>12</filter-progress>"}},
	"begun twice":                    {"<filter-progress>1<filter-progress>2</filter-progress>", outcome{text: "<filter-progress>1", progress: []string{"2 Unknown"}}},
	"the wrong end":                  {"<filter-name>n</filter-nest><filter-name>m</filter-name>", outcome{text: "<filter-name>n</filter-nest>"}},
	"many openings":                  {"<<<filter-<filter-time>1</filter-time>", outcome{text: "<<<filter-"}},
	"the first end ends a block":     {"<filter-start>a</filter-start>b</filter-start>", outcome{text: "b</filter-start>"}},
	"a block in a block":             {"<filter-start>a<filter-end><filter-name>n</filter-name></filter-end>b</filter-start><filter-progress>1</filter-progress>", outcome{progress: []string{"1 n"}}},
	"references":                     {"<filter-comment>&lt;&gt;&apos;&#65;&#x42;&#0;&#xD800;&bogus;&amp</filter-comment><filter-progress>1</filter-progress>", outcome{progress: []string{"1 <>'AB&#0;&#xD800;&bogus;&amp"}}},
	"bytes of no text":               {"\xff<filter-comment>\xff</filter-comment><filter-progress>1</filter-progress>\xfe", outcome{text: "\xff\xfe", progress: []string{"1 \uFFFD"}}},
	"the longest element":            {"<filter-name>" + strings.Repeat("n", 64<<10-27) + "</filter-name>x", outcome{text: "x"}},
	"a longer element":               {"<filter-name>" + strings.Repeat("n", 64<<10-26) + "</filter-name>x", outcome{text: "<filter-name>" + strings.Repeat("n", 64<<10-26) + "</filter-name>x"}},
	"the longest block":              {"<filter-end>" + strings.Repeat("n", 64<<10-25) + "</filter-end>x", outcome{text: "x"}},
	"a longer block":                 {"<filter-end>" + strings.Repeat("n", 64<<10-24) + "</filter-end>x", outcome{text: "<filter-end>" + strings.Repeat("n", 64<<10-24) + "</filter-end>x"}},
	"one too long keeps nothing up":  {"<filter-start>" + strings.Repeat("n", 64<<10) + "<filter-progress>1</filter-progress>x", outcome{text: "<filter-start>" + strings.Repeat("n", 64<<10) + "x", progress: []string{"1 Unknown"}}},
	"many starts and no end":         {strings.Repeat("<filter-start>", 10_000), outcome{text: strings.Repeat("<filter-start>", 10_000)}},
	"progress is what it says it is": {"<filter-progress>-3</filter-progress><filter-progress>7.5</filter-progress>", outcome{progress: []string{"-3 Unknown", "7.5 Unknown"}}},
}

// Each case, whole and cut at every place.
func TestFilter(t *testing.T) {
	t.Parallel()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := func(chunks ...string) {
				t.Helper()
				if diff := cmp.Diff(test.want, filter(t, chunks...), cmp.AllowUnexported(outcome{})); diff != "" {
					t.Fatalf("in %d pieces (-want +got):\n%s", len(chunks), diff)
				}
			}
			check(test.in)
			check(pieces(test.in, 1)...)
			if len(test.in) > 4096 {
				check(pieces(test.in, 32<<10)...)
				return
			}
			for i := range test.in {
				check(test.in[:i], "", test.in[i:])
			}
		})
	}
}

// Text is handed on at once, unless it may be an element.
func TestTextIsNotHeldUp(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	f := slicer.NewFilter(&text, func(pipe.State) {})
	for _, chunk := range []struct{ in, text string }{
		{"a < b <fil", "a < b "}, {"ters <filter-time>", "a < b <filters "}, {"1</filter-time> \n", "a < b <filters "}, {" c", "a < b <filters c"},
	} {
		if _, err := f.Write([]byte(chunk.in)); err != nil || text.String() != chunk.text {
			t.Errorf("after %q the text is %q, %v", chunk.in, text.String(), err)
		}
	}
}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestErrorOfTheText(t *testing.T) {
	t.Parallel()
	f := slicer.NewFilter(broken{}, func(pipe.State) {})
	if _, err := f.Write([]byte("<filter-")); err != nil {
		t.Errorf("without text: %v", err)
	}
	if err := f.End(); !errors.Is(err, errBroken) {
		t.Errorf("end: %v", err)
	}
	if _, err := f.Write([]byte("a")); !errors.Is(err, errBroken) {
		t.Errorf("write: %v", err)
	}
}

// FuzzFilter: tags over chunk borders give the same as in one piece, and nothing
// is lost but elements.
func FuzzFilter(f *testing.F) {
	for _, test := range tests {
		if len(test.in) < 1024 { // small ones find more
			f.Add(test.in, 3)
		}
	}
	f.Fuzz(func(t *testing.T, in string, size int) {
		whole := filter(t, in)
		for _, size := range []int{1, 1 + (size&math.MaxInt)%(len(in)+1)} {
			if diff := cmp.Diff(whole, filter(t, pieces(in, size)...), cmp.AllowUnexported(outcome{})); diff != "" {
				t.Errorf("cut in pieces of %d (-whole +parts):\n%s", size, diff)
			}
		}
		if !strings.Contains(in, "</filter-") && whole.text != in {
			t.Errorf("text %q of %q", whole.text, in)
		}
		if len(whole.text) > len(in) || !isPart(whole.text, in) {
			t.Errorf("text %q is not of %q", whole.text, in)
		}
	})
}

// isPart reports whether text is whole with something left out.
func isPart(text, whole string) bool {
	for i := range len(text) {
		at := strings.IndexByte(whole, text[i])
		if at < 0 {
			return false
		}
		whole = whole[at+1:]
	}
	return true
}

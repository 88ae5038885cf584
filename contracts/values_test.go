package contracts

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

func TestByteSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]ByteSize{
		`0`: 0, `1024`: 1024, `"1024"`: 1024, `"512b"`: 512, `"1k"`: 1 << 10, `"1K"`: 1 << 10, `"1kb"`: 1 << 10, `"2m"`: 2 << 20,
		`"2MB"`: 2 << 20, `"1.5g"`: 3 << 29, `"2g"`: 2 << 30, `"1t"`: 1 << 40, `"0.5m"`: 1 << 19, `4294967296`: 1 << 32,
	} {
		var got ByteSize
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %d, error %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{`"lots"`, `""`, `"m"`, `"1x"`, `"-1m"`, `-1`, `true`, `{}`, `[]`, `"1e300"`, `1e30`} {
		var got ByteSize
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %d", text, got)
		}
	}
}

// The words are those of Python's shlex.split, which docker-py calls.
func TestCommandSplitting(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]Command{
		``:                        {},
		`   `:                     {},
		`python`:                  {"python"},
		` python  /app/run.py	x `: {"python", "/app/run.py", "x"},
		`sh -c 'a b'`:             {"sh", "-c", "a b"},
		`sh -c "a 'b' $HOME"`:     {"sh", "-c", "a 'b' $HOME"},
		`a"b c"d'e f'`:            {"ab cde f"},
		`'' ""`:                   {"", ""},
		`a\ b \"c\\`:              {"a b", `"c\`},
		`"a\"b\\c\d"`:             {`a"b\c\d`},
		`'a\b'`:                   {`a\b`},
		`sh -c echo a; echo b`:    {"sh", "-c", "echo", "a;", "echo", "b"},
		`a && b | c > d < e &`:    {"a", "&&", "b", "|", "c", ">", "d", "<", "e", "&"},
		"echo `date` $(date) #x":  {"echo", "`date`", "$(date)", "#x"},
		"a\nb\r\nc":               {"a", "b", "c"},
		"größe 'ä ö'":             {"größe", "ä ö"},
	} {
		text, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		var got Command
		if err := json.Unmarshal(text, &got); err != nil {
			t.Errorf("%q: %v", line, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
	for _, text := range []string{`"a 'b"`, `"a \"b"`, `"a\\"`, `5`, `["a",5]`, `{}`, `["a"`} {
		var got Command
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %q", text, got)
		}
	}
	var list Command
	if err := json.Unmarshal([]byte(`["sh","-c","a  'b"]`), &list); err != nil || len(list) != 3 || list[2] != "a  'b" {
		t.Errorf("a list is read as %q, error %v", list, err)
	}
}

func TestEnvironmentForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Environment{
		`{}`:                           {},
		`[]`:                           {},
		`{"A":"1","B":""}`:             {"A": "1", "B": ""},
		`{"N":1,"F":2.50}`:             {"N": "1", "F": "2.50"},
		`["A=1","B","C=","D=x=y"]`:     {"A": "1", "B": "", "C": "", "D": "x=y"},
		`["A=1","A=2"]`:                {"A": "2"},
		`{"größe":"a\nb","with sp":0}`: {"größe": "a\nb", "with sp": "0"},
	} {
		var got Environment
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{
		`""`, `1`, `true`, `{"":"x"}`, `{"A=B":"x"}`, `{"A\u0000":"x"}`, `["=x"]`, `[""]`, `[1]`, `{"A":true}`, `{"A":null}`, `{"A":"1"`, `["A"`,
	} {
		var got Environment
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %v", text, got)
		}
	}
}

func TestStringMapForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]StringMap{
		`{"a":"b"}`: {"a": "b"}, `["a","b"]`: {"a": "", "b": ""}, `{}`: {}, `[]`: {},
	} {
		var got StringMap
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{`"a"`, `1`, `[1]`, `{"a":1}`} {
		var got StringMap
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %v", text, got)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Text{`"1000:1000"`: "1000:1000", `1000`: "1000", `1.50`: "1.50", `""`: ""} {
		var got Text
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %q, error %v", text, got, err)
		}
	}
	for _, text := range []string{`true`, `null`, `[]`, `{}`} {
		var got Text
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %q", text, got)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		value   time.Duration
		written string
	}{
		`"90s"`: {90 * time.Second, `"1m30s"`}, `"12h"`: {12 * time.Hour, `"12h0m0s"`}, `"0"`: {0, `"0s"`}, `"1.5s"`: {1500 * time.Millisecond, `"1.5s"`},
		`"250us"`: {250 * time.Microsecond, `"250µs"`},
	} {
		var got Duration
		if err := json.Unmarshal([]byte(text), &got); err != nil || time.Duration(got) != want.value {
			t.Errorf("%s is read as %v, error %v", text, time.Duration(got), err)
		}
		if written, err := json.Marshal(got); err != nil || string(written) != want.written {
			t.Errorf("%s is written as %s, error %v", text, written, err)
		}
	}
	for _, text := range []string{`"soon"`, `"-1s"`, `""`, `5`, `"5"`, `true`} {
		var got Duration
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %v", text, time.Duration(got))
		}
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		"a": true, "01JD9ZK3N6Y1T0Q8W5M7R2C4XA": true, "A_b-9": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a.b": false, "a*": false, ">": false, "ä": false, "a\n": false,
	} {
		if job, err := ParseJobID(id); (err == nil) != ok || (ok && string(job) != id) {
			t.Errorf("job id %q: %q, %v", id, job, err)
		}
	}
	for name, ok := range map[string]bool{
		"default": true, "a_b-9": true, strings.Repeat("x", 32): true,
		"": false, strings.Repeat("x", 33): false, "A": false, "a.b": false, "a\n": false,
	} {
		if queue, err := ParseName[Queue](name); (err == nil) != ok || (ok && string(queue) != name) {
			t.Errorf("name %q: %q, %v", name, queue, err)
		}
	}
	job := NewJobID()
	if _, err := ParseJobID(string(job)); err != nil || job == NewJobID() {
		t.Errorf("new job id %q: %v", job, err)
	}
	token := NewToken()
	if _, err := ParseName[NodeID](token); err != nil || token == NewToken() {
		t.Errorf("new token %q: %v", token, err)
	}
	if key := InstanceKey("dispatcher", "x"); key != "dispatcher.x" {
		t.Errorf("instance key %q", key)
	}
}

func TestLanes(t *testing.T) {
	t.Parallel()
	want := []Lane{LaneLow, LaneLow, LaneLow, LaneLow, LaneNormal, LaneNormal, LaneNormal, LaneHigh, LaneHigh, LaneHigh}
	for priority, lane := range want {
		if got := (&Task{Priority: &priority}).Lane(); got != lane {
			t.Errorf("priority %d is lane %s, want %s", priority, got, lane)
		}
	}
	if got := new(Task).Lane(); got != LaneNormal {
		t.Errorf("no priority is lane %s", got)
	}
}

package contracts

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden messages in testdata")

// goldens has, by the first word of a golden message's file name, how the
// message is read and written again.
var goldens = map[string]func(data []byte) ([]byte, error){
	"task":        again(DecodeTask, (*Task).Encode),
	"every":       again(ReadTask, (*Task).Encode),
	"entry":       again(DecodeEntry, (*Entry).Encode),
	"note":        again(unmarshal[Note], marshal[Note]),
	"log":         again(unmarshal[LogChunk], marshal[LogChunk]),
	"revoke":      again(unmarshal[Revoke], marshal[Revoke]),
	"step":        again(unmarshal[Step], marshal[Step]),
	"step_result": again(unmarshal[StepResult], marshal[StepResult]),
	"dead_letter": again(unmarshal[DeadLetter], marshal[DeadLetter]),
}

func again[T any](decode func([]byte) (*T, error), encode func(*T) ([]byte, error)) func([]byte) ([]byte, error) {
	return func(data []byte) ([]byte, error) {
		message, err := decode(data)
		if err != nil {
			return nil, err
		}
		return encode(message)
	}
}

func unmarshal[T any](data []byte) (*T, error) {
	message := new(T)
	return message, json.Unmarshal(data, message, json.RejectUnknownMembers(true))
}

func marshal[T any](message *T) ([]byte, error) {
	return json.Marshal(message, json.Deterministic(true))
}

// goldenFiles returns the golden messages by file name: those whose first word
// is one of words, or all.
func goldenFiles(t testing.TB, words ...string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		if len(words) > 0 && !slices.Contains(words, firstWord(path)) {
			continue
		}
		if files[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) == 0 {
		t.Fatalf("no golden message of %v", words)
	}
	return files
}

func firstWord(path string) string {
	word, _, _ := strings.Cut(filepath.Base(path), ".")
	return word
}

func indent(t *testing.T, data []byte) []byte {
	t.Helper()
	value := jsontext.Value(data)
	if err := value.Indent(jsontext.WithIndent("  ")); err != nil {
		t.Fatal(err)
	}
	return append(value, '\n')
}

func TestGoldenMessages(t *testing.T) {
	t.Parallel()
	for name, golden := range goldenFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rewrite, ok := goldens[firstWord(name)]
			if !ok {
				t.Fatalf("no message is called %s", firstWord(name))
			}
			data, err := rewrite(golden)
			if err != nil {
				t.Fatal(err)
			}
			written := indent(t, data)
			if *update {
				if err := os.WriteFile(filepath.Join("testdata", name), written, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(golden), string(written)); diff != "" {
				t.Errorf("written differently (-golden +written):\n%s", diff)
			}
		})
	}
}

func TestGoldenMessagesHaveEveryType(t *testing.T) {
	t.Parallel()
	files := goldenFiles(t)
	every := string(files["every.task.json"])
	for kind := range decodeTransforms {
		if !strings.Contains(every, `"type": "`+string(kind)+`"`) {
			t.Errorf("no golden message has a %s", kind)
		}
	}
	for kind := range decodeOutputs {
		if !strings.Contains(every, `"type": "`+string(kind)+`"`) {
			t.Errorf("no golden message has a %s", kind)
		}
	}
	for kind := range newEntryData {
		if _, ok := files["entry."+string(kind)+".json"]; !ok {
			t.Errorf("no golden message is a %s entry", kind)
		}
	}
	for _, kind := range []NoteType{NoteProgress, NotePhase, NoteTransfer} {
		if _, ok := files["note."+string(kind)+".json"]; !ok {
			t.Errorf("no golden message is a %s note", kind)
		}
	}
	for word := range goldens {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(name string) bool { return firstWord(name) == word }) {
			t.Errorf("no golden message is a %s", word)
		}
	}
}

// A task that a client writes and one that was read and written again are the
// same, whatever forms of the values it used.
func TestTaskFormsAreEqual(t *testing.T) {
	t.Parallel()
	written := `{"version":1,"task":"docker_run","docker":{"image":"a","entrypoint":"sh -c 'a b'","args":[1,2.50,"x"],
		"options":{"environment":["A=1","B"],"mem_limit":"1.5g","user":1000,"labels":["l"]}},"retry":{"backoff":"60s"}}`
	canonical := `{"version":1,"task":"docker_run","docker":{"image":"a","entrypoint":["sh","-c","a b"],"args":["1","2.50","x"],` +
		`"options":{"environment":{"A":"1","B":""},"user":"1000","labels":{"l":""},"mem_limit":1610612736}},"retry":{"backoff":"1m0s"}}`
	task, err := DecodeTask([]byte(written))
	if err != nil {
		t.Fatal(err)
	}
	data, err := task.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != canonical {
		t.Errorf("written as\n%s\nwant\n%s", data, canonical)
	}
}

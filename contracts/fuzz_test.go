package contracts

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

func addGoldens(f *testing.F, words ...string) {
	for _, golden := range goldenFiles(f, words...) {
		f.Add(golden)
	}
}

// rewritten encodes what decode reads of data, and checks that what was written
// is read and written the same.
func rewritten(t *testing.T, data []byte, rewrite func([]byte) ([]byte, error)) []byte {
	t.Helper()
	once, err := rewrite(data)
	if err != nil {
		t.Fatalf("%q was accepted: %v", data, err)
	}
	twice, err := rewrite(once)
	if err != nil {
		t.Fatalf("written as %s: %v", once, err)
	}
	if !bytes.Equal(once, twice) {
		t.Fatalf("written as\n%s\nthen as\n%s", once, twice)
	}
	return once
}

func FuzzDecodeTask(f *testing.F) {
	addGoldens(f, "task", "every")
	schema := compileSchema(f, "task")
	f.Fuzz(func(t *testing.T, data []byte) {
		task, err := DecodeTask(data)
		if task == nil {
			t.Fatal("no task beside the error")
		}
		var invalid *InvalidTaskError
		if err != nil && (!errors.As(err, &invalid) || len(invalid.Problems) == 0) {
			t.Fatalf("%v is no InvalidTaskError with problems", err)
		}
		if err != nil {
			return
		}
		written := rewritten(t, data, goldens["task"])
		if err := validateJSON(schema, written); err != nil {
			t.Fatalf("accepted, but not by the schema: %s: %v", written, err)
		}
	})
}

func FuzzRedact(f *testing.F) {
	const mark = "mark of a secret "
	addGoldens(f, "task", "every")
	f.Fuzz(func(t *testing.T, data []byte) {
		task, err := ReadTask(data)
		if err != nil || bytes.Contains(data, []byte("mark")) || bytes.Contains(data, []byte(`\u`)) {
			return
		}
		want := map[string]string{}
		task.visitSecrets(func(kind SecretKind, path string, _ Secret) Secret {
			value := fmt.Sprintf("%s%d", mark, len(want))
			want[string(kind)+"/"+path] = value
			return Secret(value)
		})
		redacted, secrets, err := task.Redact()
		if err != nil {
			t.Fatal(err)
		}
		written, err := redacted.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(written, []byte(mark)) {
			t.Fatalf("a secret is left in %s", written)
		}
		redacted.visitSecrets(func(kind SecretKind, path string, secret Secret) Secret {
			value, err := secret.Resolve(secrets[kind])
			if err != nil || value != want[string(kind)+"/"+path] {
				t.Errorf("%s of %s stands for %q, error %v", path, kind, value, err)
			}
			return secret
		})
	})
}

func FuzzDecodeEntry(f *testing.F) {
	addGoldens(f, "entry")
	f.Fuzz(func(t *testing.T, data []byte) {
		entry, err := DecodeEntry(data)
		if err != nil {
			if errors.Is(err, ErrUnknownEntry) != (entry != nil) {
				t.Fatalf("entry %+v beside the error %v", entry, err)
			}
			return
		}
		rewritten(t, data, goldens["entry"])
		for _, kind := range entryKinds {
			next := NextEntry(entry, entry.Job, "test", kind())
			if err := CheckNext(entry, next); err != nil && !errors.Is(err, ErrIllegalEntry) {
				t.Fatal(err)
			}
			if err := CheckNext(next, entry); err != nil && !errors.Is(err, ErrIllegalEntry) {
				t.Fatal(err)
			}
		}
		StatusAfter(StatusSubmitted, entry)
	})
}

func FuzzDecodeRevoke(f *testing.F) {
	for _, golden := range goldenFiles(f, "revoke") {
		f.Add(golden, string(testJob))
	}
	f.Fuzz(func(t *testing.T, data []byte, job string) {
		revoke, err := DecodeRevoke(data, JobID(job))
		if err != nil {
			return
		}
		if revoke.Job != JobID(job) || revoke.SignalOrDefault() == "" || revoke.GraceOrDefault() < 0 {
			t.Fatalf("%+v", revoke)
		}
		rewritten(t, data, func(data []byte) ([]byte, error) {
			revoke, err := DecodeRevoke(data, JobID(job))
			if err != nil {
				return nil, err
			}
			return json.Marshal(revoke)
		})
	})
}

// lenient reads a message as services do, with unknown fields ignored.
func lenient[T any](data []byte) (*T, error) {
	message := new(T)
	return message, json.Unmarshal(data, message)
}

func FuzzLogChunk(f *testing.F) {
	addGoldens(f, "log")
	f.Add([]byte("\xff raw \xc3"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var chunk LogChunk
		chunk.SetBytes(data)
		sent, err := json.Marshal(&chunk)
		if err != nil {
			t.Fatal(err)
		}
		received, err := lenient[LogChunk](sent)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(received.Bytes(), data) {
			t.Fatalf("%q arrives as %q", data, received.Bytes())
		}
		if _, err := lenient[LogChunk](data); err == nil {
			rewritten(t, data, again(lenient[LogChunk], marshal[LogChunk]))
		}
	})
}

func FuzzNote(f *testing.F) {
	addGoldens(f, "note")
	f.Fuzz(func(t *testing.T, data []byte) {
		note, err := lenient[Note](data)
		if err != nil {
			return
		}
		rewritten(t, data, again(lenient[Note], marshal[Note]))
		if _, err := lenient[Progress](note.Data); err == nil {
			rewritten(t, note.Data, again(lenient[Progress], marshal[Progress]))
		}
	})
}

func FuzzParseReady(f *testing.F) {
	f.Add(ReadySubject(LaneHigh, "q-1", KindDocker, testJob, 3))
	f.Add("tasks.ready.a.b.c.d.-0")
	f.Fuzz(func(t *testing.T, subject string) {
		job, offer, err := ParseReady(subject)
		if err != nil {
			return
		}
		if _, err := ParseJobID(string(job)); err != nil || offer < 1 {
			t.Fatalf("%q is read as job %q, offer %d", subject, job, offer)
		}
		tokens := strings.Split(subject, ".")
		if again := ReadySubject(Lane(tokens[2]), Queue(tokens[3]), Kind(tokens[4]), job, offer); again != subject {
			t.Fatalf("%q is written as %q", subject, again)
		}
	})
}

func FuzzParseDue(f *testing.F) {
	f.Add(DueSubject(testJob, LaterRetry))
	f.Add("tasks.due..")
	f.Fuzz(func(t *testing.T, subject string) {
		job, what, err := ParseDue(subject)
		if err != nil {
			return
		}
		if again := DueSubject(job, what); again != subject || what == "" {
			t.Fatalf("%q is written as %q", subject, again)
		}
	})
}

// A Girder token never survives, wherever it stands in whatever was submitted.
func FuzzScrubPayload(f *testing.F) {
	token := strings.Repeat("Zq9", 21) + "Z"
	for _, golden := range goldenFiles(f, "task", "every") {
		f.Add(golden, len(golden)/2)
	}
	f.Add([]byte(`{"token":""`), 10)
	f.Fuzz(func(t *testing.T, payload []byte, at int) {
		at = max(0, min(at, len(payload)))
		scrubbed := ScrubPayload(bytes.Join([][]byte{payload[:at], []byte(token), payload[at:]}, nil))
		if bytes.Contains(scrubbed, []byte(token)) {
			t.Fatalf("the token is left in %q", scrubbed)
		}
		if len(scrubbed) > MaxDeadPayload || !utf8.Valid(scrubbed) {
			t.Fatalf("%d bytes, valid UTF-8: %t", len(scrubbed), utf8.Valid(scrubbed))
		}
		field := []byte(`{"a":[{"X-Token":"short secret"}],"payload":` + quoted(t, payload) + `}`)
		if scrubbed := ScrubPayload(field); bytes.Count(scrubbed, []byte("short secret")) > bytes.Count(payload, []byte("short secret")) {
			t.Fatalf("the field is left in %q", scrubbed)
		}
	})
}

func quoted(t *testing.T, payload []byte) string {
	t.Helper()
	text, err := json.Marshal(strings.ToValidUTF8(string(payload), ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

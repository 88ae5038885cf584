package contracts

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

// In the golden messages every secret starts with secretMark, and nothing else does.
const secretMark = "token-of-"

func readGolden(t testing.TB, name string) *Task {
	t.Helper()
	task, err := ReadTask(goldenFiles(t, firstWord(name))[name])
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestRedactLeavesNoSecret(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"task.big.json", "task.job_info.json", "task.streams.json", "every.task.json"} {
		task := readGolden(t, name)
		before, err := task.Encode()
		if err != nil {
			t.Fatal(err)
		}
		redacted, secrets, err := task.Redact()
		if err != nil {
			t.Fatal(err)
		}
		after, err := redacted.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(after, []byte(secretMark)) {
			t.Errorf("%s: the redacted task is\n%s", name, after)
		}
		taken := Secrets{} // the session's are among those of both kinds
		maps.Copy(taken, secrets[SecretIO])
		maps.Copy(taken, secrets[SecretJob])
		count := len(taken)
		if want := bytes.Count(before, []byte(secretMark)); count != want {
			t.Errorf("%s: %d secrets were taken out, the task has %d", name, count, want)
		}
		redacted.visitSecrets(func(kind SecretKind, path string, secret Secret) Secret {
			value, err := secret.Resolve(secrets[kind])
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return Secret(value)
		})
		resolved, err := redacted.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(before), string(resolved)); diff != "" {
			t.Errorf("%s: the references stand for other values (-task +resolved):\n%s", name, diff)
		}
	}
}

func TestRedactDividesTheSecrets(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]map[SecretKind]Secrets{
		"task.big.json": {
			SecretIO: {
				"girder.token":                "token-of-data-0123456789",
				"docker.args[3].girder.token": "token-of-file-0123456789",
				"outputs[0].girder.token":     "token-of-output-0123456789",
			},
			SecretJob: {"girder.job.token": "token-of-job-0123456789"},
		},
		"task.job_info.json": {
			SecretJob: {
				"girder.job_info.headers.Girder-Token": "token-of-jobinfo-0123456789",
				"girder.job_info.headers.X-Other":      "token-of-other-0123456789",
			},
		},
		"task.streams.json": {
			SecretIO: {
				"girder.token":                        "token-of-data-0123456789",
				"docker.args[9].output.headers.X-Key": "token-of-sink-0123456789",
			},
			SecretJob:       {"girder.job.token": "token-of-job-0123456789"},
			SecretContainer: {"girder.token": "token-of-data-0123456789"},
		},
		"task.minimal.json": {},
	} {
		_, secrets, err := readGolden(t, name).Redact()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, secrets); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The one reference that a task has to its token is resolved by transfer with
// its own kind of secrets, and by an executor with the container's.
func TestTheContainersTokenIsResolvedWithItsOwnKind(t *testing.T) {
	t.Parallel()
	redacted, secrets, err := readGolden(t, "task.streams.json").Redact()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []SecretKind{SecretIO, SecretContainer} {
		token, err := redacted.Girder.Token.Resolve(secrets[kind])
		if err != nil || token != "token-of-data-0123456789" {
			t.Errorf("with the secrets of %s it stands for %q, error %v", kind, token, err)
		}
	}
	if _, err := redacted.Girder.Token.Resolve(secrets[SecretJob]); err == nil {
		t.Error("resolved with the secrets of the Girder job")
	}
}

func TestRedactTwiceIsRedactOnce(t *testing.T) {
	t.Parallel()
	once, _, err := readGolden(t, "every.task.json").Redact()
	if err != nil {
		t.Fatal(err)
	}
	twice, secrets, err := once.Redact()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(once, twice); diff != "" || len(secrets) > 0 {
		t.Errorf("found %v in a redacted task (-once +twice):\n%s", secrets, diff)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	values := Secrets{"girder.token": "v"}
	for _, test := range []struct {
		secret Secret
		want   string
		gone   bool
	}{
		{"", "", false},
		{"plain", "plain", false},
		{"secret:io/girder.token", "v", false},
		{"secret:io/other", "", true},
		{"secret:", "", true},
	} {
		got, err := test.secret.Resolve(values)
		if got != test.want || (err != nil) != test.gone {
			t.Errorf("%q stands for %q, error %v", string(test.secret), got, err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	task := readGolden(t, "every.task.json")
	_, secrets, err := task.Redact()
	if err != nil {
		t.Fatal(err)
	}
	access := GirderAccess{Token: secretMark + "x"}
	job := GirderJob{Token: secretMark + "x"}
	for _, value := range []any{
		access.Token, access, &access, job, ChunkedStream{Headers: map[string]Secret{"X": secretMark + "x"}},
		*task.Girder, secrets, secrets[SecretIO], []Secret{secretMark + "x"},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, secretMark) {
				t.Errorf("%s of a %T prints %s", verb, value, text)
			}
		}
	}
	for secret, want := range map[Secret]string{"": "", "x": "***", "secret:io/girder.token": "secret:io/girder.token"} {
		if secret.String() != want || secret.GoString() != want {
			t.Errorf("%q is printed as %q and %q", string(secret), secret.String(), secret.GoString())
		}
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	hash := func(task *Task) string {
		sum, err := task.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	for _, name := range []string{"task.big.json", "every.task.json"} {
		task := readGolden(t, name)
		first := hash(task)
		for range 20 {
			if again := hash(task); again != first {
				t.Fatalf("%s: two hashes of one task: %s and %s", name, first, again)
			}
		}
		compact, err := task.Encode()
		if err != nil {
			t.Fatal(err)
		}
		same, err := ReadTask(compact)
		if err != nil || hash(same) != first {
			t.Errorf("%s: written without spaces, another hash (error %v)", name, err)
		}
		redacted, _, err := task.Redact()
		if err != nil {
			t.Fatal(err)
		}
		if hash(redacted) != first {
			t.Errorf("%s: the redacted task has another hash", name)
		}
		task.visitSecrets(func(SecretKind, string, Secret) Secret { return "another" })
		if hash(task) != first {
			t.Errorf("%s: other tokens, another hash", name)
		}
		task.Docker.Image = "other"
		if hash(task) == first {
			t.Errorf("%s: another image, the same hash", name)
		}
	}
}

func TestScrubPayload(t *testing.T) {
	t.Parallel()
	girder := strings.Repeat("Ab3", 21) + "x"
	for name, payload := range map[string]string{
		"a field":                      `{"girder":{"token":"SECRET"},"docker":{"image":"shown"}}`,
		"any writing of its name":      `{"API_Key":"SECRET","shown":1}`,
		"a number":                     `{"password":12345678,"shown":"SECRET-not"}`,
		"a list below it":              `{"certs":["SECRET",{"a":"SECRET"}],"shown":1}`,
		"headers":                      `{"headers":{"X-Own":"SECRET"},"shown":1}`,
		"Headers":                      `{"Headers":{"X-Own":"SECRET"},"shown":1}`,
		"proxies":                      `{"proxies":{"https":"http://u:SECRET@p"},"shown":1}`,
		"an escaped name":              `{"to\u006ben":"SECRET","shown":1}`,
		"a name given twice":           `{"token":"SECRET","token":"SECRET","shown":1}`,
		"bytes that are no text":       "{\"token\":\"SECRET\",\"a\":\"\xff\",\"shown\":1}",
		"JSON that is cut":             `{"shown":1,"token":"SECRET`,
		"JSON that is cut, an escape":  `{"shown":1,"token":"a\"SECRET`,
		"JSON that goes wrong":         `{"shown":1,"token":"SECRET",}`,
		"cut headers":                  `{"shown":1,"headers":{"X-Own":"a}SECRET","Y":"SECRET`,
		"the shape of a Girder token":  `{"args":["SECRET"],"shown":1}`,
		"the shape in what is no JSON": `shown SECRET`,
		"the shape between raw bytes":  "shown\xffSECRET\xfe",
	} {
		value := "SECRET"
		if strings.HasPrefix(name, "the shape") {
			value = girder
		}
		scrubbed := ScrubPayload([]byte(strings.ReplaceAll(payload, "SECRET", value)))
		if strings.Contains(strings.ReplaceAll(string(scrubbed), value+"-not", ""), value) || bytes.Contains(scrubbed, []byte("12345678")) {
			t.Errorf("%s: left %s", name, scrubbed)
		}
		if !bytes.Contains(scrubbed, []byte("shown")) {
			t.Errorf("%s: nothing to read in %s", name, scrubbed)
		}
	}
}

// What is scrubbed goes into a dead letter, which is JSON.
func TestScrubbedPayloadFitsADeadLetter(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{
		"\xff\xfe\x00", strings.Repeat("ä ", MaxDeadPayload), "x" + strings.Repeat("ä ", MaxDeadPayload), strings.Repeat("\xff ", MaxDeadPayload),
	} {
		scrubbed := ScrubPayload([]byte(payload))
		if len(scrubbed) > MaxDeadPayload || !utf8.Valid(scrubbed) {
			t.Errorf("%d bytes, valid UTF-8: %t", len(scrubbed), utf8.Valid(scrubbed))
		}
		if len(payload) > MaxDeadPayload && len(scrubbed) < MaxDeadPayload-utf8.UTFMax {
			t.Errorf("cut to %d bytes", len(scrubbed))
		}
		if _, err := json.Marshal(DeadLetter{Payload: string(scrubbed)}); err != nil {
			t.Error(err)
		}
	}
}

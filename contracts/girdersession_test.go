package contracts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

// Blocks as PEM texts have them; what is in them is for the services to read.
const (
	pemCert = `-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n`
	pemKey  = `-----BEGIN PRIVATE KEY-----\nMII=\n-----END PRIVATE KEY-----\n`
)

func withSession(session string) string {
	return `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"session":` + session + `}}`
}

// The forms are those of Python's requests.
func TestSessionForms(t *testing.T) {
	t.Parallel()
	schema := compileSchema(t, "task")
	for _, test := range []struct{ given, written string }{
		{`{}`, `{}`},
		{`{"verify":true,"cert":null,"proxies":{}}`, `{"verify":true}`},
		{`{"verify":null}`, `{}`},
		{`{"verify":false}`, `{"verify":false}`},
		{`{"verify":"/etc/ssl/ca.pem"}`, `{"verify":"/etc/ssl/ca.pem"}`},
		{`{"verify":"` + pemCert + `"}`, `{"verify":"` + pemCert + `"}`},
		{`{"cert":"/etc/both.pem"}`, `{"cert":"/etc/both.pem"}`},
		{`{"cert":["/etc/both.pem"]}`, `{"cert":"/etc/both.pem"}`},
		{`{"cert":["/etc/cert.pem","` + pemKey + `"]}`, `{"cert":["/etc/cert.pem","` + pemKey + `"]}`},
		{`{"cert":"` + pemKey + pemCert + `"}`, `{"cert":"` + pemKey + pemCert + `"}`},
		{
			`{"proxies":{"http":"proxy:3128","https":"http://u:p@proxy","all":"socks5h://[::1]:1080","https://girder.example.org":"","no_proxy":"a,10.0.0.0/8","ftp":"x"}}`,
			`{"proxies":{"all":"socks5h://[::1]:1080","ftp":"x","http":"proxy:3128","https":"http://u:p@proxy","https://girder.example.org":"","no_proxy":"a,10.0.0.0/8"}}`,
		},
	} {
		document := withSession(test.given)
		if err := validateJSON(schema, []byte(document)); err != nil {
			t.Errorf("%s: the schema refuses it: %v", test.given, err)
		}
		task, err := DecodeTask([]byte(document))
		if err != nil {
			t.Errorf("%s: %v", test.given, err)
			continue
		}
		written, err := json.Marshal(task.Girder.Session, json.Deterministic(true))
		if err != nil || string(written) != test.written {
			t.Errorf("%s is written as %s, %v", test.given, written, err)
		}
	}
}

func TestSessionIsRefused(t *testing.T) {
	t.Parallel()
	const neither = "is neither PEM text nor the absolute path of a PEM file"
	for session, want := range map[string]string{
		`[]`:                                "girder.session: a list found where an object is wanted",
		`{"verfy":true}`:                    "girder.session.verfy: unknown field",
		`{"verify":""}`:                     "girder.session.verify: is empty; leave it out",
		`{"verify":1}`:                      "girder.session.verify: must be true, false, or the path or text of a PEM file",
		`{"verify":{"ca":"x"}}`:             "girder.session.verify: must be true, false",
		`{"verify":"ca.pem"}`:               "girder.session.verify: " + neither,
		`{"verify":"` + pemKey + `"}`:       "girder.session.verify: has no certificate",
		`{"cert":""}`:                       "girder.session.cert: must be one string with certificate and key, or a list of the two",
		`{"cert":[]}`:                       "girder.session.cert: must be one string",
		`{"cert":["a","b","c"]}`:            "girder.session.cert: must be one string",
		`{"cert":["/a",""]}`:                "girder.session.cert: must be one string",
		`{"cert":[1,2]}`:                    "girder.session.cert[0]: a number found where a string is wanted",
		`{"cert":true}`:                     "girder.session.cert: a boolean found where a list is wanted",
		`{"cert":["/a","hidden-key"]}`:      "girder.session.cert[1]: " + neither,
		`{"cert":"` + pemCert + `"}`:        "girder.session.cert: has no private key",
		`{"cert":["/a","` + pemCert + `"]}`: "girder.session.cert[1]: has no private key",
		`{"cert":["/a","-----BEGIN ENCRYPTED PRIVATE KEY-----"]}`: "girder.session.cert[1]: has an encrypted key",
		`{"cert":["secret:io/x","/b"]}`:                           "girder.session.cert[0]: starts with",
		`{"verify":"secret:io/x"}`:                                "girder.session.verify: starts with",
		`{"cert":"secret:io/x"}`:                                  "girder.session.cert: starts with",
		`{"proxies":"http://hidden-proxy"}`:                       "girder.session.proxies: a string found where an object is wanted",
		`{"proxies":{"https":5}}`:                                 "girder.session.proxies.https: a number found",
		`{"proxies":{"htps":"http://hidden-proxy"}}`:              `girder.session.proxies.htps: "htps" is not what a proxy is for; known are http, https, all, no_proxy`,
		`{"proxies":{"no://x":"http://hidden-proxy"}}`:            "is not what a proxy is for",
		`{"proxies":{"https://h:8443":"http://hidden-proxy"}}`:    `girder.session.proxies.https://h:8443: "https://h:8443" names no host; write it without a port or a path`,
		`{"proxies":{"https://":"http://hidden-proxy"}}`:          "names no host",
		`{"proxies":{"https":"http://u:hidden@"}}`:                "girder.session.proxies.https: is not the URL of a proxy such as",
		`{"proxies":{"https":"http://u:hidden@h:x"}}`:             "girder.session.proxies.https: is not the URL of a proxy such as",
		`{"proxies":{"https":"socks4://u:hidden@h"}}`:             "girder.session.proxies.https: has a scheme that is not supported; known are http, https, socks5 and socks5h",
		`{"proxies":{"https":"secret:io/girder.token"}}`:          "girder.session.proxies.https: starts with",
	} {
		_, err := DecodeTask([]byte(withSession(session)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", session, err, want)
			continue
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the error shows what it refuses: %v", session, err)
		}
	}
}

// A task with a Girder job has the secrets of its session for both services that
// speak to Girder.
func TestSecretsOfASession(t *testing.T) {
	t.Parallel()
	session := `{"verify":"/ca.pem","cert":["` + pemCert + `","` + pemKey + `"],"proxies":{"https":"http://u:p@proxy","no_proxy":"x"}}`
	all := Secrets{
		"girder.session.cert[0]": strings.ReplaceAll(pemCert, `\n`, "\n"), "girder.session.cert[1]": strings.ReplaceAll(pemKey, `\n`, "\n"),
		"girder.session.proxies.https": "http://u:p@proxy", "girder.session.proxies.no_proxy": "x",
	}
	without := map[SecretKind]Secrets{SecretIO: all}
	of := Secrets{"girder.job.token": "t"}
	for path, value := range all {
		of[path] = value
	}
	for job, want := range map[string]map[SecretKind]Secrets{
		``: without, `,"job":{"token":"t"}`: {SecretIO: all, SecretJob: of},
	} {
		task, err := DecodeTask(fmt.Appendf(nil,
			`{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"api_url":"http://g","session":%s%s}}`, session, job))
		if err != nil {
			t.Fatal(err)
		}
		redacted, secrets, err := task.Redact()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, secrets); diff != "" {
			t.Errorf("%q (-want +got):\n%s", job, diff)
		}
		if shown := fmt.Sprintf("%+v %#v", task.Girder.Session, task.Girder.Session); strings.Contains(shown, "PRIVATE KEY") || strings.Contains(shown, "u:p") {
			t.Errorf("a log would have %s", shown)
		}
		for kind := range secrets {
			resolved, err := redacted.Girder.Session.Resolve(secrets[kind])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(task.Girder.Session, resolved); diff != "" {
				t.Errorf("%s stands for another session (-given +resolved):\n%s", kind, diff)
			}
		}
		if _, err := redacted.Girder.Session.Resolve(secrets[SecretContainer]); err == nil || !strings.Contains(err.Error(), "girder.session: the secret of girder.session.cert[0] is gone") {
			t.Errorf("without the secrets: %v", err)
		}
		if !redacted.Girder.Session.Proxies["https"].IsReference() {
			t.Error("resolving changed the session that was resolved")
		}
	}
	if none, err := (*GirderSession)(nil).Resolve(nil); none != nil || err != nil {
		t.Error(none, err)
	}
}

func TestDeadLettersShowNoSecretOfASession(t *testing.T) {
	t.Parallel()
	payload := withSession(`{"cert":["` + pemCert + `","` + pemKey + `"],"proxies":{"https":"http://u:hidden@proxy"},"verify":"/ca.pem","x":1}`)
	for _, given := range []string{payload, payload[:len(payload)-1]} {
		if scrubbed := string(ScrubPayload([]byte(given))); strings.Contains(scrubbed, "hidden") || strings.Contains(scrubbed, "PRIVATE KEY") || !strings.Contains(scrubbed, "/ca.pem") {
			t.Errorf("kept of a dead letter: %s", scrubbed)
		}
	}
}

// A session says how to reach one server, and tells no other who we are.
func TestSessionForOneServer(t *testing.T) {
	t.Parallel()
	session := &GirderSession{}
	for _, test := range []struct {
		api, own string
		want     *GirderSession
	}{
		{"https://g/api/v1", "", session},
		{"https://g/api/v1", "https://G/sub/api/v1", session},
		{"https://g/api/v1", "https://other/api/v1", nil},
		{"https://g/api/v1", "https://g:8443/api/v1", nil},
		{"", "https://other/api/v1", session},
	} {
		task := &Task{Girder: &Girder{APIURL: test.api, Session: session}}
		if got := task.SessionFor(&GirderAccess{APIURL: test.own}); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
	if (&Task{}).SessionFor(nil) != nil {
		t.Error("a session of nobody")
	}
}

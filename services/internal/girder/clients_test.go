package girder_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// Names that nobody but a proxy knows.
const (
	hidden      = "girder.invalid"
	otherHidden = "other.invalid"
)

// fortress is a Girder with a certificate of its own authority.
type fortress struct {
	*site
	authority *girdersim.Authority
	own       girdersim.Pair // a client's
	clients   *girder.Clients
}

func startFortress(t *testing.T, demanding bool, folders ...string) *fortress {
	t.Helper()
	f := &fortress{clients: girder.NewClients(girder.ClientLimits{SessionFiles: folders})}
	t.Cleanup(f.clients.Close)
	var err error
	if f.authority, err = girdersim.NewAuthority("test"); err != nil {
		t.Fatal(err)
	}
	server, err := f.authority.Issue("girder", "127.0.0.1", hidden, otherHidden)
	if err != nil {
		t.Fatal(err)
	}
	if f.own, err = f.authority.Issue("worker"); err != nil {
		t.Fatal(err)
	}
	options := girdersim.TLS{}
	if options.Certificate, err = server.TLS(); err != nil {
		t.Fatal(err)
	}
	if demanding {
		options.ClientAuthorities = f.authority.Pool()
	}
	f.site = startSiteWith(t, girdersim.Options{TLS: &options})
	return f
}

// session is one that leads to Girder.
func (f *fortress) session() *contracts.GirderSession {
	return &contracts.GirderSession{
		Verify: &contracts.Verify{Authorities: f.authority.PEM()},
		Cert:   contracts.ClientCert{Cert: contracts.Secret(f.own.Cert), Key: contracts.Secret(f.own.Key)},
	}
}

// get reads the site's file by a session.
func get(t *testing.T, clients *girder.Clients, session *contracts.GirderSession, s *site, api string) error {
	t.Helper()
	client, done, err := clients.For(session)
	if err != nil {
		return err
	}
	defer done()
	c, err := girder.New(girder.Options{APIURL: api, Token: s.token, HTTPClient: client, Retry: girder.Retry{Total: -1}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.GetFile(t.Context(), girder.FileID(s.file.ID))
	return err
}

func write(t *testing.T, folder, name, text string) string {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSessionsOverTLS(t *testing.T) {
	t.Parallel()
	folder, outside := t.TempDir(), t.TempDir()
	f := startFortress(t, true, "/does/not/exist", folder)
	stranger, err := girdersim.NewAuthority("stranger")
	must(t, err)
	foreign, err := stranger.Issue("worker")
	must(t, err)
	ca := write(t, folder, "ca.pem", f.authority.PEM())
	both := write(t, folder, "both.pem", f.own.Key+f.own.Cert)
	elsewhere := write(t, outside, "both.pem", f.own.Key+f.own.Cert)
	must(t, os.Mkdir(filepath.Join(folder, "v1"), 0o700))
	must(t, os.Symlink("v1", filepath.Join(folder, "current")))
	write(t, filepath.Join(folder, "v1"), "key.pem", f.own.Key)
	must(t, os.Symlink(elsewhere, filepath.Join(folder, "out.pem")))
	must(t, syscall.Mkfifo(filepath.Join(folder, "pipe.pem"), 0o600))
	write(t, folder, "words.pem", "hidden words")
	write(t, folder, "huge.pem", "-----BEGIN "+strings.Repeat("x", 5<<20))

	type change func(*contracts.GirderSession)
	verify := func(text string) change {
		return func(s *contracts.GirderSession) { s.Verify = &contracts.Verify{Authorities: text} }
	}
	cert := func(cert, key string) change {
		return func(s *contracts.GirderSession) {
			s.Cert = contracts.ClientCert{Cert: contracts.Secret(cert), Key: contracts.Secret(key)}
		}
	}
	at := func(name string) string { return filepath.Join(folder, name) }
	const notAllowed = "names a file outside the folders that the operator allows (session_files, GANTRY_SESSION_FILES); PEM text"
	for name, test := range map[string]struct {
		change change
		want   string // "" works
	}{
		"PEM texts":              {func(*contracts.GirderSession) {}, ""},
		"one PEM text":           {cert(f.own.Cert+f.own.Key, ""), ""},
		"paths":                  {func(s *contracts.GirderSession) { verify(ca)(s); cert(both, "")(s) }, ""},
		"path and text, by link": {cert(f.own.Cert, at("current/key.pem")), ""},
		"any certificate":        {func(s *contracts.GirderSession) { s.Verify = &contracts.Verify{Off: true} }, ""},
		"the system's authorities": {
			func(s *contracts.GirderSession) { s.Verify = nil },
			"girder.session.verify: the server's certificate is not trusted: ",
		},
		"other authorities": {
			verify(stranger.PEM()),
			"girder.session.verify: the server's certificate is not trusted: tls: failed to verify certificate: " +
				"x509: certificate signed by unknown authority; set verify to the PEM text of its authority",
		},
		"no authorities":        {verify("-----BEGIN CERTIFICATE-----\nhidden"), "girder.session.verify: has no certificate in it that can be read"},
		"no path":               {verify("ca.pem"), "girder.session.verify: is neither PEM text nor the absolute path"},
		"another folder":        {cert(elsewhere, ""), "girder.session.cert: " + notAllowed},
		"out of the folder":     {cert(folder+"/../"+filepath.Base(outside)+"/both.pem", ""), "girder.session.cert: " + notAllowed},
		"the folder's neighbor": {verify(folder + "x/ca.pem"), "girder.session.verify: " + notAllowed},
		"a link that leaves":    {cert(at("out.pem"), ""), "girder.session.cert: the file that it names cannot be read: path escapes"},
		"no file":               {cert(at("missing.pem"), ""), "girder.session.cert: the file that it names cannot be read: no such file"},
		"a pipe":                {verify(at("pipe.pem")), "girder.session.verify: the file that it names cannot be read: it is not a regular file"},
		"the folder itself":     {verify(folder), "girder.session.verify: the file that it names cannot be read: it is not a regular file"},
		"words":                 {cert(at("words.pem"), ""), "girder.session.cert: the file that it names cannot be read: it is not a PEM file"},
		"a huge file":           {verify(at("huge.pem")), "girder.session.verify: the file that it names cannot be read: it has more than 4 MiB"},
		"no certificate":        {cert("", ""), "girder.session.cert: the server does not accept our certificate: "},
		"a stranger":            {cert(foreign.Cert, foreign.Key), "girder.session.cert: the server does not accept our certificate: "},
		"another's key":         {cert(f.own.Cert, foreign.Key), "girder.session.cert: is not a certificate with its key: "},
		"no key":                {cert(f.own.Cert, ""), "girder.session.cert: is not a certificate with its key: "},
		"an encrypted key":      {cert(f.own.Cert, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhidden"), "girder.session.cert: the key is encrypted"},
		"a reference":           {cert("secret:io/girder.session.cert[0]", ""), "girder.session.cert: is neither PEM text"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			session := f.session()
			test.change(session)
			err := get(t, f.clients, session, f.site, f.APIURL())
			var fault *girder.SessionError
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want == "":
			case !errors.As(err, &fault) || girder.IsTemporary(err) || !strings.HasPrefix(fault.Error(), test.want):
				t.Errorf("%v, want %s", err, test.want)
			case strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), folder):
				t.Errorf("it shows too much: %v", err)
			}
		})
	}
}

func TestSessionsThroughProxies(t *testing.T) {
	t.Parallel()
	f := startFortress(t, false)
	plain := startSite(t)
	secureAddress, plainAddress := hostOf(f.APIURL()), hostOf(plain.APIURL())
	_, plainPort, _ := strings.Cut(plainAddress, ":")
	_, securePort, _ := strings.Cut(secureAddress, ":")

	web := startHTTPProxy(t, plainAddress, false)
	web.Start()
	tunnel := startHTTPProxy(t, secureAddress, false)
	tunnel.Start()
	guarded := startHTTPProxy(t, secureAddress, true)
	guarded.Start()
	guardedWeb := startHTTPProxy(t, plainAddress, true)
	guardedWeb.Start()
	refusing := startHTTPProxy(t, secureAddress, false)
	refusing.refusal = 403
	refusing.Start()
	inTLS := startHTTPProxy(t, secureAddress, false)
	pair, err := f.authority.Issue("proxy", "127.0.0.1")
	must(t, err)
	inTLS.TLS = serverTLS(t, pair)
	inTLS.StartTLS()
	socks, socksAddress := startSOCKS(t, secureAddress, false)
	guardedSOCKS, guardedSOCKSAddress := startSOCKS(t, plainAddress, true)

	secureURL, plainURL := fmt.Sprintf("https://%s:%s/api/v1", hidden, securePort), fmt.Sprintf("http://%s:%s/api/v1", hidden, plainPort)
	userAt := func(address string) string { return "u:hidden@" + address }
	addressOf := func(p *httpProxy) string { return p.Listener.Addr().String() }
	for _, test := range []struct {
		name    string
		proxies map[string]contracts.Secret
		secure  bool
		by      *forwarder
		asked   string
		want    string // "" works
	}{
		{"absolute", map[string]contracts.Secret{"http": contracts.Secret(web.URL)}, false, web.forwarder, "GET " + hidden + ":" + plainPort, ""},
		{"a host and port", map[string]contracts.Secret{"http": contracts.Secret(addressOf(web))}, false, web.forwarder, "GET " + hidden + ":" + plainPort, ""},
		{"tunnel", map[string]contracts.Secret{"https": contracts.Secret(tunnel.URL), "http": "http://127.0.0.1:1"}, true, tunnel.forwarder, "CONNECT " + hidden + ":" + securePort, ""},
		{"the host's own", map[string]contracts.Secret{"https": "http://127.0.0.1:1", "https://" + strings.ToUpper(hidden): contracts.Secret(tunnel.URL)}, true, tunnel.forwarder, "CONNECT " + hidden + ":" + securePort, ""},
		{"all of a host", map[string]contracts.Secret{"all": "http://127.0.0.1:1", "all://" + hidden: contracts.Secret(tunnel.URL)}, true, tunnel.forwarder, "CONNECT " + hidden + ":" + securePort, ""},
		{"all", map[string]contracts.Secret{"all": contracts.Secret(tunnel.URL), "https://" + otherHidden: "http://127.0.0.1:1", "no_proxy": otherHidden}, true, tunnel.forwarder, "CONNECT " + hidden + ":" + securePort, ""},
		{"password", map[string]contracts.Secret{"https": contracts.Secret("http://" + userAt(addressOf(guarded)))}, true, guarded.forwarder, "CONNECT " + hidden + ":" + securePort, ""},
		{"password, absolute", map[string]contracts.Secret{"http": contracts.Secret("http://" + userAt(addressOf(guardedWeb)))}, false, guardedWeb.forwarder, "GET " + hidden + ":" + plainPort, ""},
		{"no password", map[string]contracts.Secret{"https": contracts.Secret(guarded.URL)}, true, guarded.forwarder, "CONNECT " + hidden + ":" + securePort, "girder.session.proxies: the proxy " + addressOf(guarded) + " wants a user name and a password"},
		{"no password, absolute", map[string]contracts.Secret{"http": contracts.Secret(guardedWeb.URL)}, false, guardedWeb.forwarder, "GET " + hidden + ":" + plainPort, "girder.session.proxies: the proxy " + guardedWeb.Listener.Addr().String() + " wants a user name and a password"},
		{"refused", map[string]contracts.Secret{"https": contracts.Secret("http://" + userAt(addressOf(refusing)))}, true, refusing.forwarder, "CONNECT " + hidden + ":" + securePort, "girder.session.proxies: the proxy " + addressOf(refusing) + " does not let us through"},
		{"TLS to the proxy", map[string]contracts.Secret{"https": contracts.Secret(inTLS.URL)}, true, inTLS.forwarder, "CONNECT " + hidden + ":" + securePort, ""},
		{"SOCKS", map[string]contracts.Secret{"all": contracts.Secret("socks5h://" + socksAddress)}, true, socks, "SOCKS " + hidden + ":" + securePort, ""},
		{"SOCKS, old name", map[string]contracts.Secret{"all": contracts.Secret("socks5://" + socksAddress)}, true, socks, "SOCKS " + hidden + ":" + securePort, ""},
		{"SOCKS with password", map[string]contracts.Secret{"http": contracts.Secret("socks5h://" + userAt(guardedSOCKSAddress))}, false, guardedSOCKS, "SOCKS " + hidden + ":" + plainPort, ""},
		{"no URL", map[string]contracts.Secret{"https": "http://u:hidden@:x"}, true, nil, "", "girder.session.proxies.https: is not the URL of a proxy"},
		{"another scheme", map[string]contracts.Secret{"https": "socks4://u:hidden@h"}, true, nil, "", "girder.session.proxies.https: has a scheme that is not supported"},
	} {
		t.Run(test.name, func(t *testing.T) {
			session, s, api := &contracts.GirderSession{Proxies: test.proxies}, plain, plainURL
			if test.secure {
				session.Verify, s, api = &contracts.Verify{Authorities: f.authority.PEM()}, f.site, secureURL
			}
			err := get(t, f.clients, session, s, api)
			var fault *girder.SessionError
			if test.want == "" && err != nil {
				t.Error(err)
			} else if test.want != "" && (!errors.As(err, &fault) || girder.IsTemporary(err) || !strings.HasPrefix(fault.Error(), test.want)) {
				t.Errorf("%v, want %s", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hidden@") {
				t.Errorf("it shows the password: %v", err)
			}
			if test.by == nil {
				return
			}
			if diff := cmp.Diff([]string{test.asked}, test.by.names()); diff != "" {
				t.Errorf("the proxy was asked for (-want +got)\n%s", diff)
			}
		})
	}
	// A Girder in no_proxy, or with an empty proxy, is reached without one.
	for _, proxies := range []map[string]contracts.Secret{
		{"all": "http://127.0.0.1:1", "no_proxy": "localhost, 127.0.0.0/8"},
		{"all": "http://127.0.0.1:1", "http://127.0.0.1": ""},
		{"https": "http://127.0.0.1:1"},
	} {
		if err := get(t, f.clients, &contracts.GirderSession{Proxies: proxies}, plain, plain.APIURL()); err != nil {
			t.Errorf("%v: %v", proxies, err)
		}
	}
	// A proxy that is not there may be, later.
	err = get(t, f.clients, &contracts.GirderSession{Proxies: map[string]contracts.Secret{"all": "http://u:hidden@127.0.0.1:1"}}, plain, plain.APIURL())
	if !girder.IsTemporary(err) || strings.Contains(err.Error(), "hidden") {
		t.Error(err)
	}
}

func TestClientsAreShared(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	f := startFortress(t, true, folder)
	path := write(t, folder, "ca.pem", f.authority.PEM())
	usual, done, err := f.clients.For(nil)
	must(t, err)
	done()
	for _, session := range []*contracts.GirderSession{{}, {Verify: &contracts.Verify{}}, {Proxies: map[string]contracts.Secret{}}} {
		client, done, err := f.clients.For(session)
		if err != nil || client != usual {
			t.Errorf("%+v has a client of its own, %v", session, err)
			continue
		}
		done()
	}
	first, firstDone, err := f.clients.For(f.session())
	must(t, err)
	second, secondDone, err := f.clients.For(f.session())
	must(t, err)
	byPath := f.session()
	byPath.Verify.Authorities = path
	third, thirdDone, err := f.clients.For(byPath)
	must(t, err)
	if first != second || first == usual {
		t.Error("equal sessions do not share a client")
	}
	if same, done, err := f.clients.For(byPath); err != nil || same != third || same == first {
		t.Errorf("sessions of the same file do not share a client, %v", err)
	} else {
		done()
	}
	for name, change := range map[string]func(*contracts.GirderSession){
		"verify":  func(s *contracts.GirderSession) { s.Verify = &contracts.Verify{Off: true} },
		"cert":    func(s *contracts.GirderSession) { s.Cert = contracts.ClientCert{} },
		"proxies": func(s *contracts.GirderSession) { s.Proxies = map[string]contracts.Secret{"https": "http://p"} },
		"bypass":  func(s *contracts.GirderSession) { s.Proxies = map[string]contracts.Secret{"no_proxy": "x"} },
		"direct":  func(s *contracts.GirderSession) { s.Proxies = map[string]contracts.Secret{"all": ""} },
	} {
		session := f.session()
		change(session)
		client, done, err := f.clients.For(session)
		must(t, err)
		if client == first || client == usual {
			t.Errorf("%s makes no difference", name)
		}
		done()
	}
	thirdDone()
	for _, done := range []func(){firstDone, firstDone} {
		done()
	}
	if again, done, err := f.clients.For(f.session()); err != nil || again != second {
		t.Errorf("dropped while in use, %v", err)
	} else {
		done()
	}
	secondDone()
	if again, done, err := f.clients.For(f.session()); err != nil || again == second {
		t.Errorf("kept for nobody, %v", err)
	} else {
		done()
	}
}

// TestRenewedFiles: a client that is in use reads the files of its session again
// when they are renewed, and goes on with those of before while they are broken.
func TestRenewedFiles(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	f := startFortress(t, true, folder)
	stranger, err := girdersim.NewAuthority("stranger")
	must(t, err)
	foreign, err := stranger.Issue("worker")
	must(t, err)
	// replace renews a file as one does that must never be read by half.
	replace := func(name, text string) string {
		must(t, os.Rename(write(t, folder, name+".new", text), filepath.Join(folder, name)))
		return filepath.Join(folder, name)
	}
	session := &contracts.GirderSession{
		Verify: &contracts.Verify{Authorities: replace("ca.pem", stranger.PEM())},
		Cert:   contracts.ClientCert{Cert: contracts.Secret(replace("own.pem", foreign.Key+foreign.Cert))},
	}
	client, done, err := f.clients.For(session)
	must(t, err)
	defer done()
	c, err := girder.New(girder.Options{APIURL: f.APIURL(), Token: f.token, HTTPClient: client, Retry: girder.Retry{Total: -1}})
	must(t, err)
	for _, step := range []struct {
		name, file, text, fault string // fault is the field that is wrong
	}{
		{"a foreign authority", "", "", "verify"},
		{"the authority is renewed", "ca.pem", f.authority.PEM(), "cert"},
		{"so is our certificate", "own.pem", f.own.Key + f.own.Cert, ""},
		{"what is broken does not count", "own.pem", "-----BEGIN nothing", ""},
		{"nor does what is gone", "ca.pem", "", ""},
		{"the foreign one again", "ca.pem", stranger.PEM(), ""}, // both files are to be right
		{"and both can be read", "own.pem", f.own.Key + f.own.Cert + "\n", "verify"},
	} {
		switch {
		case step.file != "" && step.text == "":
			must(t, os.Remove(filepath.Join(folder, step.file)))
		case step.file != "":
			replace(step.file, step.text)
		}
		client.CloseIdleConnections() // what is connected has been let in
		_, err := c.GetFile(t.Context(), girder.FileID(f.file.ID))
		var fault *girder.SessionError
		switch isFault := errors.As(err, &fault); {
		case step.fault == "" && err != nil, step.fault != "" && (!isFault || fault.Field != step.fault):
			t.Errorf("%s: %v, want a fault of %q", step.name, err, step.fault)
		}
	}
}

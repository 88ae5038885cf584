package stream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts/client/testport"
)

// server answers HTTP; the test waits until its handlers have ended.
func (b *bench) server(handle http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(handle)
	b.t.Cleanup(s.Close)
	return s
}

// post streams the pipe to a URL until its container ends.
func (b *bench) post(ctx context.Context, url string, headers map[string]string) (*Outlet, <-chan error) {
	b.t.Helper()
	p, err := NewPost(url, headers, timeout)
	b.must(err)
	return b.drain(ctx, p)
}

// answered is post to a server that answers, or goes, whatever it was sent.
func (b *bench) answered(ctx context.Context, url string, headers map[string]string) (*Outlet, <-chan error) {
	b.t.Helper()
	p, err := NewPost(url, headers, timeout)
	b.must(err)
	p.words = timeout
	return b.drain(ctx, p)
}

func (b *bench) drain(ctx context.Context, p *Post) (*Outlet, <-chan error) {
	b.t.Helper()
	outlet := b.outlet()
	ended := make(chan error, 1)
	go func() { ended <- p.Drain(ctx, outlet) }()
	return outlet, ended
}

// TestDrainIsExact has sizes around those of a buffer, an empty POST among them.
func TestDrainIsExact(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 65536, 65537, 2_100_000} {
		b := setup(t)
		content := noise(size)
		var got []byte
		var request *http.Request
		s := b.server(func(w http.ResponseWriter, r *http.Request) {
			got, _ = io.ReadAll(r.Body)
			request = r
			w.WriteHeader(http.StatusCreated)
		})
		outlet, ended := b.post(t.Context(), s.URL+"/a%20b/c?x=1&y=a+b", map[string]string{
			"X-Key": "v", "content-type": "text/x", "Content-Length": "7", "Transfer-Encoding": "gzip", "Host": "elsewhere",
		})
		if size > 0 {
			b.must(b.write(string(content[:size/2]), string(content[size/2:])))
		}
		outlet.Pipe.End()
		b.must(b.await(ended))
		if !bytes.Equal(got, content) || outlet.Bytes() != int64(size) {
			t.Errorf("%d bytes: the server has %d, moved %d", size, len(got), outlet.Bytes())
		}
		if request.Method != "POST" || request.RequestURI != "/a%20b/c?x=1&y=a+b" || !slices.Equal(request.TransferEncoding, []string{"chunked"}) ||
			request.Header.Get("X-Key") != "v" || request.Header.Get("Content-Type") != "text/x" || request.Host != strings.TrimPrefix(s.URL, "http://") {
			t.Errorf("%s %s %v %v %s", request.Method, request.RequestURI, request.TransferEncoding, request.Header, request.Host)
		}
	}
}

// TestEachReadIsAChunk: a server sees what the container wrote as it comes.
func TestEachReadIsAChunk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	defer l.Close()
	seen := make(chan string, 10)
	served := b.container(func() error {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil { // its head; the body is read raw
			return err
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return err
			}
			var n int
			if _, err := fmt.Sscanf(line, "%x\r\n", &n); err != nil {
				return err
			}
			chunk := make([]byte, n+2)
			if _, err := io.ReadFull(in, chunk); err != nil {
				return err
			}
			if n == 0 {
				break
			}
			seen <- string(chunk[:n])
		}
		_, err = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
		return err
	})
	outlet, ended := b.post(t.Context(), "http://"+l.Addr().String()+"/", nil)
	f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
	b.must(err)
	for _, piece := range []string{"one", "two", "three", strings.Repeat("four", 1000)} {
		_, err := io.WriteString(f, piece)
		b.must(err)
		if got := <-seen; got != piece { // before the container writes more
			t.Errorf("%q for %q", got, piece)
		}
	}
	b.must(f.Close())
	outlet.Pipe.End()
	b.must(b.await(ended))
	b.must(b.await(served))
}

// TestDrainRefused: answers that are the task's failure, with or without
// anything read before, while the container writes on or stands still.
func TestDrainRefused(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-token"
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		status int
		early  bool
		says   string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.invalid/?token="+secret, http.StatusFound)
		}, 302, true, "redirects are not followed"},
		"permanent redirect": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Location", "/")
			w.WriteHeader(http.StatusPermanentRedirect)
		}, 308, false, "redirects are not followed"},
		"404": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			http.Error(w, "there is no such place\nfor "+r.Header.Get("X-Key"), http.StatusNotFound)
		}, 404, false, "404 Not Found: there is no such place for ***"},
		"405 at once": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }, 405, true, "405 Method Not Allowed"},
		"413 in the middle": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 3)
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}, 413, true, "413"},
		"500": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			http.Error(w, strings.Repeat("long ", 1000), http.StatusInternalServerError)
		}, 500, false, "500 Internal Server Error: long long"},
		"early success": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 3)
			w.WriteHeader(http.StatusOK)
		}, 200, true, "answered before it had everything"},
	} {
		for how, stands := range map[string]bool{"writes on": false, "stands still": true} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				if stands && !c.early {
					t.Skip("this server waits for the end")
				}
				b := setup(t)
				s := b.server(c.answer)
				outlet, ended := b.answered(t.Context(), s.URL+"/up?token="+secret, map[string]string{"X-Key": secret})
				hold := b.outlet() // what is held beside a mover: the container gets no SIGPIPE
				container, err := os.OpenFile(b.path, os.O_WRONLY, 0)
				b.must(err)
				_, err = io.WriteString(container, "first")
				b.must(err)
				written := b.container(func() error {
					if stands {
						return nil
					}
					_, err := io.Copy(container, bytes.NewReader(make([]byte, 30_000)))
					return err
				})
				if !stands {
					b.must(b.await(written))
				}
				if !c.early {
					outlet.Pipe.End()
				}
				err = b.await(ended)
				var refused *Refused
				if !errors.As(err, &refused) || refused.Status != c.status || !IsFailure(err) || !strings.Contains(err.Error(), c.says) ||
					!strings.Contains(err.Error(), refused.Where) || c.early && c.status == 200 && !refused.Early {
					t.Errorf("%v (%+v)", err, refused)
				}
				if strings.Contains(err.Error(), secret) || len(err.Error()) > 400 {
					t.Errorf("the error has too much: %v", err)
				}
				b.must(container.Close())
				b.must(hold.Pipe.Close())
			})
		}
	}
}

// TestDrainOfAServerThatBreaksOffWithAnAnswer has it heard although sending fails.
func TestDrainOfAServerThatBreaksOffWithAnAnswer(t *testing.T) {
	t.Parallel()
	much := strings.Repeat("much", 2<<20)
	for range 10 {
		b := setup(t)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		b.must(err)
		served := b.container(func() error {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			// It reads the head: what is unread makes its end a reset.
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				return errors.Join(err, conn.Close())
			}
			_, err = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 7\r\n\r\ntoo big")
			return errors.Join(err, conn.Close())
		})
		outlet, ended := b.answered(t.Context(), "http://"+l.Addr().String()+"/up", nil)
		written := b.writing(much)
		var refused *Refused
		if err := b.await(ended); !errors.As(err, &refused) || refused.Status != 413 || !strings.Contains(err.Error(), "too big") {
			t.Errorf("%v", err)
		}
		b.must(outlet.Pipe.Close())
		if err := b.await(written); err == nil {
			t.Error("everything was taken")
		}
		b.must(b.await(served))
		b.must(l.Close())
	}
}

// TestDrainBroken: what the network does is not the task's failure, and never a success.
func TestDrainBroken(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"closed at once":    func(c net.Conn) { _ = c.Close() },
		"closed after some": func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 150); _ = c.Close() },
		"reset":             func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() },
		"speaks another":    func(c net.Conn) { _, _ = io.WriteString(c, "220 mail ready\r\n"); _ = c.Close() },
		"half an answer":    func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 2"); _ = c.Close() },
		"closed at the end": func(c net.Conn) { readToEnd(c); _ = c.Close() },
		"never answers":     func(c net.Conn) { readToEnd(c); _, _ = io.Copy(io.Discard, c); _ = c.Close() },
		"only says to go on ": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			readToEnd(c)
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			l, err := net.Listen("tcp", testport.Address(t)) // where nobody else listens afterwards
			b.must(err)
			served := b.container(func() error {
				conn, err := l.Accept()
				if err == nil {
					serve(conn)
				}
				return err
			})
			patience := timeout
			if name == "never answers" {
				patience = 50 * time.Millisecond
			}
			post, err := NewPost("http://"+l.Addr().String()+"/up", nil, patience)
			b.must(err)
			outlet, ended := b.drain(t.Context(), post)
			b.must(b.write("first", strings.Repeat("x", 10_000)))
			outlet.Pipe.End()
			if err := b.await(ended); err == nil || IsFailure(err) || !strings.Contains(err.Error(), "/up") {
				t.Errorf("%v", err)
			}
			b.must(l.Close())
			if err := b.await(served); err != nil && !errors.Is(err, net.ErrClosed) { // or its patience ended before it came
				t.Error(err)
			}
			post, err = NewPost("http://"+l.Addr().String()+"/up", nil, timeout)
			b.must(err)
			again := setup(t)
			outlet, ended = again.drain(t.Context(), post) // nobody listens any more
			outlet.Pipe.End()
			if err := b.await(ended); err == nil || IsFailure(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// readToEnd reads a whole request with chunks.
func readToEnd(c net.Conn) {
	if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

// TestDrainSeesTheSinkLeave while the container writes nothing.
func TestDrainSeesTheSinkLeave(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.server(func(w http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 5))
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	})
	_, ended := b.post(t.Context(), s.URL, nil)
	f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
	b.must(err)
	defer f.Close()
	_, err = io.WriteString(f, "first")
	b.must(err)
	if err := b.await(ended); err == nil || IsFailure(err) {
		t.Errorf("%v", err)
	}
}

// TestDrainOfASlowSink has a server that reads late what is more than any buffer takes.
func TestDrainOfASlowSink(t *testing.T) {
	t.Parallel()
	b := setup(t)
	goOn := make(chan struct{})
	var got int64
	s := b.server(func(_ http.ResponseWriter, r *http.Request) {
		<-goOn
		got, _ = io.Copy(io.Discard, r.Body)
	})
	outlet, ended := b.post(t.Context(), s.URL, nil)
	written := b.container(func() error { return b.write(string(noise(16 << 20))) })
	close(goOn)
	b.must(b.await(written))
	outlet.Pipe.End()
	b.must(b.await(ended))
	if got != 16<<20 {
		t.Errorf("the server has %d", got)
	}
}

// TestDrainOfASinkThatStopsReading, whose connection stays.
func TestDrainOfASinkThatStopsReading(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	s := b.server(func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	p, err := NewPost(s.URL, nil, 100*time.Millisecond)
	b.must(err)
	outlet, ended := b.drain(t.Context(), p)
	wrote := b.writing(strings.Repeat("more than sockets hold", 4<<20))
	if err := b.await(ended); err == nil || IsFailure(err) || !strings.Contains(err.Error(), "timeout") {
		t.Error(err)
	}
	b.must(outlet.Pipe.Close())
	if err := b.await(wrote); err == nil {
		t.Error("everything was taken")
	}
}

// TestDrainCanceled ends a stream in each of its states.
func TestDrainCanceled(t *testing.T) {
	t.Parallel()
	revoked := errors.New("revoked")
	for _, state := range []string{"nothing written", "container stands still", "sink does not read", "sink does not answer"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			arrived, goOn := make(chan struct{}), make(chan struct{})
			var ends error
			s := b.server(func(_ http.ResponseWriter, r *http.Request) {
				close(arrived)
				if state == "sink does not read" {
					<-goOn
				}
				_, ends = io.Copy(io.Discard, r.Body)
				<-goOn
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			outlet, ended := b.post(ctx, s.URL, nil)
			hold := b.outlet()
			var container *os.File
			written := make(<-chan error)
			if state != "nothing written" {
				var err error
				container, err = os.OpenFile(b.path, os.O_WRONLY, 0)
				b.must(err)
				_, err = io.WriteString(container, "first")
				b.must(err)
				<-arrived
			}
			switch state {
			case "sink does not read":
				written = b.container(func() error {
					_, err := container.Write(make([]byte, 16<<20))
					return err
				})
			case "sink does not answer":
				outlet.Pipe.End()
			}
			cancel(revoked)
			if err := b.await(ended); !errors.Is(err, revoked) {
				t.Errorf("%v", err)
			}
			close(goOn)
			if container != nil {
				b.must(outlet.Pipe.Close())
				b.must(hold.Pipe.Close()) // only now it gets SIGPIPE
				if state == "sink does not read" {
					if err := b.await(written); err == nil {
						t.Error("16 MiB were taken by nobody")
					}
				}
				b.must(container.Close())
			}
			s.Close()
			if state == "container stands still" && ends == nil {
				t.Error("the server took half a stream for all of it")
			}
		})
	}
}

// TestDrainOfAMiscount: what is not everything never becomes a complete request.
func TestDrainOfAMiscount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ends := make(chan error, 1)
	s := b.server(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		ends <- err
	})
	outlet := b.outlet()
	outlet.Complete = func(bytes int64) error { return &Miscounted{Written: 7, Read: bytes} }
	post, err := NewPost(s.URL, nil, timeout)
	b.must(err)
	ended := b.container(func() error { return post.Drain(t.Context(), outlet) })
	b.must(b.write("first"))
	outlet.Pipe.End()
	var miscounted *Miscounted
	if err := b.await(ended); !errors.As(err, &miscounted) || miscounted.Read != 5 || IsFailure(err) {
		t.Errorf("%v", err)
	}
	if err := <-ends; err == nil {
		t.Error("the server took it for complete")
	}
}

// TestDrainOverTLS verifies the server.
func TestDrainOverTLS(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var got string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		all, _ := io.ReadAll(r.Body)
		got = string(all)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is to fail
	s.StartTLS()
	defer s.Close()
	outlet, ended := b.post(t.Context(), s.URL, nil)
	outlet.Pipe.End()
	var certificate *tls.CertificateVerificationError
	if err := b.await(ended); !errors.As(err, &certificate) || !IsFailure(err) {
		t.Errorf("%v", err)
	}
	b.must(outlet.Pipe.Close())
	post, err := NewPost(s.URL, map[string]string{"X-Key": "v"}, timeout)
	b.must(err)
	post.tls = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	post.tls.RootCAs.AddCert(s.Certificate())
	outlet, ended = b.drain(t.Context(), post)
	b.must(b.write("over ", "tls"))
	outlet.Pipe.End()
	b.must(b.await(ended))
	if got != "over tls" {
		t.Errorf("%q", got)
	}
}

func TestNewPostRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "x", "ftp://h/", "http://", "//h/x", "http://h:port/", "http://h/%zz?token=secret"} {
		if _, err := NewPost(url, nil, time.Second); !errors.Is(err, ErrBadURL) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	p, err := NewPost("https://me:secret@h/x?token=secret", nil, time.Second)
	if err != nil || p.Where() != "h/x" || p.header.Get("Authorization") == "" {
		t.Errorf("%v %v", p, err)
	}
}

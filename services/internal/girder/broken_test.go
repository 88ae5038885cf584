package girder

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serveRaw plays a server by hand: conn is called with each connection and its
// number. It closes the connection when it returns.
func serveRaw(t *testing.T, o Options, conn func(c net.Conn, in *bufio.Reader, number int)) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for number := 1; ; number++ {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				conn(c, bufio.NewReader(c), number)
			})
		}
	})
	o.APIURL = "http://" + listener.Addr().String() + "/api/v1"
	if o.Retry == (Retry{}) {
		o.Retry = Retry{Total: 10 * time.Minute, First: time.Millisecond, Max: 2 * time.Millisecond}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.CloseIdle()
		_ = listener.Close()
		all.Wait()
	})
	return c
}

const (
	document = `{"_id":"` + testID + `","name":"a"}`
	whole    = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 45\r\n\r\n" + document
)

func say(c net.Conn, text string) { _, _ = io.WriteString(c, text) } // nobody may be there any more

// readRequest reads one request and its body.
func readRequest(in *bufio.Reader) error {
	r, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

// A read is repeated whatever becomes of its first answer; a write is not, and its
// error says that it may have been done.
func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"none":                       "",
		"cut in the status":          "HTTP/1.1 20",
		"cut in the header":          "HTTP/1.1 200 OK\r\nContent-Le",
		"cut behind the header":      "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n",
		"cut in the body":            "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + document[:20],
		"cut between chunks":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"_id\r\n",
		"cut in a refusal":           "HTTP/1.1 400 Bad Request\r\nContent-Length: 50\r\n\r\n" + `{"type":"rest","message":"Inv`,
		"a corrupted refusal":        "HTTP/1.1 400 Bad Request\r\nContent-Length: 25\r\n\r\n" + `{"type":"rest","mes?age:"`,
		"half a document":            "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + document[:20],
		"half of it, as HTTP/1.0":    "HTTP/1.0 200 OK\r\n\r\n" + document[:20],
		"a proxy's page":             "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 21\r\n\r\n<html>Sign in.</html>",
		"nothing":                    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"another protocol":           "SSH-2.0-server\r\n",
		"a header without an end":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20),
		"a length that is no length": "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + document,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serveRaw(t, Options{}, func(c net.Conn, in *bufio.Reader, number int) {
				for readRequest(in) == nil {
					if number <= 2 {
						say(c, answer)
						return
					}
					say(c, whole)
				}
			})
			_, err := c.CreateJob(t.Context(), NewJob{Title: "t", Type: "t"})
			var broken *Unreachable
			if !errors.As(err, &broken) || !IsTemporary(err) || strings.Contains(err.Error(), "127.0.0.1") && name != "none" {
				t.Errorf("the write: %v", err)
			}
			if f, err := c.GetFile(t.Context(), testID); err != nil || f.Name != "a" {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
}

// Answers that look strange and are right.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"HTTP/1.0 without a length": "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + document,
		"HTTP/1.0 kept alive":       "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 45\r\n\r\n" + document,
		"continue, unasked":         "HTTP/1.1 100 Continue\r\n\r\n" + whole,
		"hints":                     "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + whole,
		"chunks and a trailer":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2d\r\n" + document + "\r\n0\r\nX: y\r\n\r\n",
		"closed behind it":          "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 45\r\n\r\n" + document,
		"a line between":            whole + "\r\n",
		"more than it says":         whole + "HTTP/1.1 500 Oops\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serveRaw(t, Options{}, func(c net.Conn, in *bufio.Reader, _ int) {
				for readRequest(in) == nil {
					say(c, answer)
					if strings.HasPrefix(answer, "HTTP/1.0 200 OK\r\nContent-Type") || strings.Contains(answer, "close") {
						return
					}
				}
			})
			for range 3 {
				if f, err := c.GetFile(t.Context(), testID); err != nil || f.Name != "a" {
					t.Fatalf("%+v, %v", f, err)
				}
			}
		})
	}
}

func TestDownloadWithoutALength(t *testing.T) {
	t.Parallel()
	c := serveRaw(t, Options{}, func(c net.Conn, in *bufio.Reader, _ int) {
		if readRequest(in) == nil {
			say(c, "HTTP/1.0 200 OK\r\n\r\nall that there is")
		}
	})
	d, err := c.DownloadFile(t.Context(), testID, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, err := io.ReadAll(d); string(got) != "that there is" || err != nil || d.Size != -1 {
		t.Errorf("%q of %d, %v", got, d.Size, err)
	}
}

// A server may close a connection at any moment that nobody uses it. What is sent
// just then is sent again where that does no harm.
func TestConnectionsClosedBehindEachAnswer(t *testing.T) {
	t.Parallel()
	c := serveRaw(t, Options{Retry: Retry{Total: 10 * time.Minute, First: time.Millisecond, Max: time.Millisecond}}, func(c net.Conn, in *bufio.Reader, _ int) {
		if readRequest(in) == nil {
			say(c, whole) // and closed, without having said so
		}
	})
	for range 100 {
		if _, err := c.GetFile(t.Context(), testID); err != nil {
			t.Fatal(err)
		}
		if _, err := c.UploadChunk(t.Context(), testID, 0, strings.NewReader("abc"), 3); err != nil && !IsTemporary(err) {
			t.Fatal(err)
		}
	}
}

const wrongOffset = `{"type":"rest","message":"Server has received 0 bytes, but client sent offset 5."}`

func refuseOffset() string {
	return fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s", len(wrongOffset), wrongOffset)
}

// Girder 5 refuses a chunk without reading it and closes the connection, which
// resets it under what is still being sent. Where the answer comes through at all,
// it counts.
func TestEarlyRefusal(t *testing.T) {
	t.Parallel()
	c := serveRaw(t, Options{}, func(c net.Conn, in *bufio.Reader, _ int) {
		if _, err := http.ReadRequest(in); err == nil {
			say(c, refuseOffset())
		}
	})
	const size = 32 << 20
	told := 0
	for range 10 {
		_, err := c.UploadChunk(t.Context(), testID, 5, io.LimitReader(zeros{}, size), size)
		var refusal *Error
		switch {
		case errors.As(err, &refusal) && refusal.Status == 400 && strings.HasPrefix(refusal.Message, "Server has received 0 bytes"):
			told++
		case !IsTemporary(err): // the reset overtook the answer
			t.Fatal(err)
		}
	}
	if told == 0 {
		t.Error("no answer is ever received")
	}
}

// brokenPipe takes the beginning of a request, then no more, and has an answer for
// whoever reads after that.
type brokenPipe struct {
	net.Conn // none: what is not needed here
	takes    int
	answer   io.Reader
	broken   chan struct{}
	once     sync.Once
	closed   chan struct{}
	ended    sync.Once
}

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.takes -= len(p); b.takes < 0 {
		b.once.Do(func() { close(b.broken) })
		return 0, &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ECONNRESET)}
	}
	return len(p), nil
}

func (b *brokenPipe) Read(p []byte) (int, error) {
	select {
	case <-b.broken:
		return b.answer.Read(p)
	case <-b.closed:
		return 0, net.ErrClosed
	}
}

func (b *brokenPipe) Close() error {
	b.ended.Do(func() { close(b.closed) })
	return nil
}

func TestAnswerWinsOverTheBrokenWrite(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	for _, test := range []struct {
		answer string
		takes  int
		told   bool
	}{{refuseOffset(), 1 << 20, true}, {"", 1 << 20, false}} {
		dials := 0
		c, err := New(Options{APIURL: "http://girder/api/v1", HTTPClient: &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				dials++
				return &patientConn{Conn: &brokenPipe{
					takes: test.takes, answer: strings.NewReader(test.answer), broken: make(chan struct{}), closed: make(chan struct{}),
				}}, nil
			},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.UploadChunk(t.Context(), testID, 5, io.LimitReader(zeros{}, size), size)
		var refusal *Error
		if errors.As(err, &refusal) != test.told || !test.told && !IsTemporary(err) || dials != 1 {
			t.Errorf("%+v: %v after %d connections", test, err, dials)
		}
		c.CloseIdle()
	}
}

// Where there is no answer, the broken connection ends the upload, and at once.
func TestResetUpload(t *testing.T) {
	t.Parallel()
	c := serveRaw(t, Options{}, func(c net.Conn, in *bufio.Reader, number int) {
		if _, err := http.ReadRequest(in); err == nil && number%2 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
	})
	const size = 1 << 40
	for range 10 {
		_, err := c.UploadChunk(t.Context(), testID, 0, io.LimitReader(zeros{}, size), size)
		var broken *Unreachable
		if !errors.As(err, &broken) || !IsTemporary(err) {
			t.Fatal(err)
		}
	}
}

func TestSilentServer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := serveRaw(t, Options{Answer: 50 * time.Millisecond, Retry: Retry{Total: -1}}, func(_ net.Conn, in *bufio.Reader, _ int) {
		if readRequest(in) == nil {
			<-release
		}
	})
	defer close(release)
	_, read := c.GetFile(t.Context(), testID)
	_, sent := c.UploadChunk(t.Context(), testID, 0, strings.NewReader("abc"), 3)
	for _, err := range []error{read, sent} {
		if !errors.Is(err, errSilent) || !IsTemporary(err) {
			t.Error(err)
		}
	}
}

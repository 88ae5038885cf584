package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// connect joins a source to a sink.
func connect(input, output contracts.Transform) *contracts.Connect {
	return &contracts.Connect{Input: contracts.Endpoint{Transform: input}, Output: contracts.Endpoint{Transform: output}}
}

// upload joins a source to an upload.
func upload(input contracts.Transform, output contracts.OutputSpec) *contracts.Connect {
	return &contracts.Connect{Input: contracts.Endpoint{Transform: input}, Output: contracts.Endpoint{Output: output}}
}

// posted is a server that takes one request on each connection, sees where its
// chunks end, and answers as it is told.
type posted struct {
	t        *testing.T
	listener net.Listener
	// answer is what follows the body; early, if set, is sent after that many
	// bytes of it, and the connection is closed.
	answer string
	early  int
	// gate, if set, is waited for after each chunk.
	gate    <-chan struct{}
	posts   chan *post
	serving sync.WaitGroup
}

// post is one request.
type post struct {
	line   string
	header textproto.MIMEHeader
	chunks [][]byte
	whole  bool // the last chunk, that of size 0, came
}

func (p *post) body() []byte { return bytes.Join(p.chunks, nil) }

const okay = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func newPosted(t *testing.T) *posted {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &posted{t: t, listener: listener, answer: okay, posts: make(chan *post, 16)}
}

// url begins to serve, and returns the server's address with a path.
func (p *posted) url(path string) string { return p.serve("http", p.listener) + path }

func (p *posted) serve(scheme string, listener net.Listener) string {
	var conns sync.Map
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Store(conn, true)
			p.serving.Go(func() {
				defer conn.Close() //nolint:errcheck // the request is over
				p.take(conn)
			})
		}
	})
	p.t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			p.t.Error(err)
		}
		accepting.Wait() // all connections are known
		conns.Range(func(conn, _ any) bool {
			conn.(net.Conn).Close() //nolint:errcheck // or it was closed before
			return true
		})
		p.serving.Wait()
	})
	return scheme + "://" + listener.Addr().String()
}

// take reads one request. What is not as it should be ends it.
func (p *posted) take(conn net.Conn) {
	r, post := bufio.NewReader(conn), new(post)
	defer func() { p.posts <- post }()
	head := textproto.NewReader(r)
	var err error
	if post.line, err = head.ReadLine(); err != nil {
		return
	}
	if post.header, err = head.ReadMIMEHeader(); err != nil || post.header.Get("Transfer-Encoding") != "chunked" {
		return
	}
	taken := 0
	for !post.whole {
		data, err := readChunk(r)
		if err != nil {
			return
		}
		if post.whole = len(data) == 0; !post.whole {
			post.chunks = append(post.chunks, data)
		}
		taken += len(data)
		if p.early > 0 && taken >= p.early {
			break
		}
		if p.gate != nil {
			<-p.gate
		}
	}
	fmt.Fprint(conn, p.answer) //nolint:errcheck // its sender may be gone
	if !post.whole {
		hangUp(conn)
	}
}

// hangUp ends a connection as servers do that have not read everything: bytes
// that are unread when it is closed break it, and the answer may be lost.
func hangUp(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		io.Copy(io.Discard, tcp) //nolint:errcheck // until the other side hangs up
	}
}

// readChunk reads one chunk: its size in hexadecimal digits, its data.
func readChunk(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	size, err := strconv.ParseInt(strings.TrimSuffix(line, "\r\n"), 16, 32)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size+2)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	if string(data[size:]) != "\r\n" {
		return nil, fmt.Errorf("a chunk ends with %q", data[size:])
	}
	return data[:size], nil
}

// await returns the next request that is over, which has to be whole.
func (p *posted) await(s *stage) *post {
	p.t.Helper()
	post := p.next(s)
	if !post.whole {
		p.t.Fatalf("the request is not whole: %s %v, %d chunks", post.line, post.header, len(post.chunks))
	}
	return post
}

func (p *posted) next(s *stage) *post {
	p.t.Helper()
	select {
	case post := <-p.posts:
		return post
	case <-s.Context().Done():
		p.t.Fatal("nothing was posted")
		return nil
	}
}

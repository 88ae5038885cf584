package service_test

import (
	"bufio"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// wire stands between a tracker and the NATS server and looks at every message
// that the tracker sends before it is passed on.
type wire struct {
	target  string
	sending func(subject string) // may end the tracker
	server  net.Listener
	running sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	ended bool
}

// newWire listens for a tracker on its way to the server.
func newWire(t *testing.T, server string, sending func(subject string)) *wire {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{target: u.Host, sending: sending}
	if w.server, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.running.Go(w.accept)
	t.Cleanup(func() {
		w.cut()
		w.running.Wait()
	})
	return w
}

func (w *wire) url() string { return "nats://" + w.server.Addr().String() }

// cut ends all connections and takes no more.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	_ = w.server.Close()
	for _, conn := range w.conns {
		_ = conn.Close()
	}
}

func (w *wire) accept() {
	for {
		near, err := w.server.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.target)
		if err != nil || !w.keep(near, far) {
			_ = near.Close()
			continue
		}
		w.running.Go(func() {
			_, _ = io.Copy(near, far)
			_ = near.Close()
		})
		w.running.Go(func() {
			_ = w.pass(bufio.NewReader(near), far)
			_ = far.Close()
		})
	}
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, conns...)
	if w.ended {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	return !w.ended
}

// pass copies what a client of NATS says, one command at a time.
func (w *wire) pass(from *bufio.Reader, to io.Writer) error {
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		var payload []byte
		if len(words) > 2 && (words[0] == "PUB" || words[0] == "HPUB") {
			size, err := strconv.Atoi(words[len(words)-1])
			if err != nil {
				return err
			}
			payload = make([]byte, size+len("\r\n"))
			if _, err := io.ReadFull(from, payload); err != nil {
				return err
			}
			w.sending(words[1])
		}
		if _, err := to.Write(append([]byte(line), payload...)); err != nil {
			return err
		}
	}
}

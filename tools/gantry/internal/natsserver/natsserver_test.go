package natsserver_test

import (
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/tools/gantry/internal/natsserver"
)

const token = "open sesame"

// patience is how long the server may take to answer on a slow machine.
const patience = 5 * time.Minute

func start(t *testing.T, dir string, port int) *natsserver.Server {
	t.Helper()
	server, err := natsserver.Start(natsserver.Options{Dir: dir, Port: port, Token: token, Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func connect(t *testing.T, server *natsserver.Server) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(server.URL(), nats.Token(token), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func portOf(t *testing.T, server *natsserver.Server) (host string, port int) {
	t.Helper()
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	return u.Hostname(), port
}

func TestServerWantsTheToken(t *testing.T) {
	t.Parallel()
	server := start(t, t.TempDir(), 0)
	defer server.Stop()
	connect(t, server)
	for _, options := range [][]nats.Option{nil, {nats.Token("other")}} {
		if conn, err := nats.Connect(server.URL(), append(options, nats.Timeout(patience))...); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("connect with %d options: got %v", len(options), err)
			conn.Close()
		}
	}
}

func TestServerListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	server := start(t, t.TempDir(), 0)
	defer server.Stop()
	host, port := portOf(t, server)
	if host != "127.0.0.1" {
		t.Errorf("server is at %s", server.URL())
	}
	// The same port is free on another address of this machine.
	other, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(port)))
	if err != nil {
		t.Errorf("the server holds its port on every address: %v", err)
		return
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

func TestServerKeepsItsData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nats")
	server := start(t, dir, 0)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the folder: %v, %v", info.Mode(), err)
	}
	js, err := jetstream.New(connect(t, server), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KEPT", Subjects: []string{"kept"}, MaxBytes: 64 << 30}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "kept", []byte("still here")); err != nil {
		t.Fatal(err)
	}
	server.Stop()

	server = start(t, dir, 0)
	defer server.Stop()
	js, err = jetstream.New(connect(t, server), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KEPT")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(t.Context(), 1)
	if err != nil || string(msg.Data) != "still here" {
		t.Errorf("after a restart: %v, %v", msg, err)
	}
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	first := start(t, t.TempDir(), 0)
	defer first.Stop()
	_, port := portOf(t, first)
	second, err := natsserver.Start(natsserver.Options{Dir: t.TempDir(), Port: port, Token: token, Log: zerolog.Nop()})
	if !errors.Is(err, natsserver.ErrPortTaken) {
		t.Errorf("got %v", err)
	}
	if err == nil {
		second.Stop()
	}
}

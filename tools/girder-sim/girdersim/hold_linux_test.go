package girdersim

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// unshared listens like somebody who lets nobody have the same port.
var unshared = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var refused error
	err := c.Control(func(fd uintptr) {
		refused = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
	})
	return errors.Join(err, refused)
}}

// TestPortsAreKept: while the server is down nobody is given its ports, and after
// its end anybody is.
func TestPortsAreKept(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", ":0"} {
		sim, err := Start(Options{Addr: addr, ObjectStore: &ObjectStore{Addr: "localhost:0"}})
		if err != nil {
			t.Fatal(err)
		}
		ports := []string{"127.0.0.1:" + portOf(t, sim.URL()), "127.0.0.1:" + portOf(t, sim.ObjectStoreURL())}
		sim.Down()
		for _, port := range ports {
			if other, err := unshared.Listen(t.Context(), "tcp", port); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s is free while the server is down: %v, %v", port, other, err)
			}
			if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", port); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s while the server is down: %v, %v", port, conn, err)
			}
		}
		if err := sim.Up(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get("http://" + ports[0] + apiRoot + "/system/version")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if second, err := Start(Options{Addr: ports[0]}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second server on %s: %v, %v", ports[0], second, err)
		}
		if err := sim.Close(); err != nil {
			t.Fatal(err)
		}
		if err := sim.Up(); err == nil {
			t.Error("up after the end")
		}
	}
}

func TestAnAddressThatCannotBeHad(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{Addr: "nowhere"}, {Addr: "127.0.0.1:port"}, {Addr: "192.0.2.1:0"}, {Addr: "[2001:db8::1]:0"},
		{ObjectStore: &ObjectStore{Addr: "192.0.2.1:0"}},
	} {
		sim, err := Start(o)
		if err == nil {
			t.Errorf("%+v: listens at %s", o, sim.URL())
			continue
		}
		if !strings.Contains(err.Error(), "listen on ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func portOf(t *testing.T, url string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(url[strings.LastIndex(url, "/")+1:])
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Package testport gives tests ports for servers that are stopped and started
// again, or whose address others must know before they listen.
package testport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// The ports lie below those that Linux gives to outgoing connections and to
// listeners that ask for any port (32768 and up): nobody gets one by chance.
const (
	first = 15000
	last  = 30000
)

// Reserve returns a port of 127.0.0.1 that nobody listens on. It is the test's
// until its end, also while no server of the test listens there: no other test
// is given it, in whatever process it runs.
func Reserve(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := first + rand.IntN(last-first)
		if reserve(t, port) {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// Address is a reserved port's host:port.
func Address(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Reserve(t))
}

// reserve holds the same port of another loopback address: whoever reserves it
// too finds that taken, and the kernel lets go of it whatever way a test ends.
func reserve(t testing.TB, port int) bool {
	t.Helper()
	reservation, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		return false
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		_ = reservation.Close()
		return false
	}
	_ = listener.Close()
	t.Cleanup(func() { _ = reservation.Close() })
	return true
}

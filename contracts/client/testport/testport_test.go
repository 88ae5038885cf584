package testport_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/gantry-worker/gantry/contracts/client/testport"
)

// TestReserve: a reserved port is free to listen on, again and again, and
// nobody else is given it.
func TestReserve(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 500 {
		port := testport.Reserve(t)
		if seen[port] {
			t.Fatalf("port %d was given out twice", port)
		}
		seen[port] = true
		for range 2 {
			listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			if err := listener.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestReservedUntilTheEnd: what a test reserved is free when it has ended.
func TestReservedUntilTheEnd(t *testing.T) {
	t.Parallel()
	// Several: another test, in whatever process, may reserve one of them next.
	ports := make([]int, 20)
	holds := func(port int) error {
		other, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.2:%d", port))
		if err == nil {
			_ = other.Close()
		}
		return err
	}
	t.Run("reserves", func(t *testing.T) {
		for i := range ports {
			if ports[i] = testport.Reserve(t); holds(ports[i]) == nil {
				t.Errorf("port %d is not held", ports[i])
			}
		}
	})
	var held error
	for _, port := range ports {
		if held = holds(port); held == nil {
			return
		}
	}
	t.Errorf("all ports are held after the test: %v", held)
}

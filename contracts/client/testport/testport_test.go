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
	var port int
	t.Run("reserves", func(t *testing.T) {
		port = testport.Reserve(t)
		if other, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.2:%d", port)); err == nil {
			_ = other.Close()
			t.Errorf("port %d is not held", port)
		}
	})
	other, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Fatalf("port %d is held after the test: %v", port, err)
	}
	_ = other.Close()
}

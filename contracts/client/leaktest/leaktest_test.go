package leaktest

import (
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// TestLeft: a goroutine that ends late is waited for, one that stays is named.
func TestLeft(t *testing.T) {
	end, ended := make(chan struct{}), make(chan struct{})
	go stays(end, ended)
	err := left(time.Nanosecond)
	if err == nil || !strings.Contains(err.Error(), "stays") {
		t.Errorf("got %v, want the goroutine that stays", err)
	}
	close(end)
	<-ended
	if err := left(patience); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

func stays(end <-chan struct{}, ended chan<- struct{}) {
	<-end
	close(ended)
}

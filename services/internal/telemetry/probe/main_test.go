package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAsk(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	if err := ask(t.Context(), server.URL+"/healthz"); err != nil {
		t.Error("a server that is well:", err)
	}
	if err := ask(t.Context(), server.URL+"/sick"); err == nil {
		t.Error("503 was no error")
	}
	server.Close()
	if err := ask(t.Context(), server.URL+"/healthz"); err == nil {
		t.Error("a server that is gone was no error")
	}
}

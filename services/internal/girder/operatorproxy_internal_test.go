package girder

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// TestWhoseProxyRefuses: only a task's own proxy is a fault of its session. The
// operator's, of the environment, is named as what it is, and is an outage.
func TestWhoseProxyRefuses(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusForbidden, http.StatusProxyAuthRequired} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(server.Close)
		proxy, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		fixed := func(*http.Request) (*url.URL, error) { return proxy, nil }
		own, err := readProxies(map[string]contracts.Secret{"all": contracts.Secret(server.URL)})
		if err != nil {
			t.Fatal(err)
		}
		addresses := []string{"https://girder.invalid/api/v1"} // by CONNECT
		if status == http.StatusProxyAuthRequired {
			addresses = append(addresses, "http://girder.invalid/api/v1") // any other answer is Girder's
		}
		for _, address := range addresses {
			ask := func(p usedProxies) error {
				httpClient := newHTTPClient(nil, p)
				t.Cleanup(httpClient.CloseIdleConnections)
				c, err := New(Options{APIURL: address, HTTPClient: httpClient, Retry: Retry{Total: -1}})
				if err != nil {
					t.Fatal(err)
				}
				_, err = c.GetFile(t.Context(), "f")
				return err
			}
			var fault *SessionError
			var refused *ProxyError
			err := ask(taskProxies(own))
			if !errors.As(err, &fault) || fault.Field != "proxies" || IsTemporary(err) || !strings.Contains(err.Error(), proxy.Host) {
				t.Errorf("a task's proxy, %d, %s: %v", status, address, err)
			}
			err = ask(usedProxies{of: fixed})
			if !errors.As(err, &refused) || errors.As(err, &fault) || !IsTemporary(err) {
				t.Errorf("the operator's proxy, %d, %s: %v", status, address, err)
			}
			for _, want := range []string{proxy.Host, "HTTPS_PROXY"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		}
	}
	// A session that says no more than which hosts to ask directly leaves the
	// others to the environment.
	if bypass, err := readProxies(map[string]contracts.Secret{"no_proxy": "x"}); err != nil || taskProxies(bypass).ofTask {
		t.Errorf("no_proxy alone is taken for a task's proxy, %v", err)
	}
}

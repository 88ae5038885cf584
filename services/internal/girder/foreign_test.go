package girder

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestWhatAProxySaysIsForeign(t *testing.T) {
	t.Parallel()
	page, own := "<html><h1>no</h1></html>", `{"type":"access","message":"no"}`
	for _, answer := range []struct {
		status  int
		body    string
		foreign bool
	}{
		{401, page, true}, {403, page, true}, {404, page, true}, {405, "", true}, {502, page, true},
		{400, page, false}, {411, page, false}, {413, "too large", false}, {401, own, false}, {403, own, false},
		{301, page, false}, {302, page, true}, {308, page, false}, {416, page, false},
	} {
		tries := 0
		c, _ := serve(t, Options{Retry: Retry{Total: -1}}, func(w http.ResponseWriter, _ *http.Request) {
			if tries++; tries == 1 {
				w.WriteHeader(answer.status)
				_, _ = io.WriteString(w, answer.body)
				return
			}
			_, _ = io.WriteString(w, `{"_id":"`+testID+`","status":2}`)
		})
		patient := Retry{Total: 10 * time.Minute, First: time.Millisecond, Max: time.Millisecond, Foreign: true}
		err := patient.Do(t.Context(), nil, func() (bool, error) {
			_, err := c.GetJob(t.Context(), testID)
			if err != nil && IsForeign(err) != answer.foreign {
				t.Errorf("%d %q: foreign is %t", answer.status, answer.body, !answer.foreign)
			}
			return false, err
		})
		if (err == nil) != answer.foreign {
			t.Errorf("%d %q: %v after %d tries", answer.status, answer.body, err, tries)
		}
	}
}

// TestWhatAnObjectStoreSaysIsNotForeign, wherever Girder redirects to. A proxy that
// redirects to TLS, or to itself, is no store.
func TestWhatAnObjectStoreSaysIsNotForeign(t *testing.T) {
	t.Parallel()
	refuse := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
	store := httptest.NewServer(http.HandlerFunc(refuse))
	t.Cleanup(store.Close)
	for name, test := range map[string]struct {
		to      func(*http.Request) string
		foreign bool
	}{
		"another host": {func(*http.Request) string { return store.URL + "/bytes" }, false},
		"same host":    {func(*http.Request) string { return "/bytes" }, false},
		"same path":    {func(r *http.Request) string { return r.URL.Path + "?again=1" }, true},
	} {
		c, _ := serve(t, Options{Retry: Retry{Total: -1}}, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/download") && r.URL.RawQuery == "" {
				http.Redirect(w, r, test.to(r), http.StatusSeeOther)
				return
			}
			refuse(w, r)
		})
		_, err := c.DownloadFile(t.Context(), testID, 0)
		var refusal *Error
		if !errors.As(err, &refusal) || IsForeign(err) != test.foreign || IsOutage(err) != test.foreign {
			t.Errorf("%s: foreign is not %t: %v", name, test.foreign, err)
		}
	}
}

package girder

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestRedactURLs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`Get "https://h/x?token=hush": dial tcp: refused`:             `Get "https://h/x?***": dial tcp: refused`,
		`Get https://h/x?a=1&sig=hush: EOF`:                           `Get https://h/x?*** EOF`,
		`Put "http://u:hush@h:80/x": EOF`:                             `Put "http://***@h:80/x": EOF`,
		`see http://hush@h/x, then http://h/y`:                        `see http://***@h/x, then http://h/y`,
		`parse "http://u:hu/sh@h": invalid port ":hu" after host`:     `parse "http://***@h": invalid port after host`,
		`invalid proxy address "u:h%ush@h": invalid URL escape "%us"`: `invalid proxy address "***@h": invalid URL escape`,
		`invalid proxy address "socks5://u:hu s\"h@h:1": bad`:         `invalid proxy address "socks5://***@h:1": bad`,
		`The requested URL /b/o?X-Amz-Signature=hush&n=1 is not here`: `The requested URL /b/o?X-Amz-Signature=***&n=1 is not here`,
		`api_key=hush; Password=hush, plain`:                          `api_key=***; Password=*** plain`,
		// Nothing secret.
		`Invalid file id (5f0c).`:                   `Invalid file id (5f0c).`,
		`No matching route for "GET file/5f0c"`:     `No matching route for "GET file/5f0c"`,
		`mail admin@h: is "a:b" the name? n=1`:      `mail admin@h: is "a:b" the name? n=1`,
		`invalid character '<' looking for a value`: `invalid character '<' looking for a value`,
		``: ``,
	} {
		if got := redactURLs(text); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// TestErrorsShowNoURL that authorizes whoever has it, whoever made their text.
func TestErrorsShowNoURL(t *testing.T) {
	t.Parallel()
	broken := errors.New("the way is broken")
	for name, test := range map[string]struct {
		proxy  func(*http.Request) (*url.URL, error)
		answer http.HandlerFunc
		want   string
		is     error
	}{
		"a redirect to no URL": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://store:no-port/b/o?X-Amz-Signature=hush")
			w.WriteHeader(http.StatusSeeOther)
		}, want: "Location"},
		"a redirect to nobody": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "foo://u:hush@store/b/o?sig=hush", http.StatusSeeOther)
		}, want: "foo"},
		"a page": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<p>there is no /x?token=hush, and of hush-hush-hush nothing is known")
		}, want: "there is no /x?token=*** and of *** nothing is known"},
		"no page at all": {answer: func(w http.ResponseWriter, _ *http.Request) {
			conn, buffer, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = buffer.WriteString("HTTP/1.1 hush-hush-hush http://u:hush@h/?token=hush\r\n\r\n")
			_ = buffer.Flush()
		}, want: "malformed HTTP"},
		"an operator's proxy": {proxy: func(*http.Request) (*url.URL, error) {
			return nil, errors.Join(broken, &url.Error{Op: "parse", URL: "http://u:hu sh%hush@proxy", Err: errors.New("net/url: invalid userinfo")})
		}, want: broken.Error(), is: broken},
	} {
		o := Options{Token: "hush-hush-hush", Retry: Retry{Total: -1}}
		if test.proxy != nil {
			o.HTTPClient = newHTTPClient(nil, usedProxies{of: test.proxy})
		}
		c, _ := serve(t, o, func(w http.ResponseWriter, r *http.Request) { test.answer(w, r) })
		_, err := c.DownloadFile(t.Context(), testID, 0)
		if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.is) && test.is != nil {
			t.Errorf("%s: %v", name, err)
		}
		if temporary := name != "a page"; IsTemporary(err) != temporary {
			t.Errorf("%s: temporary is not %t: %v", name, temporary, err)
		}
	}
	server := httptest.NewServer(nil)
	server.Close()
	for _, api := range []string{"ftp://h/api/v1?token=hush", "http://hush@h/api/v1?token=hush", server.URL + "/?token=hush"} {
		c, err := New(Options{APIURL: api, Retry: Retry{Total: -1}})
		if err == nil {
			_, err = c.GetFile(t.Context(), testID)
		}
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", api, err)
		}
	}
}

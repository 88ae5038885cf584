package stream

import (
	"bufio"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
)

// TestNoMessageRepeatsASecret, however a server puts it, nor all that a server sends.
func TestNoMessageRepeatsASecret(t *testing.T) {
	t.Parallel()
	b := setup(t)
	said := make(chan string, 1)
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	b.must(err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for c, err := raw.Accept(); err == nil; c, err = raw.Accept() {
			request := bufio.NewReader(c)
			line, _ := request.ReadString('\n')
			answer := <-said
			_, _ = io.WriteString(c, strings.ReplaceAll(answer, "ECHO", strings.TrimSpace(line)))
			_, _ = io.Copy(io.Discard, request)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = raw.Close()
		<-served
	})
	const refused = "HTTP/1.1 403 No\r\nConnection: close\r\n\r\n"
	for _, test := range []struct {
		says    string
		failure bool
	}{
		{"ECHO\r\n\r\n", false},
		{strings.Repeat("x", 1<<20) + "\r\n\r\n", false},
		{refused + "what is hush hush?", true},
		{refused + "what is to-be-hidden?", true},
		{refused + "what is " + base64.StdEncoding.EncodeToString([]byte("me:password")) + "?", true},
	} {
		said <- test.says
		url := "http://me:password@" + raw.Addr().String() + "/up?sig=hush%20hush&x=1"
		outlet, ended := b.post(t.Context(), url, map[string]string{"X-Key": "Bearer to-be-hidden"})
		b.must(b.write("x"))
		err := b.await(ended)
		b.must(outlet.Pipe.Close())
		if err == nil || IsFailure(err) != test.failure || len(err.Error()) > 400 {
			t.Fatalf("failure %v: %v", IsFailure(err), err)
		}
		for _, secret := range []string{"hush", "hidden", "bWU6", "password"} {
			if strings.Contains(err.Error(), secret) {
				t.Error(err)
			}
		}
	}
}

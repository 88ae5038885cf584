package girder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// network answers requests without one, so that time can be the test's.
type network func(*http.Request) (*http.Response, error)

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && r.Body == nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
	return n(r)
}

func (n network) client(t *testing.T, o Options, server string) *Client {
	t.Helper()
	o.HTTPClient = &http.Client{Transport: n}
	o.APIURL = server + "/api/v1"
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answerTo(r *http.Request, status int, body io.Reader) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Request: r, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(body),
	}
}

// swallow is the part of a transport that sends a body.
func swallow(r *http.Request) error {
	if r.Body == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, r.Body)
	return errors.Join(err, r.Body.Close())
}

// open counts the downloads under way, and how many there were at most.
type open struct {
	mu       sync.Mutex
	now, top int
}

func (o *open) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now += n
	o.top = max(o.top, o.now)
}

func fetch(ctx context.Context, c *Client) (string, error) {
	d, err := c.DownloadFile(ctx, testID, 0)
	if err != nil {
		return "", err
	}
	defer d.Close()
	body, err := io.ReadAll(d)
	return string(body), err
}

func TestPlacesOfAHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const bytes, hour = 5, time.Hour
		var counted open
		net := network(func(r *http.Request) (*http.Response, error) {
			if !strings.HasSuffix(r.URL.Path, "/download") {
				return answerTo(r, 200, strings.NewReader(`{"_id":"`+testID+`"}`)), nil
			}
			counted.add(1)
			reader, writer := io.Pipe()
			go func() {
				time.Sleep(hour) // much longer than any patience
				_, _ = io.WriteString(writer, "bytes")
				counted.add(-1)
				_ = writer.Close()
			}()
			return answerTo(r, 200, reader), nil
		})
		traffic := NewTraffic(TrafficLimits{PerHost: 2})
		o := Options{Traffic: traffic, Idle: 2 * hour, Retry: Retry{Total: -1}}
		c := net.client(t, o, "http://girder")
		began := time.Now()
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				if body, err := fetch(t.Context(), c); body != "bytes" || err != nil {
					t.Errorf("%q, %v", body, err)
				}
			})
		}
		synctest.Wait()
		if _, err := c.GetFile(t.Context(), testID); err != nil || !time.Now().Equal(began) {
			t.Errorf("a document waits for places: %v after %s", err, time.Since(began))
		}
		o.Traffic = traffic.ForStreams()
		for _, other := range []*Client{net.client(t, o, "http://girder"), net.client(t, Options{Traffic: traffic, Idle: 2 * hour}, "http://other")} {
			if body, err := fetch(t.Context(), other); body != "bytes" || err != nil {
				t.Errorf("%q, %v", body, err)
			}
		}
		all.Wait()
		if took := time.Since(began); took != 3*hour {
			t.Errorf("six downloads at two places took %s", took)
		}
		if counted.top != 3 { // two, and the one that is a stream or of another host
			t.Errorf("%d downloads at a time", counted.top)
		}
		if n := len(traffic.shared.hosts); n != 0 {
			t.Errorf("%d hosts are remembered for nothing", n)
		}
	})
}

// A place is free again however the request ended.
func TestPlacesAreGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		answers := []func(*http.Request) (*http.Response, error){
			func(r *http.Request) (*http.Response, error) { return answerTo(r, 502, strings.NewReader("no")), nil },
			func(*http.Request) (*http.Response, error) { return nil, broken },
			func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			},
			func(r *http.Request) (*http.Response, error) {
				return answerTo(r, 200, io.MultiReader(strings.NewReader("x"), failing{broken})), nil
			},
		}
		at := 0
		net := network(func(r *http.Request) (*http.Response, error) {
			if err := swallow(r); err != nil {
				return nil, err
			}
			at++
			return answers[(at-1)%len(answers)](r)
		})
		traffic := NewTraffic(TrafficLimits{PerHost: 1})
		c := net.client(t, Options{Traffic: traffic, Retry: Retry{Total: -1}}, "http://girder")
		for range answers {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := fetch(ctx, c); err == nil {
				t.Error("fetched")
			}
			cancel()
		}
		for range answers {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := c.UploadChunk(ctx, testID, 0, strings.NewReader("abc"), 3); err == nil {
				t.Error("sent")
			}
			cancel()
		}
		// One that is ended while it waits takes none.
		held, err := traffic.enter(t.Context(), "girder:80", true)
		if err != nil {
			t.Fatal(err)
		}
		why := errors.New("revoked")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		if _, err := fetch(ctx, c); !errors.Is(err, why) || IsTemporary(err) {
			t.Error(err)
		}
		held()
		held() // twice is once
		if n := len(traffic.shared.hosts); n != 0 {
			t.Errorf("%d hosts are in use", n)
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestWaitingForAPlaceIsNotPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		net := network(func(r *http.Request) (*http.Response, error) {
			if tries++; tries == 1 {
				return answerTo(r, 502, strings.NewReader("restarting")), nil
			}
			return answerTo(r, 200, strings.NewReader("bytes")), nil
		})
		traffic := NewTraffic(TrafficLimits{PerHost: 1})
		c := net.client(t, Options{Traffic: traffic, Retry: Retry{Total: time.Minute}}, "http://girder")
		leave, err := traffic.enter(t.Context(), "girder:80", true)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, leave)
		if body, err := fetch(t.Context(), c); body != "bytes" || err != nil {
			t.Errorf("%q, %v after %d tries", body, err, tries)
		}
	})
}

// turns is what a caller gives away while it waits.
type turns struct {
	log   []string
	taken time.Duration
	err   error
}

func (t *turns) Give(wait time.Duration) { t.log = append(t.log, "give") }
func (t *turns) Take(context.Context) error {
	t.log = append(t.log, "take")
	time.Sleep(t.taken)
	return t.err
}

func TestTurnsWhileRetryWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := &Unreachable{Err: errors.New("down")}
		given := &turns{taken: time.Hour}
		retry := Retry{Total: time.Minute, First: time.Second, Max: time.Second, Turns: given}
		tries := 0
		err := retry.Do(t.Context(), nil, func() (bool, error) {
			if tries++; tries < 3 {
				return false, down
			}
			return false, nil
		})
		if got := fmt.Sprint(given.log); err != nil || got != "[give take give take]" {
			t.Errorf("%v, %s", err, got)
		}
		given.err = errors.New("no turn")
		if err := retry.Do(t.Context(), nil, func() (bool, error) { return false, down }); !errors.Is(err, given.err) {
			t.Error(err)
		}
	})
}

func TestRetryAfterPausesTheHost(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status      int
		after       string
		least, most time.Duration
	}{
		"too many requests":    {429, "30", 30 * time.Second, 31 * time.Second},
		"unavailable":          {503, "30", 30 * time.Second, 31 * time.Second},
		"too long":             {503, "7200", time.Minute, time.Minute + time.Second},
		"no time":              {503, "", 0, 0},
		"another server error": {500, "30", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first := true
				net := network(func(r *http.Request) (*http.Response, error) {
					if !first {
						return answerTo(r, 200, strings.NewReader(`{"_id":"`+testID+`"}`)), nil
					}
					first = false
					refusal := answerTo(r, test.status, strings.NewReader(""))
					refusal.Header.Set("Retry-After", test.after)
					return refusal, nil
				})
				traffic := NewTraffic(TrafficLimits{PerHost: 2})
				o := Options{Traffic: traffic, Retry: Retry{Total: -1}}
				c, other := net.client(t, o, "http://girder"), net.client(t, o, "http://other")
				if _, err := c.GetFile(t.Context(), testID); err == nil {
					t.Fatal("not refused")
				}
				began := time.Now()
				if _, err := other.GetFile(t.Context(), testID); err != nil || !time.Now().Equal(began) {
					t.Errorf("the other host: %v after %s", err, time.Since(began))
				}
				for range 2 { // the second one finds the pause over
					if _, err := c.GetFile(t.Context(), testID); err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(began); took < test.least || took > test.most {
					t.Errorf("the host was asked after %s", took)
				}
				if n := len(traffic.shared.hosts); n != 0 {
					t.Errorf("%d hosts are remembered for nothing", n)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				first = true
				_, _ = c.GetFile(t.Context(), testID)
				if _, err := c.GetFile(ctx, testID); (err == nil) != (test.most == 0) || IsTemporary(err) {
					t.Errorf("ended in the pause: %v", err)
				}
			})
		})
	}
}

// What a task's own proxy says of a host is no word of the host.
func TestAProxyPausesItsOwnUsers(t *testing.T) {
	t.Parallel()
	well := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"_id":"`+testID+`"}`)
	}))
	defer well.Close()
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer busy.Close()
	clients, traffic := NewClients(ClientLimits{}), NewTraffic(TrafficLimits{PerHost: 1})
	defer clients.Close()
	ask := func(session *contracts.GirderSession) error {
		client, done, err := clients.For(session)
		if err != nil {
			return err
		}
		defer done()
		c, err := New(Options{APIURL: well.URL + "/api/v1", HTTPClient: client, Traffic: traffic, Retry: Retry{Total: -1}})
		if err != nil {
			return err
		}
		_, err = c.GetFile(t.Context(), testID)
		return err
	}
	proxied := &contracts.GirderSession{Proxies: map[string]contracts.Secret{"http": contracts.Secret(busy.URL)}}
	if err := ask(proxied); !errors.Is(err, ErrRateLimited) {
		t.Fatal(err)
	}
	direct := &contracts.GirderSession{Proxies: map[string]contracts.Secret{"http": ""}}
	if err := ask(direct); err != nil {
		t.Error(err)
	}
	by := " by " + strings.TrimPrefix(busy.URL, "http://")
	for host := range traffic.shared.hosts { // of the paused alone
		if !strings.HasSuffix(host, by) {
			t.Errorf("%s is paused", host)
		}
	}
}

// A host to which only redirects lead is not remembered for ever.
func TestHostsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		traffic := NewTraffic(TrafficLimits{PerHost: 1})
		for n := range 100 {
			traffic.refused(fmt.Sprint("store", n), &Error{Status: 503, RetryAfter: time.Second})
			time.Sleep(longestPause)
		}
		if n := len(traffic.shared.hosts); n != 1 {
			t.Errorf("%d hosts are remembered", n)
		}
	})
}

// Both directions and what goes elsewhere share one rate, and our own slowness is
// not the network's.
func TestBytesPerSecond(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{200, 1000, 1 << 20, 1 << 40} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				size := 20 * min(limit, 1<<20)
				net := network(func(r *http.Request) (*http.Response, error) {
					if err := swallow(r); err != nil {
						return nil, err
					}
					if r.Method == http.MethodPost {
						return answerTo(r, 200, strings.NewReader(fmt.Sprintf(`{"_id":%q,"received":%d}`, testID, size))), nil
					}
					return answerTo(r, 200, io.LimitReader(zeros{}, size)), nil
				})
				traffic := NewTraffic(TrafficLimits{BytesPerSecond: limit})
				c := net.client(t, Options{Traffic: traffic.ForStreams(), Idle: time.Millisecond, Answer: time.Millisecond}, "http://girder")
				began := time.Now()
				var all sync.WaitGroup
				all.Go(func() {
					if body, err := fetch(t.Context(), c); int64(len(body)) != size || err != nil {
						t.Errorf("%d bytes, %v", len(body), err)
					}
				})
				all.Go(func() {
					if _, err := c.UploadChunk(t.Context(), testID, 0, io.LimitReader(zeros{}, size), size); err != nil {
						t.Error(err)
					}
				})
				all.Go(func() {
					n, err := io.Copy(io.Discard, traffic.Reader(t.Context(), io.LimitReader(zeros{}, size)))
					if n != size || err != nil {
						t.Errorf("%d bytes, %v", n, err)
					}
				})
				all.Wait()
				want := time.Duration(float64(3*size) / float64(limit) * float64(time.Second))
				if took := time.Since(began); took > want || took < want-want/10-3*time.Second {
					t.Errorf("%d bytes at %d a second took %s", 3*size, limit, took)
				}
			})
		})
	}
}

func TestBytesPerSecondEndsWithTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		net := network(func(r *http.Request) (*http.Response, error) {
			return answerTo(r, 200, io.LimitReader(zeros{}, 1<<20)), nil
		})
		traffic := NewTraffic(TrafficLimits{BytesPerSecond: 1000})
		c := net.client(t, Options{Traffic: traffic}, "http://girder")
		why := errors.New("revoked")
		for range 2 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, why)
			if _, err := fetch(ctx, c); !errors.Is(err, why) {
				t.Error(err)
			}
			if _, err := io.ReadAll(traffic.Reader(ctx, zeros{})); !errors.Is(err, why) {
				t.Error(err)
			}
			cancel()
		}
	})
}

func TestNoTraffic(t *testing.T) {
	t.Parallel()
	var none *Traffic
	if none.ForStreams() != nil {
		t.Error("bounds of nothing")
	}
	from := strings.NewReader("abc")
	for _, traffic := range []*Traffic{none, NewTraffic(TrafficLimits{}), NewTraffic(TrafficLimits{PerHost: 3})} {
		if traffic.Reader(t.Context(), from) != io.Reader(from) {
			t.Error("a reader that is not bounded is not what was given")
		}
	}
}

// An object store that has too much to do keeps nobody from Girder.
func TestPauseOfTheHostThatIsRedirectedTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var asked []string
		net := network(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, fmt.Sprint(r.URL.Host, " ", time.Since(began).Truncate(2*time.Second)))
			if r.URL.Host == "girder" {
				redirect := answerTo(r, http.StatusSeeOther, strings.NewReader(""))
				redirect.Header.Set("Location", "http://store/object")
				return redirect, nil
			}
			if len(asked) == 2 {
				refusal := answerTo(r, 503, strings.NewReader("slow down"))
				refusal.Header.Set("Retry-After", "30")
				return refusal, nil
			}
			return answerTo(r, 200, strings.NewReader("bytes")), nil
		})
		traffic := NewTraffic(TrafficLimits{PerHost: 1})
		c := net.client(t, Options{Traffic: traffic, Retry: Retry{Total: -1}, Answer: time.Second}, "http://girder")
		if _, err := fetch(t.Context(), c); !errors.Is(err, ErrServer) {
			t.Fatal(err)
		}
		if body, err := fetch(t.Context(), c); body != "bytes" || err != nil {
			t.Errorf("%q, %v", body, err) // also where the wait is taken for the server's silence
		}
		want := "[girder 0s store 0s girder 0s store 30s]"
		if got := fmt.Sprint(asked); got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
		if n := len(traffic.shared.hosts); n != 0 {
			t.Errorf("%d hosts are remembered for nothing", n)
		}
	})
}

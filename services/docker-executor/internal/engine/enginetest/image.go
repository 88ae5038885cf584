package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// script is what the test image runs.
//
//go:embed script.sh
var script []byte

// applets are the programs of busybox that the script and the tests use.
var applets = []string{
	"awk", "cat", "chmod", "dd", "head", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "printf", "rm", "sh", "sleep", "tr",
}

// TestLabel is on the test image, so that a test can see its labels arrive.
const TestLabel = "gantry.test.image"

// BuildImage makes the test image on the Docker engine at host ("" is the
// standard socket), unless it has it, and returns its reference. It is built
// from nothing but a static busybox and a script, so no registry is needed.
// Plain HTTP does: one request imports a tar file as an image.
func BuildImage(t testing.TB, host string) string {
	t.Helper()
	rootfs, err := RootFS()
	if err != nil {
		Unavailable(t, "no test image: %v", err)
	}
	ref := fmt.Sprintf("gantry-enginetest:%x", sha256.Sum256(rootfs))[:30]
	done, err := building()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := importImage(t.Context(), dockerHTTP(host), ref, rootfs); err != nil {
		Unavailable(t, "no test image: %v", err)
	}
	return ref
}

// building waits until nobody else on this host makes the image, in whatever
// process, and returns what lets the next one do it. Of two imports at once the
// second would take the name from the image that tests run already. The program
// that the image is made of is the lock.
func building() (done func(), err error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX); {
		case err == nil:
			return func() {
				// Before it is closed: a process that is just being started has a copy.
				_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
				_ = file.Close() // only read from
			}, nil
		case !errors.Is(err, unix.EINTR):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
	}
}

// Unavailable skips a test that needs a Docker engine, or fails it where
// GANTRY_REQUIRE_DOCKER=1 says that there has to be one.
func Unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("GANTRY_REQUIRE_DOCKER") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format+" (GANTRY_REQUIRE_DOCKER=1 makes this a failure)", args...)
}

func importImage(ctx context.Context, api *http.Client, ref string, rootfs []byte) error {
	name, tag, _ := strings.Cut(ref, ":")
	if status, _, err := call(ctx, api, http.MethodGet, "/images/"+ref+"/json", nil); err != nil || status == http.StatusOK {
		return err
	}
	query := url.Values{
		"fromSrc": {"-"}, "repo": {name}, "tag": {tag},
		"changes": {`ENTRYPOINT ["/bin/sh","/bin/script"]`, "LABEL " + TestLabel + "=yes", "ENV PATH=/bin"},
	}
	status, answer, err := call(ctx, api, http.MethodPost, "/images/create?"+query.Encode(), bytes.NewReader(rootfs))
	if err == nil && status != http.StatusOK || strings.Contains(answer, `"error"`) {
		err = fmt.Errorf("import %s: status %d: %s", ref, status, answer)
	}
	return err
}

func call(ctx context.Context, api *http.Client, method, path string, body io.Reader) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return 0, "", err
	}
	res, err := api.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

func dockerHTTP(host string) *http.Client {
	network, address := "unix", "/var/run/docker.sock"
	if scheme, rest, found := strings.Cut(host, "://"); found {
		network, address = scheme, rest
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// RootFS returns the test image's files as a tar file, always the same bytes.
func RootFS() ([]byte, error) {
	busybox, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	var errs []error
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		_, err := func() (int, error) {
			if err := w.WriteHeader(&h); err != nil {
				return 0, err
			}
			return w.Write(data)
		}()
		errs = append(errs, err)
	}
	for _, dir := range []string{"bin/", "etc/", "proc/", "sys/", "dev/", "home/"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/:/bin/sh\nworker:x:1234:1235::/home:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nworker:x:1235:\n"))
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, busybox)
	add(tar.Header{Name: "bin/script", Mode: 0o755}, script)
	for _, a := range applets {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox"}, nil)
	}
	errs = append(errs, w.Close())
	return buf.Bytes(), errors.Join(errs...)
}

func staticBusybox() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("find busybox (install the package busybox-static): %w", err)
	}
	program, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer program.Close() //nolint:errcheck // only read from
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("%s is not static: install the package busybox-static", path)
		}
	}
	return os.ReadFile(path)
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// errNoCurl says what is missing.
var errNoCurl = errors.New("curl, the limit of this benchmark, is not installed: deploy/ensure-docker.sh curl")

// transfers are what one curl is to do, in the words of its configuration files.
type transfers struct{ text strings.Builder }

// set says an option of all transfers since the last next.
func (c *transfers) set(option, value string) {
	fmt.Fprintf(&c.text, "%s = %q\n", option, value)
}

// on switches an option on.
func (c *transfers) on(option string) { fmt.Fprintln(&c.text, option) }

// next begins transfers with options of their own, over the same connections.
func (c *transfers) next() { c.on("next") }

// to begins the description of transfers to a Girder.
func (c *transfers) to(g *girder) {
	c.on("fail")
	c.set("header", "Girder-Token: "+g.token)
	c.set("header", "Expect:") // no round trip before a body
}

// run carries them out and returns how long that took, and for how long it kept
// a processor busy.
func (c *transfers) run(ctx context.Context, args ...string) (took, busy time.Duration, err error) {
	path, err := exec.LookPath("curl")
	if err != nil {
		return 0, 0, errNoCurl
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--silent", "--show-error", "--config", "-"}, args...)...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.text.String()), &said, &said
	took, err = timed(cmd.Run)
	if err != nil {
		return 0, 0, fmt.Errorf("curl: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

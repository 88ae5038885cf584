// Girder-sim serves a small Girder for demos and tests.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
	"github.com/gantry-worker/gantry/tools/girder-sim/simseed"
)

type flags struct {
	Addr    string        `default:"127.0.0.1:8989" help:"Address to listen on, host:port."`
	Dir     string        `help:"Folder for documents and bytes. Without it everything is gone at the end."`
	Seed    bool          `help:"Create a demo user, folder, item and tokens once, and print them as JSON."`
	Latency time.Duration `help:"Delay every request, e.g. 50ms."`

	Artifacts bool `help:"Let files be attached to jobs, which no release of Girder does."`

	TLS         string `name:"tls" placeholder:"DIR" help:"Speak HTTPS with the certificates of this folder, made there if it has none: ca.pem, and with their keys server.pem and client.pem."`
	ClientCert  bool   `help:"With --tls: demand a certificate that ca.pem signed of every client."`
	ObjectStore string `placeholder:"HOST:PORT" help:"Keep files' bytes on a server of its own at this address, as on S3: downloads are redirected there."`
}

// Validate names what does not go together.
func (f flags) Validate() error {
	if f.ClientCert && f.TLS == "" {
		return errors.New("--client-cert needs --tls")
	}
	return nil
}

// options are those of the server.
func (f flags) options(log zerolog.Logger) (girdersim.Options, error) {
	options := girdersim.Options{Addr: f.Addr, Dir: f.Dir, Latency: f.Latency, Artifacts: f.Artifacts, Log: log}
	if f.ObjectStore != "" {
		options.ObjectStore = &girdersim.ObjectStore{Addr: f.ObjectStore}
	}
	if f.TLS == "" {
		return options, nil
	}
	hosts := []string{"localhost", "127.0.0.1"}
	for _, addr := range []string{f.Addr, f.ObjectStore} {
		if host, _, err := net.SplitHostPort(addr); err == nil && host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	var err error
	options.TLS, err = openTLS(f.TLS, f.ClientCert, hosts...)
	return options, err
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("girder-sim"), kong.Description("A small Girder for demos and tests."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, f, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "girder-sim:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, f flags, stdout, stderr io.Writer) (err error) {
	log := zerolog.New(stderr).Level(zerolog.InfoLevel).With().Timestamp().Logger()
	options, err := f.options(log)
	if err != nil {
		return err
	}
	sim, err := girdersim.Start(options)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() {
		if closeErr := sim.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close: %w", closeErr)
		}
	}()
	fmt.Fprintln(stderr, sim.URL())
	if f.Seed {
		if err := seed(sim, f.Dir, stdout); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// seed prints the ids and tokens that the server starts with.
func seed(sim *girdersim.Server, dir string, stdout io.Writer) error {
	planted, err := simseed.Plant(sim, dir)
	if err != nil {
		return err
	}
	out := json.NewEncoder(stdout)
	out.SetIndent("", "  ")
	return out.Encode(planted)
}

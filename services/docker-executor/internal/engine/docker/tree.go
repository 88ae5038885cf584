package docker

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// ownProgram is this process' executable, also when its file was replaced.
const ownProgram = "/proc/self/exe"

// Where the image and the container have what.
const (
	helperImage   = "gantry-helper"
	helperProgram = "gantry"
	helperTree    = "/tree"
)

// helper is the image with Gantry's own program in it.
type helper struct {
	mu     sync.Mutex
	digest string // of the program, once it was read
}

// RemoveTree removes what is in a folder of the host, in a container that is
// made of Gantry's own program and can do nothing else: no image is pulled.
func (e *Engine) RemoveTree(ctx context.Context, hostPath string, id removetree.ID, labels map[string]string) error {
	err := e.removeTree(ctx, hostPath, id, labels)
	if errors.Is(err, engine.ErrImageNotFound) { // somebody removed it just now
		err = e.removeTree(ctx, hostPath, id, labels)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("remove what is in %s as root: %w", hostPath, err)
}

func (e *Engine) removeTree(ctx context.Context, hostPath string, tree removetree.ID, labels map[string]string) (err error) {
	img, err := e.helperImage(ctx)
	if err != nil {
		return err
	}
	id, err := e.Create(ctx, removerSpec(img, hostPath, tree, labels))
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, e.Remove(context.WithoutCancel(ctx), id))
	}()
	if err := e.Start(ctx, id); err != nil {
		return err
	}
	var said []byte
	if _, err := e.Logs(ctx, id, engine.StderrOnly, engine.Position{}, func(f engine.Frame) error {
		said = append(said, f.Data[:min(len(f.Data), maxSaid-len(said))]...)
		return nil
	}); err != nil {
		return err
	}
	exit, err := e.Wait(ctx, id, engine.Run{})
	if err != nil || exit.Code == 0 && !exit.EngineLost {
		return err
	}
	return errors.New(cmp.Or(strings.TrimSpace(string(said)), fmt.Sprintf("exit code %d", exit.Code)))
}

// maxSaid is how much of what the program says is kept.
const maxSaid = 4 << 10

// removerSpec is a container that has the folder and nothing else.
func removerSpec(img, hostPath string, tree removetree.ID, labels map[string]string) engine.Spec {
	noInit := false
	spec := engine.Spec{
		Name: helperImage + "-" + rand.Text(), Image: img, Args: []string{removetree.Argument, helperTree, tree.String()},
		Labels: map[string]string{}, Mounts: []engine.Mount{{HostPath: hostPath, ContainerPath: helperTree, Alone: true}},
		Options: contracts.DockerOptions{
			User: "0:0", NetworkMode: "none", ReadOnly: true, Init: &noInit, UsernsMode: "host",
			CapDrop: []string{"ALL"}, CapAdd: []string{"DAC_OVERRIDE", "FOWNER"},
			SecurityOpt: []string{"no-new-privileges", "label=disable"},
		},
	}
	maps.Copy(spec.Labels, labels)
	spec.Labels[engine.LabelHelper] = removetree.Argument
	return spec
}

// helperImage returns the image's ID, and makes it where the engine does not
// have it yet.
func (e *Engine) helperImage(ctx context.Context) (string, error) {
	e.helper.mu.Lock() // two imports at once would leave an image without a name
	defer e.helper.mu.Unlock()
	program, err := os.Open(cmp.Or(e.cfg.Program, ownProgram))
	if err != nil {
		return "", err
	}
	defer program.Close() //nolint:errcheck // only read from
	if e.helper.digest == "" {
		if e.helper.digest, err = digestOf(program); err != nil {
			return "", err
		}
	}
	digest := e.helper.digest
	ref := helperImage + ":" + digest[:20]
	found, err := e.Image(ctx, ref)
	if err == nil && found.Labels[engine.LabelHelper] == digest {
		return found.ID, nil
	}
	if err != nil && !errors.Is(err, engine.ErrImageNotFound) {
		return "", err
	}
	if err := e.importProgram(ctx, program, ref, digest); err != nil {
		return "", err
	}
	e.dropOldHelpers(ctx, ref)
	found, err = e.Image(ctx, ref)
	return found.ID, err
}

// digestOf reads a program that needs nothing but itself to run.
func digestOf(program *os.File) (string, error) {
	parsed, err := elf.NewFile(program)
	if err != nil {
		return "", fmt.Errorf("read this program %s: %w", program.Name(), err)
	}
	for _, part := range parsed.Progs {
		if part.Type == elf.PT_INTERP {
			return "", errors.New("this program is dynamically linked, so it cannot be put into a container by itself: " +
				"build it with CGO_ENABLED=0, or run the executor as root")
		}
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(program, 0, 1<<62)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", hash.Sum(nil)), nil
}

// importProgram makes an image of one file.
func (e *Engine) importProgram(ctx context.Context, program *os.File, ref, digest string) error {
	info, err := program.Stat()
	if err != nil {
		return err
	}
	var head bytes.Buffer
	header := tar.Header{Name: helperProgram, Mode: 0o755, Size: info.Size()}
	if err := tar.NewWriter(&head).WriteHeader(&header); err != nil {
		return err
	}
	const block = 512
	rest := make([]byte, (block-info.Size()%block)%block+2*block)
	content := io.MultiReader(&head, io.NewSectionReader(program, 0, info.Size()), bytes.NewReader(rest))
	call, cancel := e.bounded(ctx)
	defer cancel()
	answer, err := e.api().ImageImport(call, image.ImportSource{Source: content, SourceName: "-"}, ref, image.ImportOptions{
		Message: "Gantry's own program",
		Changes: []string{`ENTRYPOINT ["/` + helperProgram + `"]`, "LABEL " + engine.LabelHelper + "=" + digest},
	})
	if err == nil {
		err = follow(answer, func(engine.PullProgress) {})
		_ = answer.Close() // only read from
	}
	return e.wrap(ctx, "import", "image "+ref, err)
}

// oldHelper is the age of an image that no running executor is likely to use: it
// would make it anew.
const oldHelper = 24 * time.Hour

// dropOldHelpers removes the images of former versions, by their names: an image
// that carries the label under another name, or none, is not known to be ours.
// One that is used stays, as does one that cannot be removed: the next version
// tries again.
func (e *Engine) dropOldHelpers(ctx context.Context, keep string) {
	call, cancel := e.bounded(ctx)
	defer cancel()
	list, _ := e.api().ImageList(call, image.ListOptions{Filters: filters.NewArgs(filters.Arg("label", engine.LabelHelper))})
	for _, old := range oldHelpers(list, keep, time.Now()) {
		_, _ = e.api().ImageRemove(call, old, image.RemoveOptions{})
	}
}

// oldHelpers returns the names under which images are helpers' of former versions.
func oldHelpers(list []image.Summary, keep string, now time.Time) []string {
	var old []string
	for i := range list {
		one := &list[i]
		if slices.Contains(one.RepoTags, keep) || now.Sub(time.Unix(one.Created, 0)) <= oldHelper {
			continue
		}
		for _, name := range one.RepoTags {
			if strings.HasPrefix(name, helperImage+":") {
				old = append(old, name)
			}
		}
	}
	return old
}

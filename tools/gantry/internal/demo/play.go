package demo

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/tools/gantry/internal/cli"
	"github.com/gantry-worker/gantry/tools/gantry/internal/local"
	"github.com/gantry-worker/gantry/tools/gantry/internal/show"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// What the Girder job of a task that succeeded went through.
var wantedHistory = []contracts.GirderStatus{contracts.GirderRunning, contracts.GirderSuccess}

// play submits the task, follows it, and checks what came of it.
func (d *demo) play(ctx context.Context, running local.Running) error {
	d.step("NATS, dispatcher, docker-executor, transfer and job-tracker run, NATS at %s", running.NATS.URL)
	item, err := running.Sim.CreateItem(running.Seed.FolderID, "Pictures")
	if err != nil {
		return err
	}
	file, err := running.Sim.AddFile(item.ID, pictureName, bytes.NewReader(picture(false)))
	if err != nil {
		return err
	}
	d.step("a simulated Girder runs at %s; %s (%s) is in it", running.Sim.URL(), pictureName, show.Bytes(file.Size))

	task := newTask(d.image, file.ID, running.Seed)
	if err := d.publish(ctx, running.NATS, task); err != nil {
		return err
	}
	if err := d.follow(ctx, running.NATS, task); err != nil {
		return err
	}
	return d.check(ctx, running, task, file)
}

// publish sends the task as any NATS client can: JSON to one subject. The
// answer says that it is durable.
func (d *demo) publish(ctx context.Context, cfg client.Config, task *contracts.Task) error {
	text, err := printable(task)
	if err != nil {
		return err
	}
	d.say("\nA task is JSON on the NATS subject %s:\n", contracts.SubmitAny)
	if _, err := io.WriteString(&indent{out: d.env.Stdout, prefix: "    "}, d.env.OutStyle().Dim(text)+"\n"); err != nil {
		return err
	}
	data, err := task.Encode()
	if err != nil {
		return err
	}
	conn, err := nats.Connect(cfg.URL, nats.Token(cfg.Token), nats.Timeout(patience))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	reply, err := conn.RequestWithContext(ctx, contracts.SubmitAny, data)
	if err != nil {
		return fmt.Errorf("publish the task: %w", err)
	}
	d.say("")
	d.step("published; NATS says %s", reply.Data)
	return nil
}

// follow shows the task while it runs.
func (d *demo) follow(ctx context.Context, cfg client.Config, task *contracts.Task) error {
	c, err := client.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	view := *d.env
	view.Signals = nil // Ctrl-C ends the demo, not the task alone
	mode := cli.ProgressAuto
	view.Stdout = &indent{out: d.env.Stdout, prefix: "    | "}
	if !d.env.StderrTerminal {
		mode = cli.ProgressPlain
		view.Stderr = d.env.Stdout
	}
	if err := view.Attend(ctx, c, task, mode); err != nil {
		return fmt.Errorf("the task did not succeed: %w", err)
	}
	return nil
}

// check looks at Girder, through its REST interface, for what the task should
// have left there.
func (d *demo) check(ctx context.Context, running local.Running, task *contracts.Task, input girdersim.File) error {
	d.say("")
	downloads := slices.ContainsFunc(running.Sim.Requests(), func(r girdersim.Request) bool {
		return strings.HasSuffix(r.Path, "/file/"+input.ID+"/download") && r.Sent == input.Size
	})
	if !downloads {
		return fmt.Errorf("nobody downloaded %s from Girder", pictureName)
	}
	d.step("%s was downloaded from Girder onto the node, %s", pictureName, show.Bytes(input.Size))
	api := girder{apiURL: running.Seed.APIURL, token: running.Seed.UserToken}
	return errors.Join(
		d.checkFile(ctx, api, running.Seed.ItemID),
		d.checkJob(ctx, api, running.Sim, task.ID),
		ctx.Err(),
	)
}

func (d *demo) checkFile(ctx context.Context, api girder, itemID string) error {
	files, err := api.files(ctx, itemID)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no file was uploaded into the item")
	}
	file := files[len(files)-1]
	content, err := api.download(ctx, file.ID)
	if err != nil {
		return err
	}
	wanted, got := checksum(picture(true)), checksum(content)
	if got != wanted {
		return fmt.Errorf("%s in Girder has SHA-512 %s, expected was %s", file.Name, got, wanted)
	}
	d.step("%s (%s) is in the item, SHA-512 %s… as expected", file.Name, show.Bytes(file.Size), got[:16])
	return nil
}

func checksum(data []byte) string {
	sum := sha512.Sum512(data)
	return hex.EncodeToString(sum[:])
}

func (d *demo) checkJob(ctx context.Context, api girder, sim *girdersim.Server, id contracts.JobID) error {
	all := sim.Jobs()
	at := slices.IndexFunc(all, func(j girdersim.Job) bool { return j.TaskID == string(id) })
	if at < 0 {
		return errors.New("no Girder job was created")
	}
	if _, err := sim.AwaitJob(ctx, all[at].ID, func(j girdersim.Job) bool { return contracts.GirderStatus(j.Status).Terminal() }); err != nil {
		return fmt.Errorf("wait for the Girder job's end: %w", err)
	}
	job, err := api.job(ctx, all[at].ID)
	if err != nil {
		return err
	}
	var history []contracts.GirderStatus
	for _, change := range job.Timestamps {
		history = append(history, contracts.GirderStatus(change.Status))
	}
	words := []string{contracts.GirderInactive.String()}
	for _, status := range history {
		words = append(words, status.String())
	}
	if !slices.Equal(history, wantedHistory) {
		return fmt.Errorf("the Girder job went %s", strings.Join(words, " → "))
	}
	d.step("the Girder job %q went %s", job.Title, strings.Join(words, " → "))
	lines := strings.Count(strings.Join(job.Log, ""), "\n")
	if lines == 0 || job.Progress == nil || job.Progress.Current == nil || job.Progress.Total == nil {
		return errors.New("the Girder job has no log or no progress")
	}
	d.step("its log has %s, its progress is %g of %g", show.Count(lines, "line"), *job.Progress.Current, *job.Progress.Total)
	return nil
}

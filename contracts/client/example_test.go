package client_test

import (
	"context"
	"fmt"
	"log"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

func Example() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: "nats://127.0.0.1:4222", Token: "the token in nats.json"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	job, err := c.Submit(ctx, &contracts.Task{
		Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{
			Image: "my/segment:1.2",
			Pull:  contracts.PullMissing,
			Args:  []contracts.Arg{{Text: "--threads"}, {Text: "4"}, {Transform: &contracts.ProgressPipe{}}},
		},
	})
	if err != nil {
		log.Fatal(err) // names the field that is wrong
	}
	end, err := c.Wait(ctx, job)
	if err != nil {
		log.Fatal(err)
	}
	if failed, ok := end.Data.(*contracts.Failed); ok {
		fmt.Println(job, "failed:", failed.Message)
	}
}

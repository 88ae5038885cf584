package girdersim_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"strings"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// A worker reports that its job runs, then that it succeeded.
func Example() {
	sim, err := girdersim.Start(girdersim.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer sim.Close()
	alice, err := sim.CreateUser("alice", "password")
	if err != nil {
		log.Fatal(err)
	}
	job, err := sim.CreateJob(girdersim.JobSpec{Title: "demo", UserID: alice.ID})
	if err != nil {
		log.Fatal(err)
	}
	for _, form := range []url.Values{{"status": {"2"}, "log": {"working\n"}}, {"status": {"3"}}} {
		req, err := http.NewRequest(http.MethodPut, job.URL, strings.NewReader(form.Encode()))
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Girder-Token", job.Token)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}
	done, err := sim.AwaitJob(context.Background(), job.ID, func(j girdersim.Job) bool { return j.Status == girdersim.Success })
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v %q\n", done.Statuses(), done.Log)
	// Output: [2 3] ["working\n"]
}

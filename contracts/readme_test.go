package contracts_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// What the pages tell people to publish has to be accepted.
func TestTasksInThePagesAreValid(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		page string
		task *regexp.Regexp
	}{
		{"README.md", regexp.MustCompile("(?s)```json\n(.*?)```")},
		{"../README.md", regexp.MustCompile(`req tasks\.submit \\\n\s+'(\{.*\})'`)},
	} {
		page, err := os.ReadFile(test.page)
		if err != nil {
			t.Fatal(err)
		}
		found := test.task.FindSubmatch(page)
		if found == nil {
			t.Errorf("%s shows no task", test.page)
			continue
		}
		if _, err := contracts.DecodeTask(found[1]); err != nil {
			t.Errorf("%s: %v", test.page, err)
		}
	}
}

// Every folder that the front page names is there.
func TestTheFrontPageNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllSubmatch(page, -1)
	if len(links) < 8 {
		t.Fatalf("only %d links", len(links))
	}
	for _, link := range links {
		target := string(link[1])
		if strings.Contains(target, "://") {
			continue
		}
		if _, err := os.Stat("../" + target); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

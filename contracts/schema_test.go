package contracts

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compileSchema returns the schema of a message by its name: "task".
func compileSchema(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	file, err := os.Open(filepath.Join("schema", name+".v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	document, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource(name, document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validateJSON(schema *jsonschema.Schema, data []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func TestGoldenMessagesFitTheirSchemas(t *testing.T) {
	t.Parallel()
	for name, golden := range goldenFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schemaName := firstWord(name)
			if schemaName == "every" {
				schemaName = "task"
			}
			if err := validateJSON(compileSchema(t, schemaName), golden); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSchemaAcceptsEveryFormOfAValue(t *testing.T) {
	t.Parallel()
	schema := compileSchema(t, "task")
	for _, inside := range []string{
		`"entrypoint":"sh -c x"`, `"entrypoint":["sh"]`, `"entrypoint":[]`,
		`"options":{"mem_limit":"512m"}`, `"options":{"mem_limit":"1.5GB"}`, `"options":{"mem_limit":1024}`, `"options":{"mem_limit":"10b"}`,
		`"options":{"environment":["A=1","B"]}`, `"options":{"environment":{"A":1}}`,
		`"options":{"user":0}`, `"options":{"labels":["x"]}`, `"options":{"labels":{"x":"y"}}`,
		`"args":["a",1,2.5,{"type":"temporary_volume"}]`,
	} {
		task := []byte(`{"version":1,"task":"docker_run","docker":{"image":"a",` + inside + `}}`)
		if err := validateJSON(schema, task); err != nil {
			t.Errorf("%s: %v", inside, err)
		}
		if _, err := DecodeTask(task); err != nil {
			t.Errorf("%s: the schema accepts what DecodeTask refuses: %v", inside, err)
		}
	}
}

// The schema sees whatever needs no second field and no text of a path or URL.
func TestSchemaRefusesWhatDecodeTaskRefuses(t *testing.T) {
	t.Parallel()
	schema := compileSchema(t, "task")
	docker := func(inside string) string {
		return `{"version":1,"task":"docker_run","docker":{"image":"a",` + inside + `}}`
	}
	const id = `"5f0c0000000000000000aaaa"`
	for _, task := range []string{
		`[]`,
		`{"version":1}`,
		`{"task":"docker_run","docker":{"image":"a"}}`,
		`{"version":2,"task":"docker_run","docker":{"image":"a"}}`,
		`{"version":"1","task":"docker_run","docker":{"image":"a"}}`,
		`{"version":1,"task":"","docker":{"image":"a"}}`,
		`{"version":1,"task":"docker_run","dokcer":{}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"parent":"x"}`,
		`{"version":1,"task":"docker_run","docker":{}}`,
		`{"version":1,"task":"docker_run","docker":{"image":""}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"id":"a b"}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"queue":"A"}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"priority":10}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"priority":-1}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"backoff":"soon"}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"backoff":5}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"backoff":"-5s"}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"max_crashes":101}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"max_failures":-1}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"job":{"token":""},"api_url":"http://g"}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"job_info":{"method":"POST","url":"http://g/job/5f0c0000000000000000aaaa","headers":{"Girder-Token":"t"}}}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"labels":{"":"x"}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"labels":{"a":"` + strings.Repeat("x", 1025) + `"}}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_item","path":{"type":"volume_path","path":"o"},"item_id":"x"}]}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_item","item_id":` + id + `}]}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_item","path":{"type":"volume","volume":"o"},"item_id":` + id + `}]}`,
		`{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"volume_path","path":"o"}]}`,
		docker(`"pull":"sometimes"`),
		docker(`"args":[true]`),
		docker(`"args":[null]`),
		docker(`"args":[{}]`),
		docker(`"args":[{"type":"girder_fiel"}]`),
		docker(`"args":[{"type":"girder_file","id":5}]`),
		docker(`"args":[{"type":"girder_file","id":"12"}]`),
		docker(`"args":[{"type":"girder_file"}]`),
		docker(`"args":[{"type":"girder_file","id":` + id + `,"file":1}]`),
		docker(`"args":[{"type":"volume_path","path":"/etc"}]`),
		docker(`"args":[{"type":"volume_path","path":""}]`),
		docker(`"args":[{"type":"connect","input":{"type":"temporary_volume"},"output":{"type":"host_stdout"}}]`),
		docker(`"args":[{"type":"connect","input":{"type":"container_stdout"},"output":{"type":"girder_job_artifact"}}]`),
		docker(`"streams":[{"type":"host_stdout"}]`),
		docker(`"streams":[{"type":"connect","input":{"type":"container_stdout"},"output":{"type":"host_stdout"},"parse":"xml"}]`),
		docker(`"streams":[{"type":"connect","input":{"type":"container_stdout"},"output":{"type":"chunked_stream","url":"ftp://h"}}]`),
		docker(`"streams":[{"type":"connect","input":{"type":"named_output_pipe","name":"/p"},"output":{"type":"host_stdout"}}]`),
		docker(`"volumes":[5]`),
		docker(`"volumes":["/h"]`),
		docker(`"volumes":{"/h":{"mode":"ro"}}`),
		docker(`"volumes":{"/h":{"bind":"/c","rw":true}}`),
		docker(`"entrypoint":5`),
		docker(`"entrypoint":[5]`),
		docker(`"options":{"shm_sise":"1g"}`),
		docker(`"options":{"mem_limit":"lots"}`),
		docker(`"options":{"mem_limit":-1}`),
		docker(`"options":{"mem_limit":true}`),
		docker(`"options":{"nano_cpus":-1}`),
		docker(`"options":{"nano_cpus":"1"}`),
		docker(`"options":{"environment":3}`),
		docker(`"options":{"environment":["=x"]}`),
		docker(`"options":{"environment":{"":"x"}}`),
		docker(`"options":{"environment":{"A":null}}`),
		docker(`"options":{"labels":{"a":1}}`),
		docker(`"options":{"user":true}`),
		docker(`"volumes":[{"name":"A","type":"bind_mount","host_path":"/a","container_path":"/b"}]`),
		docker(`"volumes":[{"name":"a","type":"nfs"}]`),
	} {
		if validateJSON(schema, []byte(task)) == nil {
			t.Errorf("the schema accepts %.200s", task)
		}
		if _, err := DecodeTask([]byte(task)); err == nil {
			t.Errorf("DecodeTask accepts %.200s", task)
		}
	}
}

func TestEntrySchemaKnowsTheDataOfEachType(t *testing.T) {
	t.Parallel()
	schema := compileSchema(t, "entry")
	entry := func(kind, data string) []byte {
		return []byte(`{"version":1,"type":"` + kind + `","entry":"e","job":"j","attempt":1,"offer":1,"crashes":0,"failures":0,` +
			`"time":"2026-03-01T12:00:00Z","source":"s"` + data + `}`)
	}
	for _, test := range []struct {
		kind, data string
		fits       bool
	}{
		{"claimed", `,"data":{"node":"n","executor":"x"}`, true},
		{"claimed", `,"data":{"node":"n","executor":"x","later":1}`, true},
		{"claimed", `,"data":{"node":"n"}`, false},
		{"claimed", ``, false},
		{"pushing", ``, true},
		{"pushing", `,"data":{}`, true},
		{"canceling", ``, true},
		{"failed", `,"data":{"kind":"bad luck","message":"m","will_retry":false,"log_seq":0}`, false},
		{"failed", `,"data":{"kind":"failure","message":"m","will_retry":false,"log_seq":0}`, true},
		{"unheard", `,"data":{}`, false},
	} {
		if err := validateJSON(schema, entry(test.kind, test.data)); (err == nil) != test.fits {
			t.Errorf("%s%s: %v, want it to fit: %t", test.kind, test.data, err, test.fits)
		}
	}
}

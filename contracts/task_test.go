package contracts

import (
	"strings"
	"testing"
)

func TestDecodeTaskNamesTheField(t *testing.T) {
	t.Parallel()
	const id = `"5f0c0000000000000000aaaa"`
	girder := `"girder":{"api_url":"http://g/api/v1","token":"t"}`
	docker := func(inside string) string {
		return `{"version":1,"task":"docker_run","docker":{"image":"a"` + inside + `},` + girder + `}`
	}
	for _, test := range []struct{ name, task, want string }{
		{"not JSON", `{"version":1,`, "not JSON"},
		{"wrong type", `{"version":"1","task":"docker_run","docker":{"image":"a"}}`, "version: a string found where a whole number is wanted"},
		{"unknown field", `{"version":1,"task":"docker_run","dokcer":{}}`, "dokcer: unknown field"},
		{"field given twice", `{"version":1,"version":1}`, "version: given twice"},
		{"reserved", `{"version":1,"parent":"x"}`, "parent: this field is reserved"},
		{"version", `{"version":2,"task":"docker_run","docker":{"image":"a"}}`, "version: 2 is not a known version; write 1"},
		{"id", `{"version":1,"id":"a b","task":"docker_run","docker":{"image":"a"}}`, `id: "a b" is not a job id`},
		{"queue", `{"version":1,"queue":"A","task":"docker_run","docker":{"image":"a"}}`, `queue: "A" is not a name`},
		{"priority", `{"version":1,"priority":10,"task":"docker_run","docker":{"image":"a"}}`, "priority: 10 is not between 0 and 9"},
		{"no task", `{"version":1}`, "task: missing"},
		{"plugin task", `{"version":1,"task":"x.y"}`, `task: "x.y" is not supported`},
		{"no docker", `{"version":1,"task":"docker_run"}`, "docker: missing"},
		{"no image", `{"version":1,"task":"docker_run","docker":{"image":""}}`, "docker.image: missing"},
		{"pull", docker(`,"pull":"sometimes"`), `docker.pull: "sometimes" is not always, missing or never`},
		{"arg of a wrong type", docker(`,"args":["a",true]`), "docker.args[1]: must be a string, a number or an object"},
		{"arg without a type", docker(`,"args":[{}]`), "docker.args[0].type: missing"},
		{"unknown transform", docker(`,"args":[{"type":"girder_fiel"}]`), `docker.args[0].type: "girder_fiel" is not the type of a transform; known are chunked_stream`},
		{"transform's field", docker(`,"args":["x","y",{"type":"girder_file","id":5}]`), "docker.args[2].id: a number found where a string is wanted"},
		{"transform's unknown field", docker(`,"args":[{"type":"girder_file","id":` + id + `,"file":1}]`), "docker.args[0].file: unknown field"},
		{"Girder id", docker(`,"args":[{"type":"girder_file","id":"12"}]`), `docker.args[0].id: "12" is not a Girder id`},
		{"inside a connect", docker(`,"args":[{"type":"connect","input":{"type":"girder_file_stream","id":` + id + `},"output":{"type":"named_input_pipe","nam":"x"}}]`), "docker.args[0].output.nam: unknown field"},
		{"later transform", docker(`,"args":[{"type":"girder_folder","id":` + id + `}]`), "docker.args[0].type: girder_folder is not supported by this version"},
		{"path leaves the volume", docker(`,"args":[{"type":"volume_path","path":"a/../../b"}]`), `docker.args[0].path: "a/../../b" leaves the volume`},
		{"absolute path", docker(`,"args":[{"type":"volume_path","path":"/etc"}]`), `docker.args[0].path: "/etc" must be relative`},
		{"unknown volume", docker(`,"args":[{"type":"volume_path","path":"a","volume":"v"}]`), `docker.args[0].volume: "v" is not the name of one of docker.volumes`},
		{"later option", docker(`,"options":{"shm_size":"1g"}`), "docker.options.shm_size: this option is not supported"},
		{"fixed option", docker(`,"options":{"tty":true}`), "docker.options.tty: this option cannot be set"},
		{"unknown option", docker(`,"options":{"memory":1}`), "docker.options.memory: unknown option"},
		{"mem_limit", docker(`,"options":{"mem_limit":"lots"}`), `docker.options.mem_limit: "lots" is not a size`},
		{"environment", docker(`,"options":{"environment":3}`), "docker.options.environment: must be an object or a list"},
		{"variable without a name", docker(`,"options":{"environment":["=x"]}`), "docker.options.environment: \"\" is not the name"},
		{"our labels", docker(`,"options":{"labels":{"gantry.job":"x"}}`), "docker.options.labels"},
		{"entrypoint", docker(`,"entrypoint":"a 'b"`), "docker.entrypoint: \"a 'b\" cannot be split"},
		{"bind mount", docker(`,"volumes":[{"name":"d","type":"bind_mount","host_path":"x","container_path":"/y"}]`), `docker.volumes[0].host_path: "x" is not an absolute path`},
		{"token missing", `{"version":1,"task":"docker_run","docker":{"image":"a","args":[{"type":"girder_file","id":` + id + `}]}}`, "girder.token: missing; docker.args[0] needs it"},
		{"two ways to a job", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"api_url":"http://g","job":{"token":"t"},"job_info":{"method":"PUT","url":"http://g/job/5f0c0000000000000000aaaa","headers":{"Girder-Token":"t"}}}}`, "give either job or job_info"},
		{"reference as a token", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"token":"secret:io/x"}}`, "girder.token: starts with"},
		{"output", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_item","path":{"type":"volume_path","path":"o"},"item_id":"x"}],` + girder + `}`, `outputs[0].item_id: "x" is not a Girder id`},
		{"schedule", `{"version":1,"task":"docker_run","docker":{"image":"a"},"schedule":{"countdown":"5s"}}`, "schedule: a schedule is not supported"},
		{"backoff", `{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"backoff":"soon"}}`, `retry.backoff: "soon" is not a duration`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := DecodeTask([]byte(test.task))
			if err == nil {
				t.Fatalf("accepted, want an error with %q", test.want)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is\n  %v\nwant it to contain\n  %s", err, test.want)
			}
		})
	}
}

func TestDecodeTaskReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := DecodeTask([]byte(`{"version":3,"queue":"?","task":"docker_run","docker":{"image":"","pull":"x"}}`))
	for _, path := range []string{"version: ", "queue: ", "docker.image: ", "docker.pull: "} {
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v does not name %s", err, path)
		}
	}
}

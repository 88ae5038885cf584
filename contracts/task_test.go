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
		{"path leaves the volume", docker(`,"args":[{"type":"volume_path","path":"a/../../b"}]`), `docker.args[0].path: "a/../../b" leaves the volume`},
		{"absolute path", docker(`,"args":[{"type":"volume_path","path":"/etc"}]`), `docker.args[0].path: "/etc" must be relative`},
		{"unknown volume", docker(`,"args":[{"type":"volume_path","path":"a","volume":"v"}]`), `docker.args[0].volume: "v" is not the name of one of docker.volumes`},
		{"fixed option", docker(`,"options":{"tty":true}`), "docker.options.tty: this option cannot be set"},
		{"unknown option", docker(`,"options":{"memory":1}`), "docker.options.memory: this is not an option here: write docker.options.mem_limit"},
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
		{"too large", `{"version":1,"id":"` + strings.Repeat("x", MaxTaskSize) + `"}`, "allowed are 524288"},
		{"no UTF-8", "{\"version\":1,\"id\":\"\xff\"}", "id: not JSON: invalid UTF-8"},
		{"two values", `{"version":1} {}`, "not JSON"},
		{"empty", ``, "not JSON"},
		{"a list", `[]`, "a list found where an object is wanted"},
		{"a number as an object", `{"version":1,"docker":5}`, "docker: a number found where an object is wanted"},
		{"an object as a list", `{"version":1,"outputs":{}}`, "outputs: an object found where a list is wanted"},
		{"a list as a text", `{"version":1,"task":[]}`, "task: a list found where a string is wanted"},
		{"a text as a boolean", docker(`,"remove_container":"no"`), "docker.remove_container: a string found where a boolean is wanted"},
		{"a boolean as a text", docker(`,"options":{"working_dir":true}`), "docker.options.working_dir: a boolean found where a string is wanted"},
		{"a fraction", `{"version":1.5}`, "version: "},
		{"labels", `{"version":1,"task":"docker_run","docker":{"image":"a"},"labels":{"":"x"}}`, "labels: \"\": names have 1 to 128 bytes"},
		{"max_crashes", `{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"max_crashes":-1}}`, "retry.max_crashes: -1 is not between 0 and 100"},
		{"max_failures", `{"version":1,"task":"docker_run","docker":{"image":"a"},"retry":{"max_failures":101}}`, "retry.max_failures: 101 is not between 0 and 100"},
		{"args beside docker", `{"version":1,"task":"docker_run","docker":{"image":"a"},"args":[1]}`, "args: is for plugin tasks"},
		{"kwargs beside docker", `{"version":1,"task":"docker_run","docker":{"image":"a"},"kwargs":{}}`, "kwargs: is for plugin tasks"},
		{"image with a space", `{"version":1,"task":"docker_run","docker":{"image":"a b"}}`, `docker.image: "a b" is not an image reference`},
		{"a stream that is no connect", docker(`,"streams":[{"type":"host_stdout"}]`), `docker.streams[0].type: "host_stdout" is not the type of a stream; known are connect`},
		{"streams in an object", docker(`,"streams":{}`), "docker.streams: an object found where a list is wanted"},
		{"a connect as an end", docker(`,"args":[{"type":"connect","input":{"type":"connect"},"output":{"type":"host_stdout"}}]`), `docker.args[0].input.type: "connect" is not the type of an end of a connect`},
		{"an artifact as an end", docker(`,"args":[{"type":"connect","input":{"type":"container_stdout"},"output":{"type":"girder_job_artifact"}}]`), `docker.args[0].output.type: "girder_job_artifact" is not the type of an end`},
		{"an end that is no object", docker(`,"args":[{"type":"connect","input":5,"output":{"type":"host_stdout"}}]`), "docker.args[0].input: must be an object with a type"},
		{"an end without a type", docker(`,"args":[{"type":"connect","input":{},"output":{"type":"host_stdout"}}]`), "docker.args[0].input.type: missing; known are chunked_stream, container_stderr, container_stdout, girder_file_stream, girder_upload_folder, girder_upload_item, host_stderr"},
		{"a stream without a type", docker(`,"streams":[{"input":{"type":"container_stdout"}}]`), "docker.streams[0].type: missing; known are connect"},
		{"a limit in seconds", `{"version":1,"task":"docker_run","docker":{"image":"a"},"limits":{"time":5}}`, `limits.time: 5 is not a duration such as "90s" or "12h"`},
		{"a connect with one end", docker(`,"args":[{"type":"connect","input":{"type":"container_stdout"}}]`), "docker.args[0].output: missing"},
		{"type of a wrong type", docker(`,"args":[{"type":5}]`), "docker.args[0].type: a number found where a string is wanted"},
		{"NUL in an argument", docker(`,"args":["a\u0000"]`), "docker.args[0]: holds a NUL character"},
		{"NUL in the entry point", docker(`,"entrypoint":["a","\u0000"]`), "docker.entrypoint[1]: holds a NUL character"},
		{"NUL in a variable", docker(`,"options":{"environment":{"A":"\u0000"}}`), "docker.options.environment.A: holds a NUL character"},
		{"NUL in a path", docker(`,"args":[{"type":"volume_path","path":"a\u0000"}]`), "holds a NUL character"},
		{"no path", docker(`,"args":[{"type":"volume_path","path":""}]`), "docker.args[0].path: missing"},
		{"no volume", docker(`,"args":[{"type":"volume","volume":""}]`), "docker.args[0].volume: missing"},
		{"nano_cpus", docker(`,"options":{"nano_cpus":-1}`), "docker.options.nano_cpus: -1 is negative"},
		{"working_dir", docker(`,"options":{"working_dir":"app"}`), `docker.options.working_dir: "app" is not an absolute path`},
		{"second progress pipe", docker(`,"args":[{"type":"progress_pipe"},{"type":"progress_pipe","name":".girder_progress"}]`), "docker.args[1]: is the second progress pipe of that name"},
		{"volume of no type", docker(`,"volumes":[{"name":"d","type":"nfs"}]`), `docker.volumes[0].type: "nfs" is not bind_mount or temporary`},
		{"two volumes of a name", docker(`,"volumes":[{"name":"d","type":"bind_mount","host_path":"/x","container_path":"/y"},{"name":"d","type":"bind_mount","host_path":"/x","container_path":"/y"}]`), `docker.volumes[1].name: "d" is the name of two volumes`},
		{"mode of a bind mount", docker(`,"volumes":[{"name":"d","type":"bind_mount","host_path":"/x","container_path":"/y","mode":"rwx"}]`), `docker.volumes[0].mode: "rwx" is not rw or ro`},
		{"host_dir of a bind mount", docker(`,"volumes":[{"name":"d","type":"bind_mount","host_path":"/x","container_path":"/y","host_dir":"/z"}]`), "docker.volumes[0].host_dir: is for temporary volumes"},
		{"api_url", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"api_url":"ftp://g"}}`, `girder.api_url: "ftp://g" is not an http or https URL`},
		{"own api_url", docker(`,"args":[{"type":"girder_file","id":` + id + `,"girder":{"api_url":"g"}}]`), `docker.args[0].girder.api_url: "g" is not an http or https URL`},
		{"own reference", docker(`,"args":[{"type":"girder_file","id":` + id + `,"girder":{"token":"secret:io/x"}}]`), "docker.args[0].girder.token: starts with"},
		{"job without a server", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"job":{"token":"t"}}}`, "girder.api_url: missing; girder.job needs it"},
		{"job without a token", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"api_url":"http://g","job":{"token":""}}}`, "girder.job.token: missing"},
		{"job's handler", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"api_url":"http://g","job":{"token":"t","other_fields":{"handler":"x"}}}}`, "girder.job.other_fields.handler: this field is set by Gantry"},
		{"job_info's method", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"job_info":{"method":"POST","url":"http://g/job/5f0c0000000000000000aaaa","headers":{"Girder-Token":"t"}}}}`, `girder.job_info.method: "POST" is not PUT`},
		{"job_info's URL", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"job_info":{"method":"PUT","url":"http://g/job/x","headers":{"Girder-Token":"t"}}}}`, "does not end with /job/<id>"},
		{"job_info's token", `{"version":1,"task":"docker_run","docker":{"image":"a"},"girder":{"job_info":{"method":"PUT","url":"http://g/job/5f0c0000000000000000aaaa","headers":{}}}}`, "girder.job_info.headers.Girder-Token: missing"},
		{"upload_kwargs", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_item","path":{"type":"volume_path","path":"o"},"item_id":` + id + `,"upload_kwargs":{"x":"y"}}],` + girder + `}`, "outputs[0].upload_kwargs.x: unknown"},
		{"output without a path", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_item","item_id":` + id + `}],` + girder + `}`, "outputs[0].path.path: missing"},
		{"path of another type", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_item","path":{"type":"volume","volume":"v"},"item_id":` + id + `}],` + girder + `}`, `outputs[0].path.type: "volume" is not the type of an output's path; known are volume_path`},
		{"schedule", `{"version":1,"task":"docker_run","docker":{"image":"a"},"schedule":{"countdown":"5s"}}`, "schedule: a schedule is not supported"},
		{"no time at all", `{"version":1,"limits":{"time":"0s"}}`, `limits.time: "0s" is no time at all; leave it out for no limit`},
		{"no soft time at all", `{"version":1,"limits":{"time":"1s","soft_time":"0"}}`, `limits.soft_time: "0s" is no time at all`},
		{"a negative limit", `{"version":1,"limits":{"time":"-1s"}}`, `limits.time: "-1s" is not a duration`},
		{"unknown limit", `{"version":1,"limits":{"hard":"1s"}}`, "limits.hard: unknown field"},
		{"soft_time above time", `{"version":1,"task":"docker_run","docker":{"image":"a"},"limits":{"time":"1h","soft_time":"60m"}}`, "limits.soft_time: 1h0m0s is not below limits.time, 1h0m0s"},
		{"item's id", docker(`,"args":[{"type":"girder_item","id":"12"}]`), `docker.args[0].id: "12" is not a Girder id`},
		{"item's volume", docker(`,"args":[{"type":"girder_item","id":` + id + `,"volume":"v"}]`), `docker.args[0].volume: "v" is not the name of one of docker.volumes`},
		{"folder's id", docker(`,"args":[{"type":"girder_folder","id":"12"}]`), `docker.args[0].id: "12" is not a Girder id`},
		{"folder's name leaves", docker(`,"args":[{"type":"girder_folder","id":` + id + `,"folder_name":"../x"}]`), `docker.args[0].folder_name: "../x" leaves the volume`},
		{"folder's name is none", docker(`,"args":[{"type":"girder_folder","id":` + id + `,"folder_name":"./"}]`), `docker.args[0].folder_name: "./" is no name`},
		{"relative direct_path", docker(`,"args":[{"type":"girder_file","id":` + id + `,"direct_path":"a"}]`), `docker.args[0].direct_path: "a" is not an absolute path`},
		{"direct_path of a folder", docker(`,"args":[{"type":"girder_file","id":` + id + `,"direct_path":"/a/"}]`), `docker.args[0].direct_path: "/a/" names a folder`},
		{"girder_api_url without one", `{"version":1,"task":"docker_run","docker":{"image":"a","args":[{"type":"girder_api_url"}]}}`, "girder.api_url: missing; docker.args[0] needs it"},
		{"girder_token without one", `{"version":1,"task":"docker_run","docker":{"image":"a","args":[{"type":"girder_token"}]}}`, "girder.token: missing; docker.args[0] needs it"},
		{"a plugin's transform", docker(`,"args":[{"type":"temporary_directory"}]`), "docker.args[0].type: temporary_directory is not supported by this version"},
		{"another plugin's transform", docker(`,"args":[{"type":"girder_file_path","id":` + id + `}]`), "docker.args[0].type: girder_file_path is not supported by this version"},
		{"upload folder's id", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_folder","path":{"type":"volume_path","path":"o"},"folder_id":"x"}],` + girder + `}`, `outputs[0].folder_id: "x" is not a Girder id`},
		{"upload folder's kwargs", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_folder","path":{"type":"volume_path","path":"o"},"folder_id":` + id + `,"upload_kwargs":{"mime_type":"a/b"}}],` + girder + `}`, "outputs[0].upload_kwargs.mime_type: unknown; only reference"},
		{"upload folder without a path", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_upload_folder","folder_id":` + id + `}],` + girder + `}`, "outputs[0].path.path: missing"},
		{"artifact without a job", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_job_artifact","path":{"type":"volume_path","path":"o"}}],` + girder + `}`, "outputs[0].type: girder_job_artifact needs a Girder job to attach to"},
		{"artifact's path", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_job_artifact","path":{"type":"volume_path","path":"/o"}}],` + girder + `}`, `outputs[0].path.path: "/o" must be relative`},
		{"artifact's name", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_job_artifact","path":{"type":"volume_path","path":"o"},"name":"a/b"}],` + girder + `}`, `outputs[0].name: "a/b" is not the name of a file`},
		{"artifact without a token", `{"version":1,"task":"docker_run","docker":{"image":"a"},"outputs":[{"type":"girder_job_artifact","path":{"type":"volume_path","path":"o"}}]}`, "girder.token: missing; outputs[0] needs it"},
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

// What is wrong with an address is said without what may be a key in it.
func TestRefusalsHideKeys(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://u:hush@g/job/x", "http://g/job/x?token=hush", "ftp://g/x?token=hush", "ftp://u:hush@g"} {
		for _, fields := range []string{
			`"girder":{"api_url":"` + url + `"},"docker":{"image":"a"}`,
			`"girder":{"job_info":{"method":"PUT","url":"` + url + `","headers":{"Girder-Token":"t"}}},"docker":{"image":"a"}`,
			`"docker":{"image":"a","streams":[{"type":"connect","input":{"type":"container_stdout"},"output":{"type":"chunked_stream","url":"` + url + `"}}]}`,
		} {
			_, err := DecodeTask([]byte(`{"version":1,"task":"docker_run",` + fields + `}`))
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Error(err)
			}
		}
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

// A specification that nests without end is refused at its first step, not read
// once for each of its levels.
func TestDecodeTaskDoesNotNest(t *testing.T) {
	t.Parallel()
	const levels = 8000
	task := `{"version":1,"task":"docker_run","docker":{"image":"a","args":[` +
		strings.Repeat(`{"type":"connect","input":`, levels) + `{"type":"host_stdout"}` +
		strings.Repeat(`,"output":{"type":"host_stdout"}}`, levels) + `]}}`
	_, err := DecodeTask([]byte(task))
	if err == nil || !strings.Contains(err.Error(), "docker.args[0].input.type: ") {
		t.Errorf("error %v, want it to name the first end", err)
	}
}

func TestReadTaskReturnsWhatItRead(t *testing.T) {
	t.Parallel()
	task, err := DecodeTask([]byte(`{"version":1,"id":"usable","queue":"gpu","dokcer":{}}`))
	if err == nil || task == nil || task.ID != "usable" || task.Queue != "gpu" {
		t.Errorf("task %+v, error %v; want the id beside the error", task, err)
	}
}

package contracts

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormsOfVolumes(t *testing.T) {
	t.Parallel()
	bind := func(host, container, mode string) Volume {
		return Volume{Type: VolumeBindMount, HostPath: host, ContainerPath: container, Mode: mode}
	}
	schema := compileSchema(t, "task")
	for written, want := range map[string]Volumes{
		`{}`:                     {},
		`{"/h":{"bind":"/c"}}`:   {bind("/h", "/c", "")},
		`{"/h":"/c"}`:            {bind("/h", "/c", "")},
		`["/h:/c","/i:/d:ro,Z"]`: {bind("/h", "/c", ""), bind("/i", "/d", "ro,Z")},
		`{"/z":{"bind":"/c","mode":"ro"},"/a":{"bind":"/d","mode":"rw,z"}}`:                         {bind("/a", "/d", "rw,z"), bind("/z", "/c", "ro")},
		`[{"type":"bind_mount","host_path":"/h","container_path":"/c","mode":"z"}]`:                 {bind("/h", "/c", "z")},
		`["/h:/c",{"name":"s","type":"temporary","host_dir":"/t","mode":"0777"}]`:                   {bind("/h", "/c", ""), {Name: "s", Type: VolumeTemporary, HostDir: "/t", Mode: "0777"}},
		`[{"name":"s","type":"temporary"},{"name":"t","type":"temporary","host_dir":"/a/../b"}]`:    {{Name: "s", Type: VolumeTemporary}, {Name: "t", Type: VolumeTemporary, HostDir: "/a/../b"}},
		`[{"name":"b","type":"bind_mount","host_path":"/h:i","container_path":"/c:d","mode":"ro"}]`: {{Name: "b", Type: VolumeBindMount, HostPath: "/h:i", ContainerPath: "/c:d", Mode: "ro"}},
	} {
		data := girderTask(`"volumes":` + written)
		task, err := DecodeTask(data)
		if err != nil {
			t.Errorf("%s: %v", written, err)
			continue
		}
		if diff := cmp.Diff(want, task.Docker.Volumes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", written, diff)
		}
		if err := validateJSON(schema, data); err != nil {
			t.Errorf("%s: not by the schema: %v", written, err)
		}
	}
}

func TestVolumesThatAreRefused(t *testing.T) {
	t.Parallel()
	bind := func(fields string) string {
		return `[{"type":"bind_mount","host_path":"/h","container_path":"/c"` + fields + `}]`
	}
	temporary := func(fields string) string { return `[{"type":"temporary"` + fields + `}]` }
	for _, test := range []struct{ name, volumes, want string }{
		{"a number", `5`, "docker.volumes: "},
		{"a number in the list", `[5]`, `docker.volumes[0]: must be an object, or text such as "/host:/container:ro"`},
		{"a text without a colon", `["/h"]`, `docker.volumes[0]: "/h" is not "host:container"`},
		{"a text of four parts", `["/h:/c:ro:x"]`, `docker.volumes[0]: "/h:/c:ro:x" is not "host:container"`},
		{"a volume of the engine", `["data:/c"]`, `docker.volumes[0].host_path: "data" is not an absolute path`},
		{"an object of numbers", `{"/h":5}`, `docker.volumes./h: must be an object with "bind" and "mode"`},
		{"an unknown field of the object", `{"/h":{"bind":"/c","rw":true}}`, "docker.volumes./h.rw: unknown field"},
		{"an object without bind", `{"/h":{"mode":"ro"}}`, `docker.volumes[0].container_path: missing`},
		{"an unknown field", `[{"type":"temporary","path":"/x"}]`, "docker.volumes[0].path: unknown field"},
		{"no type", `[{"host_path":"/h","container_path":"/c"}]`, "docker.volumes[0].type: missing; write bind_mount or temporary"},
		{"no host_path", `[{"type":"bind_mount","container_path":"/c"}]`, "docker.volumes[0].host_path: missing"},
		{"NUL in a path", bind(`,"mode":"ro"},{"type":"bind_mount","host_path":"/a\u0000","container_path":"/d"`), "docker.volumes[1].host_path: \"/a\\x00\" holds a NUL character"},
		{"the root", `["/h:/"]`, `docker.volumes[0].container_path: "/" is the container's own root`},
		{"one place twice", `["/h:/c","/i:/c/"]`, `docker.volumes[1].container_path: "/c/" is where docker.volumes[0] is mounted too`},
		{"two modes", bind(`,"mode":"ro,rw"`), `docker.volumes[0].mode: "ro,rw" is not rw or ro, with ",z" or ",Z" for SELinux`},
		{"two labels", bind(`,"mode":"ro,z,Z"`), `docker.volumes[0].mode: "ro,z,Z" is not rw or ro`},
		{"a propagation", bind(`,"mode":"rw,shared"`), `docker.volumes[0].mode: "rw,shared" is not rw or ro`},
		{"a label and a colon", `[{"type":"bind_mount","host_path":"/h:i","container_path":"/c","mode":"ro,z"}]`, `docker.volumes[0].mode: "ro,z": no engine labels a folder with a colon in its path`},
		{"a name", bind(`,"name":"A"`), `docker.volumes[0].name: "A" is not a name`},
		{"a temporary volume without a name", temporary(``), "docker.volumes[0].name: missing; transforms refer to a temporary volume by its name"},
		{"a relative host_dir", temporary(`,"name":"s","host_dir":"t"`), `docker.volumes[0].host_dir: "t" is not an absolute path`},
		{"a mode that is not octal", temporary(`,"name":"s","host_dir":"/t","mode":"0o777"`), `docker.volumes[0].mode: "0o777" is not an octal mode such as "0755"`},
		{"a mode that is too large", temporary(`,"name":"s","host_dir":"/t","mode":"10000"`), `docker.volumes[0].mode: "10000" is not an octal mode`},
		{"a bind mount's mode", temporary(`,"name":"s","host_dir":"/t","mode":"rw"`), `docker.volumes[0].mode: "rw" is not an octal mode`},
		{"a mode of no folder", temporary(`,"name":"s","mode":"0777"`), `docker.volumes[0].mode: "0777" is the mode of host_dir, which is missing`},
		{"host_path of a temporary volume", temporary(`,"name":"s","host_path":"/h"`), "docker.volumes[0].host_path: is for bind mounts"},
		{"container_path of a temporary volume", temporary(`,"name":"s","container_path":"/c"`), "docker.volumes[0].container_path: is for bind mounts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := DecodeTask(girderTask(`"volumes":` + test.volumes))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is\n  %v\nwant it to contain\n  %s", err, test.want)
			}
		})
	}
}

func TestModesOfVolumes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]struct {
		readOnly bool
		relabel  string
	}{
		"": {}, "rw": {}, "ro": {true, ""}, "z": {false, "z"}, "rw,Z": {false, "Z"}, "ro,z": {true, "z"}, "Z,ro": {true, "Z"}, "odd": {},
	} {
		v := Volume{Type: VolumeBindMount, Mode: mode}
		if v.ReadOnly() != want.readOnly || v.Relabel() != want.relabel {
			t.Errorf("%q: read-only %t, label %q", mode, v.ReadOnly(), v.Relabel())
		}
	}
	for mode, want := range map[string]fs.FileMode{
		"": 0o777, "0755": 0o755, "700": 0o700, "2775": 0o775 | fs.ModeSetgid, "1777": 0o777 | fs.ModeSticky, "4000": fs.ModeSetuid, "x": 0o777,
	} {
		v := Volume{Type: VolumeTemporary, Mode: mode}
		if v.DirMode() != want || v.ReadOnly() || v.Relabel() != "" {
			t.Errorf("%q: %v, want %v", mode, v.DirMode(), want)
		}
	}
}

func FuzzVolumes(f *testing.F) {
	for _, seed := range []string{`{"/h":{"bind":"/c","mode":"ro,z"}}`, `["/h:/c:ro"]`, `[{"name":"s","type":"temporary","host_dir":"/t","mode":"2777"}]`, `{"/h":"/c"}`} {
		f.Add(seed)
	}
	schema := compileSchema(f, "task")
	f.Fuzz(func(t *testing.T, written string) {
		data := girderTask(`"volumes":` + written)
		task, err := DecodeTask(data)
		if err != nil || len(task.Docker.Args) > 0 || len(task.Docker.Streams) > 0 {
			return
		}
		if err := validateJSON(schema, rewritten(t, data, goldens["task"])); err != nil {
			t.Fatal(err)
		}
		for i := range task.Docker.Volumes {
			v := &task.Docker.Volumes[i]
			if v.Type == VolumeBindMount && (v.HostPath == "" || v.HostPath[0] != '/' || v.ContainerPath[0] != '/') {
				t.Fatalf("accepted %+v", v)
			}
		}
	})
}

func FuzzBindMode(f *testing.F) {
	for _, seed := range []string{"", "rw", "ro,z", "Z,rw", "ro,ro", ",", "0777", "07777", "8"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, mode string) {
		access, relabel, err := parseBindMode(mode)
		if err == nil && access != "rw" && access != "ro" {
			t.Fatalf("%q is read as %q", mode, access)
		}
		if err == nil {
			again, label, err := parseBindMode(access + strings.Repeat(",", len(relabel)) + relabel)
			if err != nil || again != access || label != relabel {
				t.Fatalf("%q is read as %q and %q, then as %q and %q, error %v", mode, access, relabel, again, label, err)
			}
		}
		if bits, err := parseDirMode(mode); err == nil && bits > 0o7777 {
			t.Fatalf("%q is read as %o", mode, bits)
		}
	})
}

package main

import (
	"encoding/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/invopop/jsonschema"
)

// A rule narrows the schema of one field beyond what its Go type says.
type rule func(field *jsonschema.Schema)

var rules = map[string]map[string]rule{
	"Task": {
		"task":     notEmpty,
		"priority": between(0, 9),
		"labels":   labels,
	},
	"DockerRun":          {"image": notEmpty},
	"DockerOptions":      {"nano_cpus": atLeast(0)},
	"Volume":             {"name": pattern(namePattern)},
	"Retry":              {"max_crashes": between(0, 100), "max_failures": between(0, 100)},
	"GirderFile":         {"id": pattern(girderIDPattern)},
	"GirderItem":         {"id": pattern(girderIDPattern)},
	"GirderFolder":       {"id": pattern(girderIDPattern)},
	"GirderFileStream":   {"id": pattern(girderIDPattern)},
	"GirderFilePath":     {"id": pattern(girderIDPattern)},
	"GirderItemPath":     {"id": pattern(girderIDPattern)},
	"GirderFolderPath":   {"id": pattern(girderIDPattern)},
	"GirderItemMetadata": {"id": pattern(girderIDPattern)},
	"GirderUploadItem":   {"item_id": pattern(girderIDPattern)},
	"GirderUploadFolder": {"folder_id": pattern(girderIDPattern)},
	"VolumePath":         {"path": pattern(`^[^/\x00]`)},
	"VolumeRef":          {"volume": notEmpty},
	"Connect":            {"parse": exactly("slicer")},
	"NamedInputPipe":     {"name": pattern(`^[^/\x00]`)},
	"NamedOutputPipe":    {"name": pattern(`^[^/\x00]`)},
	"ChunkedStream":      {"url": pattern(`^[hH][tT][tT][pP][sS]?://`)},
	"GirderJob":          {"token": notEmpty},
	"GirderJobInfo":      {"method": exactly("PUT")},
	"Schedule":           {"eta": orNull, "expires": orNull},
	"Entry":              counts("attempt", "offer", "crashes", "failures"),
	"Note":               counts("attempt", "seq"),
	"LogChunk":           counts("attempt", "seq"),
	"Step":               counts("attempt"),
	"DeadLetter":         counts("submission"),
	"Submitted":          counts("submission"),
}

// addRules narrows the fields of a definition. The version of a message is the
// one that this package writes.
func addRules(name string, definition *jsonschema.Schema) {
	if definition.Properties == nil {
		return
	}
	if version, ok := definition.Properties.Get("version"); ok && version.Type == "integer" {
		version.Const = contracts.Version
	}
	for field, narrow := range rules[name] {
		schema, ok := definition.Properties.Get(field)
		if !ok {
			panic("no field " + name + "." + field)
		}
		narrow(schema)
	}
}

func notEmpty(field *jsonschema.Schema) {
	one := uint64(1)
	field.MinLength = &one
}

func pattern(expression string) rule {
	return func(field *jsonschema.Schema) { field.Pattern = expression }
}

func exactly(value string) rule {
	return func(field *jsonschema.Schema) { field.Const = value }
}

func atLeast(least int) rule {
	return func(field *jsonschema.Schema) { field.Minimum = number(least) }
}

func between(least, most int) rule {
	return func(field *jsonschema.Schema) { field.Minimum, field.Maximum = number(least), number(most) }
}

func counts(fields ...string) map[string]rule {
	set := map[string]rule{}
	for _, field := range fields {
		set[field] = atLeast(0)
	}
	return set
}

func labels(field *jsonschema.Schema) {
	one, name, value := uint64(1), uint64(128), uint64(1024)
	field.PropertyNames = &jsonschema.Schema{MinLength: &one, MaxLength: &name}
	field.AdditionalProperties.MaxLength = &value
}

func orNull(field *jsonschema.Schema) {
	field.Type, field.OneOf = "", []*jsonschema.Schema{{Type: "string"}, {Type: "null"}}
}

func number(n int) json.Number {
	text, _ := json.Marshal(n) // a whole number always has a text
	return json.Number(text)
}

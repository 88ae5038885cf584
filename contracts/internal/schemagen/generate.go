package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/invopop/jsonschema"
)

const (
	module = "github.com/gantry-worker/gantry/contracts"
	baseID = "https://" + module + "/schema/"
)

// generate returns the schemas by file name; sources is the folder of package
// contracts, whose comments become descriptions.
func generate(sources string) (map[string][]byte, error) {
	comments := new(jsonschema.Reflector)
	if err := comments.AddGoComments(module, sources, jsonschema.WithFullComment()); err != nil {
		return nil, fmt.Errorf("read comments: %w", err)
	}
	g := &generator{comments: comments.CommentMap}
	schemas := map[string]*jsonschema.Schema{
		"task":        g.task(),
		"entry":       g.entry(),
		"note":        g.note(),
		"log":         g.lenient(contracts.LogChunk{}),
		"revoke":      g.lenient(contracts.Revoke{}),
		"step":        g.lenient(contracts.Step{}),
		"step_result": g.lenient(contracts.StepResult{}),
		"dead_letter": g.lenient(contracts.DeadLetter{}),
	}
	files := map[string][]byte{}
	for name, schema := range schemas {
		file := name + ".v1.json"
		schema.ID = jsonschema.ID(baseID + file)
		content, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", file, err)
		}
		files[file] = append(content, '\n')
	}
	return files, nil
}

type generator struct{ comments map[string]string }

// task is strict: a typo in a specification must not pass silently.
func (g *generator) task() *jsonschema.Schema {
	schema := g.reflect(contracts.Task{}, false)
	g.addTaskTypes(schema, false)
	return schema
}

func (g *generator) entry() *jsonschema.Schema {
	variants := make([]variant, len(entries))
	for i, data := range entries {
		variants[i] = variant{string(data.EntryType()), data}
	}
	schema := g.lenient(contracts.Entry{})
	g.addVariants(schema, variants)
	g.addTaskTypes(schema, true)
	return schema
}

func (g *generator) note() *jsonschema.Schema {
	schema := g.lenient(contracts.Note{})
	g.addVariants(schema, notes)
	return schema
}

// lenient reflects a message whose unknown fields are ignored, so that services
// of two versions work together.
func (g *generator) lenient(message any) *jsonschema.Schema { return g.reflect(message, true) }

func (g *generator) reflect(message any, additional bool) *jsonschema.Schema {
	reflector := &jsonschema.Reflector{
		Anonymous:                 true,
		ExpandedStruct:            true,
		AllowAdditionalProperties: additional,
		Mapper:                    mapType,
		LookupComment:             g.describe,
	}
	schema := reflector.Reflect(message)
	addRules(typeName(message), schema)
	for name, definition := range schema.Definitions {
		addRules(name, definition)
	}
	return schema
}

func mapType(t reflect.Type) *jsonschema.Schema {
	if schema, ok := values[t]; ok {
		return schema()
	}
	if t == reflect.TypeFor[jsontext.Value]() {
		return &jsonschema.Schema{}
	}
	return nil
}

// addVariants says that the field "data" of a message is what its "type" says.
func (g *generator) addVariants(schema *jsonschema.Schema, variants []variant) {
	kinds := &jsonschema.Schema{Type: "string"}
	data := &jsonschema.Schema{Type: "object", Description: "What a message of this type says beyond the envelope."}
	for _, v := range variants {
		name := g.define(schema, v.data, true)
		kinds.Enum = append(kinds.Enum, v.kind)
		then := properties("data", ref(name))
		if len(schema.Definitions[name].Required) > 0 {
			then.Required = []string{"data"}
		}
		schema.AllOf = append(schema.AllOf, &jsonschema.Schema{
			If:   properties("type", &jsonschema.Schema{Const: v.kind}),
			Then: then,
		})
	}
	schema.Properties.Set("type", kinds)
	schema.Properties.Set("data", data)
	schema.Required = slices.DeleteFunc(schema.Required, func(name string) bool { return name == "data" })
}

// addTaskTypes adds the types that stand in a task by the value of their field
// "type".
func (g *generator) addTaskTypes(schema *jsonschema.Schema, additional bool) {
	g.define(schema, contracts.Volume{}, additional)
	kinds := map[string]string{}
	choice := func(title string, members []string) {
		union := &jsonschema.Schema{Title: title}
		for _, name := range members {
			union.OneOf = append(union.OneOf, ref(name))
		}
		schema.Definitions[title] = union
	}
	var names []string
	for _, t := range transforms {
		name := g.define(schema, t, additional)
		kinds[name], names = string(t.TransformType()), append(names, name)
	}
	choice("Transform", names)
	names = nil
	for _, o := range outputs {
		name := g.define(schema, o, additional)
		kinds[name], names = string(o.OutputType()), append(names, name)
	}
	choice("Output", names)
	for _, member := range schema.Definitions["Output"].OneOf {
		member.Required = []string{"path"} // absent only where the upload ends a connect
	}
	names = nil
	for _, e := range endpoints {
		names = append(names, typeName(e))
	}
	choice("Endpoint", names)
	for name, kind := range kinds {
		addType(schema.Definitions[name], kind)
	}
}

// define adds the definition of a type, and of those it needs, to a schema.
func (g *generator) define(schema *jsonschema.Schema, value any, additional bool) string {
	name := typeName(value)
	own := g.reflect(value, additional)
	if schema.Definitions == nil {
		schema.Definitions = jsonschema.Definitions{}
	}
	maps.Copy(schema.Definitions, own.Definitions)
	own.Definitions, own.Version = nil, ""
	schema.Definitions[name] = own
	return name
}

func typeName(value any) string {
	t := reflect.TypeOf(value)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

// addType puts the field "type" in front of a definition's own fields.
func addType(definition *jsonschema.Schema, kind string) {
	fields := jsonschema.NewProperties()
	fields.Set("type", &jsonschema.Schema{Const: kind})
	for pair := definition.Properties.Oldest(); pair != nil; pair = pair.Next() {
		fields.Set(pair.Key, pair.Value)
	}
	definition.Properties = fields
	definition.Required = append([]string{"type"}, definition.Required...)
}

func properties(name string, schema *jsonschema.Schema) *jsonschema.Schema {
	fields := jsonschema.NewProperties()
	fields.Set(name, schema)
	return &jsonschema.Schema{Properties: fields}
}

var docLink = regexp.MustCompile(`\[\*?([A-Za-z][A-Za-z0-9.]*)\]`)

// describe returns the comment of a type or field; a field without one has the
// comment of its type.
func (g *generator) describe(t reflect.Type, field string) string {
	key := t.PkgPath() + "." + t.Name()
	if field == "" {
		return plain(g.comments[key])
	}
	if comment := g.comments[key+"."+field]; comment != "" {
		return plain(comment)
	}
	f, ok := t.FieldByName(field)
	if !ok || f.Type.PkgPath() != module {
		return ""
	}
	return plain(g.comments[f.Type.PkgPath()+"."+f.Type.Name()])
}

func plain(comment string) string {
	return docLink.ReplaceAllString(strings.ReplaceAll(comment, "\n", " "), "$1")
}

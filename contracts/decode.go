package contracts

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxTaskSize is the largest task specification on the wire, in bytes.
const MaxTaskSize = 512 << 10

// DecodeTask reads a task specification and checks all of it. Unknown fields,
// doubled names and values of a wrong type are refused. The error is an
// [*InvalidTaskError] whose problems name the fields; the task is returned
// beside it as far as it could be read, so that a caller can find its id.
func DecodeTask(data []byte) (*Task, error) {
	task, err := ReadTask(data)
	if err != nil {
		return task, err
	}
	return task, task.Validate()
}

// ReadTask reads a task specification without checking the values of its
// fields. Use it for a specification that was checked before.
func ReadTask(data []byte) (*Task, error) {
	task := new(Task)
	if len(data) > MaxTaskSize {
		return task, invalid(fieldError("", "the specification has %d bytes, allowed are %d", len(data), MaxTaskSize))
	}
	if err := json.Unmarshal(data, task, json.RejectUnknownMembers(true)); err != nil {
		return task, invalid(locate(err, ""))
	}
	return task, nil
}

// DecodeStrict reads a JSON object of which every field has to be known. The
// error is an [*InvalidTaskError] that names the field.
func DecodeStrict(data []byte, into any) error {
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return invalid(locate(err, ""))
	}
	return nil
}

// Encode writes the task as JSON, with its fields in a fixed order.
func (t *Task) Encode() ([]byte, error) {
	return json.Marshal(t, json.Deterministic(true))
}

func invalid(problems ...*FieldError) error {
	if len(problems) == 0 {
		return nil
	}
	return &InvalidTaskError{Problems: problems}
}

// locate turns a decoder's error into a FieldError whose path starts at prefix.
func locate(err error, prefix string) *FieldError {
	var field *FieldError
	if errors.As(err, &field) {
		return &FieldError{Path: join(prefix, field.Path), Message: field.Message}
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		path := join(prefix, dottedPath(semantic.JSONPointer))
		if errors.Is(err, json.ErrUnknownName) {
			return fieldError(path, "%s", unknownField(path))
		}
		return fieldError(path, "%s", wrongType(semantic))
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		path := join(prefix, dottedPath(syntactic.JSONPointer))
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return fieldError(path, "given twice")
		}
		return fieldError(path, "not JSON: %s (byte %d)", withoutPrefix(syntactic.Err), syntactic.ByteOffset)
	}
	return fieldError(prefix, "not JSON: %s", withoutPrefix(err))
}

func unknownField(path string) string {
	name, isOption := strings.CutPrefix(path, "docker.options.")
	switch {
	case isOption && foreignOptions[name]:
		return "no engine that Gantry runs on has this option"
	case isOption && elsewhere[name] != "":
		return "this is not an option here: write " + elsewhere[name]
	case isOption && fixedOptions[name]:
		return "this option cannot be set by a task"
	case isOption:
		return "unknown option"
	case reserved[path]:
		return "this field is reserved and not supported by this version of Gantry"
	default:
		return "unknown field"
	}
}

// elsewhere is where a task says what docker-py, or docker run, take as options.
var elsewhere = map[string]string{
	"image": "docker.image", "entrypoint": "docker.entrypoint", "command": "docker.args", "volumes": "docker.volumes",
	"remove": "docker.remove_container", "auto_remove": "docker.remove_container", "env": "docker.options.environment",
	"cpus": "docker.options.nano_cpus (1e9 for each)", "memory": "docker.options.mem_limit", "mem": "docker.options.mem_limit",
}

var reserved = nameSet("parent", "then", "group", "immutable", "retry_of", "concurrency_key", "env")

func wrongType(semantic *json.SemanticError) string {
	switch {
	case semantic.Err != nil:
		return withoutPrefix(semantic.Err)
	case semantic.GoType != nil:
		return fmt.Sprintf("%s found where %s is wanted", kindName(semantic.JSONKind), goKindName(semantic.GoType.Kind().String()))
	default:
		return "has a wrong type"
	}
}

func kindName(kind jsontext.Kind) string {
	switch kind {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{', '}':
		return "an object"
	case '[', ']':
		return "a list"
	default:
		return "something else"
	}
}

func goKindName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "string":
		return "a string"
	case kind == "bool":
		return "a boolean"
	case kind == "slice":
		return "a list"
	default:
		return "an object"
	}
}

func withoutPrefix(err error) string {
	text := err.Error()
	for _, prefix := range []string{"json: ", "jsontext: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// dottedPath writes a JSON pointer as a person would: docker.args[2].id.
func dottedPath(pointer jsontext.Pointer) string {
	var path string
	for token := range pointer.Tokens() {
		if token != "" && strings.Trim(token, "0123456789") == "" {
			path += "[" + token + "]"
			continue
		}
		path = join(path, token)
	}
	return path
}

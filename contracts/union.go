package contracts

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Arg is one element of docker.args: text (a string or a number), or a
// transform.
type Arg struct {
	// Text is the argument where Transform is nil.
	Text string
	// Transform is nil, or a pointer to one of the transform types.
	Transform Transform
}

// Endpoint is one end of a [Connect].
type Endpoint struct {
	// Transform is a pointer to a pipe, a standard stream, a Girder file stream
	// or a chunked stream.
	Transform Transform
	// Output is set instead where the stream goes into a Girder upload.
	Output OutputSpec
}

// Connects are the elements of docker.streams, each with its type "connect".
type Connects []Connect

// Output is one element of outputs.
type Output struct {
	OutputSpec
}

// OutputPath is the path of an output: a [VolumePath] with its type.
type OutputPath struct {
	VolumePath
}

// UnmarshalJSONFrom reads a string, a number or a transform.
func (a *Arg) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '"', '0':
		token, err := dec.ReadToken()
		a.Text = token.String()
		return err
	case '{':
		var err error
		a.Transform, err = decodeUnion(dec, decodeTransforms, "a transform")
		return err
	default:
		return skip(dec, "must be a string, a number or an object with a type")
	}
}

// MarshalJSONTo writes text as a string and a transform as an object.
func (a Arg) MarshalJSONTo(enc *jsontext.Encoder) error {
	if a.Transform == nil {
		return enc.WriteToken(jsontext.String(a.Text))
	}
	return encodeUnion(enc, string(a.Transform.TransformType()), a.Transform)
}

// UnmarshalJSONFrom reads one end of a connect.
func (e *Endpoint) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, path, err := readObject(dec)
	if err != nil {
		return err
	}
	known := typesOf(endpointTypes, TransformType(TypeGirderUploadItem), TransformType(TypeGirderUploadFolder))
	kind, err := typeOf(value, path, known)
	if err != nil {
		return err
	}
	if decode, ok := decodeOutputs[OutputType(kind)]; ok && OutputType(kind) != TypeGirderJobArtifact {
		e.Output, err = decode(value, path)
		return err
	}
	if !endpointTypes[TransformType(kind)] {
		return unknownType(kind, path, "an end of a connect", known)
	}
	e.Transform, err = decodeTransforms[TransformType(kind)](value, path)
	return err
}

// endpointTypes are the transforms that may be an end of a connect, besides the
// uploads. A connect is none, so a specification cannot nest without end.
var endpointTypes = map[TransformType]bool{
	TypeGirderFileStream: true,
	TypeNamedInputPipe:   true,
	TypeNamedOutputPipe:  true,
	TypeChunkedStream:    true,
	TypeHostStdout:       true,
	TypeHostStderr:       true,
	TypeContainerStdout:  true,
	TypeContainerStderr:  true,
}

// MarshalJSONTo writes the end as an object with its type.
func (e Endpoint) MarshalJSONTo(enc *jsontext.Encoder) error {
	if e.Output != nil {
		return encodeUnion(enc, string(e.Output.OutputType()), e.Output)
	}
	if e.Transform == nil {
		return errors.New("an end of a connect has no transform")
	}
	return encodeUnion(enc, string(e.Transform.TransformType()), e.Transform)
}

// UnmarshalJSONFrom reads a list of objects of the type "connect".
func (c *Connects) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var streams []connectOnly
	if err := json.UnmarshalDecode(dec, &streams); err != nil {
		return err
	}
	*c = make(Connects, len(streams))
	for i := range streams {
		(*c)[i] = streams[i].Connect
	}
	return nil
}

// MarshalJSONTo writes each connect as an object with its type.
func (c Connects) MarshalJSONTo(enc *jsontext.Encoder) error {
	streams := make([]connectOnly, len(c))
	for i := range c {
		streams[i].Connect = c[i]
	}
	return json.MarshalEncode(enc, streams)
}

// connectOnly is a transform that is a connect.
type connectOnly struct {
	Connect Connect
}

func (c *connectOnly) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	only := map[TransformType]unionDecoder[Transform]{TypeConnect: decodeTransforms[TypeConnect]}
	transform, err := decodeUnion(dec, only, "a stream")
	if err != nil {
		return err
	}
	c.Connect = *transform.(*Connect)
	return nil
}

func (c connectOnly) MarshalJSONTo(enc *jsontext.Encoder) error {
	return encodeUnion(enc, string(TypeConnect), &c.Connect)
}

// UnmarshalJSONFrom reads an output by its type.
func (o *Output) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var err error
	o.OutputSpec, err = decodeUnion(dec, decodeOutputs, "an output")
	return err
}

// MarshalJSONTo writes the output as an object with its type.
func (o Output) MarshalJSONTo(enc *jsontext.Encoder) error {
	if o.OutputSpec == nil {
		return errors.New("an output is empty")
	}
	return encodeUnion(enc, string(o.OutputType()), o.OutputSpec)
}

// UnmarshalJSONFrom reads a volume_path.
func (p *OutputPath) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	only := map[TransformType]unionDecoder[Transform]{TypeVolumePath: decodeTransforms[TypeVolumePath]}
	transform, err := decodeUnion(dec, only, "an output's path")
	if err != nil {
		return err
	}
	p.VolumePath = *transform.(*VolumePath)
	return nil
}

// MarshalJSONTo writes the path as a volume_path.
func (p OutputPath) MarshalJSONTo(enc *jsontext.Encoder) error {
	return encodeUnion(enc, string(TypeVolumePath), &p.VolumePath)
}

// A unionDecoder reads an object whose type is known; path is where it stands.
type unionDecoder[I any] func(value jsontext.Value, path string) (I, error)

// typed puts the field "type" in front of a type's own fields.
type typed[T any] struct {
	Type string `json:"type"`
	Body T      `json:",embed"`
}

func as[I, T any](value jsontext.Value, path string) (I, error) {
	var (
		object typed[T]
		none   I
	)
	if err := json.Unmarshal(value, &object, json.RejectUnknownMembers(true)); err != nil {
		return none, locate(err, path)
	}
	return any(&object.Body).(I), nil
}

// decodeConnect reads a connect, which has both ends.
func decodeConnect(value jsontext.Value, path string) (Transform, error) {
	transform, err := as[Transform, Connect](value, path)
	if err != nil {
		return nil, err
	}
	c := transform.(*Connect)
	for name, end := range map[string]Endpoint{"input": c.Input, "output": c.Output} {
		if end.Transform == nil && end.Output == nil {
			return nil, fieldError(join(path, name), "missing")
		}
	}
	return c, nil
}

func decodeUnion[K ~string, I any](dec *jsontext.Decoder, decoders map[K]unionDecoder[I], what string) (I, error) {
	var none I
	value, path, err := readObject(dec)
	if err != nil {
		return none, err
	}
	known := typesOf(decoders)
	kind, err := typeOf(value, path, known)
	if err != nil {
		return none, err
	}
	decode, ok := decoders[K(kind)]
	if !ok {
		return none, unknownType(kind, path, what, known)
	}
	return decode(value, path)
}

func encodeUnion(enc *jsontext.Encoder, kind string, body any) error {
	value, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		return err
	}
	head := append([]byte(`{"type":`), mustQuote(kind)...)
	if len(value) > len("{}") {
		head = append(head, ',')
	}
	return enc.WriteValue(append(head, value[1:]...))
}

func mustQuote(s string) []byte {
	quoted, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		panic(err) // s is one of our own constants
	}
	return quoted
}

func readObject(dec *jsontext.Decoder) (jsontext.Value, string, error) {
	if dec.PeekKind() != '{' {
		return nil, "", skip(dec, "must be an object with a type")
	}
	value, err := dec.ReadValue()
	if err != nil {
		return nil, "", err
	}
	return value.Clone(), dottedPath(dec.StackPointer()), nil
}

// skip reads the value that the decoder stands before, as a decoder must, and
// says what it should have been.
func skip(dec *jsontext.Decoder, message string) error {
	if err := dec.SkipValue(); err != nil {
		return err
	}
	return fieldError(dottedPath(dec.StackPointer()), "%s", message)
}

func typeOf(value jsontext.Value, path, known string) (string, error) {
	var head struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return "", locate(err, path)
	}
	if head.Type == nil {
		return "", fieldError(join(path, "type"), "missing; known are %s", known)
	}
	return *head.Type, nil
}

func unknownType(kind, path, what, known string) error {
	return fieldError(join(path, "type"), "%q is not the type of %s; known are %s", kind, what, known)
}

// typesOf lists types for people.
func typesOf[K ~string, D any](decoders map[K]D, more ...K) string {
	names := slices.Collect(maps.Keys(decoders))
	var list strings.Builder
	for i, name := range slices.Sorted(slices.Values(append(names, more...))) {
		if i > 0 {
			list.WriteString(", ")
		}
		list.WriteString(string(name))
	}
	return list.String()
}

func join(path, name string) string {
	switch {
	case path == "":
		return name
	case name == "" || strings.HasPrefix(name, "["):
		return path + name
	default:
		return fmt.Sprintf("%s.%s", path, name)
	}
}

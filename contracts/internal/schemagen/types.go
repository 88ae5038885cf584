package main

import (
	"reflect"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/invopop/jsonschema"
)

const (
	jobIDPattern    = `^[A-Za-z0-9_-]{1,64}$`
	namePattern     = `^[a-z0-9_-]{1,32}$`
	kindPattern     = `^(docker|plugin-[a-z0-9_-]{1,32})$`
	girderIDPattern = `^[0-9a-f]{24}$`
	durationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	sizePattern     = `^[0-9]+(\.[0-9]+)? ?([bB]|[kKmMgGtTpP]([iI]?[bB])?)?$`
	bindPattern     = `^[^:]+:[^:]+(:[^:]*)?$`
	variablePattern = `^[^=\x00]+$`
)

var transforms = []contracts.Transform{
	&contracts.GirderFile{}, &contracts.GirderItem{}, &contracts.GirderFolder{}, &contracts.GirderFileStream{},
	&contracts.VolumePath{}, &contracts.VolumeRef{}, &contracts.TemporaryVolume{},
	&contracts.NamedInputPipe{}, &contracts.NamedOutputPipe{}, &contracts.Connect{}, &contracts.ChunkedStream{},
	&contracts.HostStdout{}, &contracts.HostStderr{}, &contracts.ContainerStdout{}, &contracts.ContainerStderr{},
	&contracts.ProgressPipe{}, &contracts.GirderAPIURL{}, &contracts.GirderToken{},
	&contracts.GirderFilePath{}, &contracts.GirderItemPath{}, &contracts.GirderFolderPath{},
	&contracts.GirderItemMetadata{}, &contracts.TemporaryDirectory{},
}

var outputs = []contracts.OutputSpec{
	&contracts.GirderUploadItem{}, &contracts.GirderUploadFolder{}, &contracts.GirderJobArtifact{},
}

// endpoints are what a connect joins.
var endpoints = []any{
	&contracts.GirderFileStream{}, &contracts.NamedInputPipe{}, &contracts.NamedOutputPipe{}, &contracts.ChunkedStream{},
	&contracts.HostStdout{}, &contracts.HostStderr{}, &contracts.ContainerStdout{}, &contracts.ContainerStderr{},
	&contracts.GirderUploadItem{}, &contracts.GirderUploadFolder{},
}

var entries = []contracts.EntryData{
	&contracts.Submitted{}, &contracts.Queued{}, &contracts.Claimed{}, &contracts.Adopted{}, &contracts.Released{},
	&contracts.Started{}, &contracts.Canceling{}, &contracts.Pushing{}, &contracts.Pushed{},
	&contracts.Succeeded{}, &contracts.Failed{}, &contracts.Canceled{},
}

// notes has the data of each type of note.
var notes = []variant{
	{string(contracts.NoteProgress), contracts.Progress{}},
	{string(contracts.NotePhase), contracts.Phase{}},
	{string(contracts.NoteTransfer), contracts.TransferNote{}},
}

// A variant is the data that a message carries whose field "type" has a value.
type variant struct {
	kind string
	data any
}

// values has the schemas of types that are no plain Go value on the wire.
var values = map[reflect.Type]func() *jsonschema.Schema{
	reflect.TypeFor[contracts.JobID]():      text(jobIDPattern),
	reflect.TypeFor[contracts.Queue]():      text(namePattern),
	reflect.TypeFor[contracts.NodeID]():     text(namePattern),
	reflect.TypeFor[contracts.ExecutorID](): text(namePattern),
	reflect.TypeFor[contracts.Kind]():       text(kindPattern),
	reflect.TypeFor[contracts.Duration]():   text(durationPattern),

	reflect.TypeFor[contracts.Lane]():         enum(contracts.LaneHigh, contracts.LaneNormal, contracts.LaneLow),
	reflect.TypeFor[contracts.PullPolicy]():   enum(contracts.PullAlways, contracts.PullMissing, contracts.PullNever),
	reflect.TypeFor[contracts.VolumeType]():   enum(contracts.VolumeBindMount, contracts.VolumeTemporary),
	reflect.TypeFor[contracts.QueuedReason](): enum(contracts.QueuedSubmit, contracts.QueuedRetry),
	reflect.TypeFor[contracts.FailureKind](): enum(contracts.FailureTask, contracts.FailureInfrastructure,
		contracts.FailureTimeout, contracts.FailureExpired, contracts.FailureRejected),
	reflect.TypeFor[contracts.PhaseName](): enum(contracts.PhasePulling, contracts.PhaseFetchingInput,
		contracts.PhaseRunning, contracts.PhasePushingOutput),
	reflect.TypeFor[contracts.LogStream](): enum(contracts.LogStdout, contracts.LogStderr),
	reflect.TypeFor[contracts.StepKind](): enum(contracts.StepStageIn, contracts.StepStageOut, contracts.StepStream,
		contracts.StepFinish, contracts.StepHold),
	reflect.TypeFor[contracts.PipeEnd](): enum(contracts.PipeRead, contracts.PipeWrite),
	reflect.TypeFor[contracts.StepOutcome](): enum(contracts.StepDone, contracts.StepFailure,
		contracts.StepInfrastructure, contracts.StepAborted),

	reflect.TypeFor[contracts.ByteSize](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "number", Minimum: "0"}, text(sizePattern)())
	},
	reflect.TypeFor[contracts.SwapSize](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "number", Minimum: "-1"}, text(sizePattern)())
	},
	reflect.TypeFor[contracts.Verify](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "boolean"}, nonEmpty(), &jsonschema.Schema{Type: "null"})
	},
	reflect.TypeFor[contracts.ClientCert](): func() *jsonschema.Schema {
		one, two := uint64(1), uint64(2)
		both := list(nonEmpty())
		both.MinItems, both.MaxItems = &one, &two
		return oneOf(nonEmpty(), both, &jsonschema.Schema{Type: "null"})
	},
	reflect.TypeFor[contracts.Text](): textOrNumber,
	reflect.TypeFor[contracts.Names](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "string"}, list(&jsonschema.Schema{Type: "string"}))
	},
	reflect.TypeFor[contracts.NamePairs](): func() *jsonschema.Schema {
		pair := list(&jsonschema.Schema{Type: "string"})
		return oneOf(object(&jsonschema.Schema{Type: "string"}), list(oneOf(&jsonschema.Schema{Type: "string"}, pair)))
	},
	reflect.TypeFor[contracts.MountPoints](): func() *jsonschema.Schema {
		return oneOf(object(&jsonschema.Schema{Type: "string"}), list(&jsonschema.Schema{Type: "string"}))
	},
	reflect.TypeFor[contracts.HealthTest](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "string"}, list(&jsonschema.Schema{Type: "string"}))
	},
	reflect.TypeFor[contracts.Device](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "string"}, &jsonschema.Schema{Type: "object"})
	},
	reflect.TypeFor[contracts.PortBindings](): func() *jsonschema.Schema {
		binding := func() *jsonschema.Schema {
			return oneOf(&jsonschema.Schema{Type: "null"}, textOrNumber(), &jsonschema.Schema{Type: "object"})
		}
		return object(oneOf(binding(), list(binding())))
	},
	reflect.TypeFor[contracts.Command](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "string"}, list(&jsonschema.Schema{Type: "string"}))
	},
	reflect.TypeFor[contracts.StringMap](): func() *jsonschema.Schema {
		return oneOf(object(&jsonschema.Schema{Type: "string"}), list(&jsonschema.Schema{Type: "string"}))
	},
	reflect.TypeFor[contracts.Environment](): func() *jsonschema.Schema {
		variables := object(textOrNumber())
		variables.PropertyNames = &jsonschema.Schema{Pattern: variablePattern}
		return oneOf(variables, list(text(`^[^=\x00]+(=|$)`)()))
	},
	reflect.TypeFor[contracts.Volumes](): func() *jsonschema.Schema {
		bind := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), Required: []string{"bind"}, AdditionalProperties: jsonschema.FalseSchema}
		bind.Properties.Set("bind", &jsonschema.Schema{Type: "string"})
		bind.Properties.Set("mode", &jsonschema.Schema{Type: "string"})
		return oneOf(
			list(oneOf(ref("Volume"), text(bindPattern)())),
			object(oneOf(bind, &jsonschema.Schema{Type: "string"})),
		)
	},
	reflect.TypeFor[contracts.Arg](): func() *jsonschema.Schema {
		return oneOf(&jsonschema.Schema{Type: "string"}, &jsonschema.Schema{Type: "number"}, ref("Transform"))
	},
	reflect.TypeFor[contracts.Endpoint]():   func() *jsonschema.Schema { return ref("Endpoint") },
	reflect.TypeFor[contracts.Output]():     func() *jsonschema.Schema { return ref("Output") },
	reflect.TypeFor[contracts.OutputPath](): func() *jsonschema.Schema { return ref("VolumePath") },
	reflect.TypeFor[contracts.Connects]():   func() *jsonschema.Schema { return list(ref("Connect")) },
}

func text(pattern string) func() *jsonschema.Schema {
	return func() *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: pattern} }
}

func enum[T ~string](allowed ...T) func() *jsonschema.Schema {
	return func() *jsonschema.Schema {
		schema := &jsonschema.Schema{Type: "string"}
		for _, value := range allowed {
			schema.Enum = append(schema.Enum, string(value))
		}
		return schema
	}
}

func nonEmpty() *jsonschema.Schema {
	one := uint64(1)
	return &jsonschema.Schema{Type: "string", MinLength: &one}
}

func textOrNumber() *jsonschema.Schema {
	return oneOf(&jsonschema.Schema{Type: "string"}, &jsonschema.Schema{Type: "number"})
}

func oneOf(schemas ...*jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: schemas}
}

func list(items *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "array", Items: items}
}

func object(values *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", AdditionalProperties: values}
}

func ref(definition string) *jsonschema.Schema {
	return &jsonschema.Schema{Ref: "#/$defs/" + definition}
}

package contracts

import (
	"errors"
	"fmt"
	"strings"
)

// FieldError is one thing that is wrong with a task specification. Path names
// the field as a person would write it: docker.args[2].id.
type FieldError struct {
	Path    string
	Message string
}

func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return e.Path + ": " + e.Message
}

// InvalidTaskError says everything that is wrong with a task specification.
type InvalidTaskError struct {
	Problems []*FieldError
}

func (e *InvalidTaskError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "; ")
}

// ErrUnknownEntry is returned by [DecodeEntry] for an entry of a type that
// this version does not know, as a newer service may write.
var ErrUnknownEntry = errors.New("unknown entry type")

// ErrIllegalEntry is returned by [CheckNext] for an entry that may not follow
// the last one.
var ErrIllegalEntry = errors.New("entry may not follow")

func fieldError(path, format string, args ...any) *FieldError {
	return &FieldError{Path: path, Message: fmt.Sprintf(format, args...)}
}

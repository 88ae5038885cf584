package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Option is the option's flag without dashes in front, as in "nats-url";
	// empty where the problem is not one option's.
	Option string
	// Text says what would be right and what was found.
	Text string
}

func (p *Problem) Error() string {
	if p.Option == "" {
		return p.Text
	}
	return "--" + p.Option + ": " + p.Text
}

// Invalid returns a Problem with the option of that name, for use in Validate.
func Invalid(option, format string, args ...any) error {
	return &Problem{Option: option, Text: fmt.Sprintf(format, args...)}
}

// Error lists everything that is wrong with a program's configuration.
type Error struct {
	Program  string
	Problems []error
}

func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		lines = append(lines, p.Error())
	}
	if len(lines) == 1 {
		return e.Program + ": " + lines[0]
	}
	return e.Program + ": the configuration has " + fmt.Sprint(len(lines)) + " problems:\n  " + strings.Join(lines, "\n  ")
}

// Unwrap returns the problems.
func (e *Error) Unwrap() []error { return e.Problems }

// Validate calls the method Validate of cfg and of the structs embedded in it,
// and joins what they report. Parse does so by itself; it is exported for
// services that are started in-process.
func Validate(cfg any) error {
	problems := validate(reflect.Indirect(reflect.ValueOf(cfg)), "")
	return errors.Join(distinct(problems)...)
}

type validator interface{ Validate() error }

func validate(v reflect.Value, prefix string) []error {
	var problems []error
	for i := range v.NumField() {
		field := v.Type().Field(i)
		_, embedded := field.Tag.Lookup("embed")
		if field.IsExported() && field.Type.Kind() == reflect.Struct && (embedded || field.Anonymous) {
			problems = append(problems, validate(v.Field(i), prefix+field.Tag.Get("prefix"))...)
		}
	}
	if v.CanAddr() {
		v = v.Addr()
	}
	if own, ok := v.Interface().(validator); ok {
		problems = append(problems, withPrefix(flatten(own.Validate()), prefix)...)
	}
	return problems
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

func withPrefix(problems []error, prefix string) []error {
	for i, err := range problems {
		var p *Problem
		if errors.As(err, &p) && p.Option != "" {
			problems[i] = &Problem{Option: prefix + p.Option, Text: p.Text}
		}
	}
	return problems
}

// distinct drops repetitions: a struct without a Validate of its own has that
// of the struct embedded in it, which was called already.
func distinct(problems []error) []error {
	seen := map[string]bool{}
	return slices.DeleteFunc(problems, func(err error) bool {
		known := seen[err.Error()]
		seen[err.Error()] = true
		return known
	})
}

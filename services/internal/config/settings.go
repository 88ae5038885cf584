package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

// masked stands in printed settings for a secret that is set.
const masked = "***"

// A Setting is the effective value of one option.
type Setting struct {
	Key    string // as in the YAML file
	Value  any    // masked where the option is secret
	Origin string // what the operator typed, or "default"
}

// Settings are the options of a program, in the order of its help text.
type Settings []Setting

// String returns the settings as a YAML file that says where each is from.
func (s Settings) String() string {
	var b strings.Builder
	for _, setting := range s {
		value, err := yaml.MarshalWithOptions(setting.Value, yaml.Flow(true))
		if err != nil {
			value = fmt.Append(nil, setting.Value)
		}
		fmt.Fprintf(&b, "%s: %s # %s\n", setting.Key, strings.TrimSpace(string(value)), setting.Origin)
	}
	return b.String()
}

// Map returns the values by key, for a log line.
func (s Settings) Map() map[string]any {
	values := make(map[string]any, len(s))
	for _, setting := range s {
		values[setting.Key] = setting.Value
	}
	return values
}

func (s *sources) settings(flags []*kong.Flag) Settings {
	var all Settings
	for _, flag := range flags {
		if isBuiltin(flag) {
			continue
		}
		origin := s.origin[flag.Name]
		if origin == "" {
			origin = "default"
		}
		key := strings.ReplaceAll(flag.Name, "-", "_")
		all = append(all, Setting{Key: key, Value: printable(flag), Origin: origin})
	}
	return all
}

// printable returns a flag's value without its secrets: all of it where the
// option is tagged secret, and the password of a URL anywhere.
func printable(flag *kong.Flag) any {
	value := flag.Target
	if isSecret(flag) && !value.IsZero() {
		return masked
	}
	switch v := value.Interface().(type) {
	case fmt.Stringer: // durations, levels: as they are written
		return v.String()
	case []string:
		words := make([]string, len(v))
		for i, word := range v {
			words[i] = withoutPassword(word)
		}
		return words
	}
	if value.Kind() == reflect.String {
		return withoutPassword(value.String())
	}
	return value.Interface()
}

// credentials matches the part of a URL, or of user:password@host, before the
// host. A lone name there is how NATS takes a token, so it is secret as well.
var credentials = regexp.MustCompile(`//[^/\s,]+@|(^|,)[^/\s,:]+:[^/\s,]+@`)

func withoutPassword(text string) string {
	return credentials.ReplaceAllStringFunc(text, func(match string) string {
		for _, start := range []string{"//", ","} {
			if strings.HasPrefix(match, start) {
				return start + masked + "@"
			}
		}
		return masked + "@"
	})
}

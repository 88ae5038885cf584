package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

// sources looks up what is no flag: in the environment, then in the file. It
// keeps where each value came from, to name it so when something is wrong.
type sources struct {
	getenv   func(string) string
	file     map[string]any    // by flag name
	keys     map[string]string // flag name to the key as it stands in the file
	origin   map[string]string // flag name to what the operator typed
	problems []error
}

func newSources(getenv func(string) string) *sources {
	return &sources{
		getenv: getenv,
		file:   map[string]any{},
		keys:   map[string]string{},
		origin: map[string]string{},
	}
}

func envName(flag string) string {
	return "GANTRY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (s *sources) env(flag string) string { return s.getenv(envName(flag)) }

// readFile reads the YAML file at path; its keys must name flags.
func (s *sources) readFile(path string, flags []*kong.Flag) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	known := map[string]*kong.Flag{}
	for _, flag := range flags {
		if !isBuiltin(flag) {
			known[flag.Name] = flag
		}
	}
	s.collect(filepath.Base(path), "", tree, known)
	return nil
}

// collect files the leaves of a part of the file's tree under their flags.
func (s *sources) collect(file, parent string, tree map[string]any, known map[string]*kong.Flag) {
	names := make([]string, 0, len(tree))
	for name := range tree {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		key := parent + name
		flag := strings.NewReplacer(".", "-", "_", "-").Replace(key)
		branch, isBranch := tree[name].(map[string]any)
		switch {
		case known[flag] != nil && s.keys[flag] != "":
			s.problems = append(s.problems, fmt.Errorf("%s in %s is given twice, also as %s", key, file, s.keys[flag]))
		case known[flag] != nil && !strings.Contains(name, "-"):
			s.keys[flag] = key + " in " + file
			if tree[name] != nil {
				s.file[flag] = tree[name]
			}
		case isBranch && isPrefix(flag, known):
			s.collect(file, key+".", branch, known)
		default:
			s.problems = append(s.problems, fmt.Errorf("%s in %s: there is no such option%s", key, file, suggest(flag, known)))
		}
	}
}

func isPrefix(name string, known map[string]*kong.Flag) bool {
	for flag := range known {
		if strings.HasPrefix(flag, name+"-") {
			return true
		}
	}
	return false
}

// suggest names the option that was probably meant: the one that contains, or
// is contained in, what was written, or that starts like it.
func suggest(name string, known map[string]*kong.Flag) string {
	best, length := "", 2
	for flag := range known {
		if n := commonPrefix(flag, name); n > length || n == length && flag < best {
			best, length = flag, n
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + strings.ReplaceAll(best, "-", "_") + "?"
}

func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// Validate is there for kong.Resolver: unknown keys are found when the file is read.
func (s *sources) Validate(*kong.Application) error { return nil }

// Resolve returns the value of an option that no flag gave. One that cannot be
// read is noted and left out, so that all of them are reported together.
func (s *sources) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if isBuiltin(flag) {
		return nil, nil
	}
	value, origin := s.lookup(flag)
	if value == nil {
		return nil, nil
	}
	s.origin[flag.Name] = origin
	if err := check(flag, value); err != nil {
		s.problems = append(s.problems, fmt.Errorf("%s: %w", origin, err))
		return nil, nil
	}
	return value, nil
}

func (s *sources) lookup(flag *kong.Flag) (value any, origin string) {
	if text := s.env(flag.Name); text != "" {
		return text, envName(flag.Name)
	}
	if raw, ok := s.file[flag.Name]; ok {
		return asText(flag, raw), s.keys[flag.Name]
	}
	return nil, ""
}

// check reads value as the option's type, without setting the option.
func check(flag *kong.Flag, value any) error {
	target := reflect.New(flag.Target.Type()).Elem()
	scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
	err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, target)
	if err != nil && isSecret(flag) {
		return fmt.Errorf("is no valid %s", target.Type())
	}
	if err != nil {
		return err
	}
	if flag.Enum != "" && !flag.IsCumulative() && !flag.EnumMap()[fmt.Sprint(target)] {
		return fmt.Errorf("must be one of %s, is %q", strings.Join(flag.EnumSlice(), ", "), fmt.Sprint(target))
	}
	return nil
}

// asText writes a value of the file as it would be written after a flag, which
// is what the options' own readers understand.
func asText(flag *kong.Flag, raw any) any {
	switch raw := raw.(type) {
	case map[string]any:
		pairs := make([]string, 0, len(raw))
		for key, value := range raw {
			pairs = append(pairs, key+"="+fmt.Sprint(value))
		}
		slices.Sort(pairs)
		return kong.JoinEscaped(pairs, flag.Tag.MapSep)
	case []any:
		if len(raw) == 0 || flag.Tag.Sep == -1 {
			return raw
		}
		words := make([]string, 0, len(raw))
		for _, value := range raw {
			words = append(words, fmt.Sprint(value))
		}
		return kong.JoinEscaped(words, flag.Tag.Sep)
	default:
		return fmt.Sprint(raw)
	}
}

// report makes one Error of what was noted so far and of err, each with the
// name that the operator typed.
func (s *sources) report(program string, err error) error {
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		err = parse.Unwrap()
	}
	problems := append(s.problems, flatten(err)...)
	if len(problems) == 0 {
		return nil
	}
	for i, problem := range problems {
		var p *Problem
		if errors.As(problem, &p) && s.origin[p.Option] != "" {
			problems[i] = fmt.Errorf("%s: %s", s.origin[p.Option], p.Text)
		}
	}
	return &Error{Program: program, Problems: problems}
}

func isBuiltin(flag *kong.Flag) bool {
	return slices.Contains([]string{"help", "config", "version", "print-config"}, flag.Name)
}

func isSecret(flag *kong.Flag) bool { return flag.Tag.Has("secret") }

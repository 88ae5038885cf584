package policy

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

// pattern is an image pattern, in which * stands for anything, / included.
type pattern struct{ *regexp.Regexp }

func newPattern(text string) pattern {
	parts := strings.Split(text, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return pattern{regexp.MustCompile(`\A(?s:` + strings.Join(parts, ".*") + `)\z`)}
}

// Image returns nil if a task may use this image, else a *Refusal. A pattern is
// compared with the short name and the full one: "busybox:1" is also
// "docker.io/library/busybox:1", and "busybox" is "busybox:latest".
func (p *Policy) Image(ref string) error {
	if len(p.images) == 0 {
		return nil
	}
	refuse := func(reason string) error {
		return &Refusal{What: fmt.Sprintf("image %q", ref), Reason: reason, Setting: SettingImages, Value: ref}
	}
	if isID(ref) {
		return refuse("it is an image ID, which shows not where it is from, and this node allows only some images")
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return &Refusal{What: fmt.Sprintf("image %q", ref), Reason: err.Error()}
	}
	named = reference.TagNameOnly(named)
	for _, pat := range p.images {
		if pat.MatchString(reference.FamiliarString(named)) || pat.MatchString(named.String()) {
			return nil
		}
	}
	return refuse("this node allows only some images")
}

var hexadecimal = regexp.MustCompile(`\A[0-9a-f]+\z`)

// isID reports whether the engine could take ref for the ID of an image, or the
// beginning of one.
func isID(ref string) bool {
	return strings.HasPrefix(ref, "sha256:") || hexadecimal.MatchString(ref)
}

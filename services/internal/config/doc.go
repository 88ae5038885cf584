// Package config fills a service's configuration struct from where an operator
// may have written it: flags, then environment, then one YAML file, then the
// defaults in the struct's tags.
//
// One option has one name in four spellings. A field URL in a struct embedded
// with prefix:"nats-" is --nats-url as a flag, GANTRY_NATS_URL in the
// environment, and nats_url or
//
//	nats:
//	  url: nats://127.0.0.1:4222
//
// in the file that --config or GANTRY_CONFIG names. An empty environment
// variable counts as unset, so that compose files can pass optional ones on. A
// key that no option has is refused.
//
// A configuration struct is a plain one with kong's tags (help, default, enum,
// placeholder, embed, prefix); the tag secret:"" masks a value wherever it is
// printed. Its method Validate, if it has one, reports every problem at once:
//
//	func (c Config) Validate() error {
//		var problems []error
//		if c.Slots < 1 {
//			problems = append(problems, config.Invalid("slots", "must be 1 or more, is %d", c.Slots))
//		}
//		return errors.Join(problems...)
//	}
//
// Structs embedded in it are validated the same way, without being called by
// the outer Validate; the names in their problems stand without the prefix.
// What is wrong is then reported with the spelling that the operator used.
package config

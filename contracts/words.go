package contracts

import "github.com/mattn/go-shellwords"

func splitWords(line string) ([]string, error) {
	parser := shellwords.NewParser()
	parser.ParseEnv, parser.ParseBacktick = false, false
	return parser.Parse(line)
}

package fake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// The steps of a script, one per argument, "verb:rest". TEXT may have \n, \r,
// \t, \\ and \0ooo (a byte in octal).
//
//	out:TEXT, err:TEXT   write to a stream
//	fill:N:C             write the character C N times
//	lines:N:W            write N lines of W bytes, each its number from 0 on
//	write:PATH:TEXT      write a file on a mount, or into a pipe there
//	cat:PATH             print a file or a pipe on a mount
//	env:NAME, pwd, id    print a variable, the working directory, uid:gid
//	net, memory          print the network interfaces, the memory limit
//	alloc:N              use N MiB of memory
//	await:PATH           wait until a file on a mount is there
//	trap:SIGNAL:N        from now on end with code N on this signal
//	die:SIGNAL           kill itself
//	hang                 wait for a signal
//	exit:N               end with code N
type process struct {
	c              *container
	stdout, stderr *lineWriter
	traps          map[string]int
	oom            bool
}

func newProcess(c *container) *process {
	return &process{
		c:      c,
		stdout: &lineWriter{c: c, stream: engine.Stdout},
		stderr: &lineWriter{c: c, stream: engine.Stderr},
		traps:  map[string]int{},
	}
}

const (
	goOn   = -1 // what a step returns that does not end the process
	killed = 128 + 9
)

var termination = map[string]int{"HUP": 129, "INT": 130, "QUIT": 131, "USR1": 138, "USR2": 140, "TERM": 143}

// run carries out the steps and returns the exit code.
func (p *process) run(steps []string) int {
	for _, step := range steps {
		verb, rest, _ := strings.Cut(step, ":")
		if code := p.pending(); code != goOn {
			return code
		}
		if code := p.step(verb, rest); code != goOn {
			return code
		}
	}
	if p.c.killed.Err() != nil {
		return killed
	}
	return 0
}

// pending handles the signals that came meanwhile.
func (p *process) pending() int {
	for {
		select {
		case <-p.c.killed.Done():
			return killed
		case name := <-p.c.signals:
			if code := p.handle(name); code != goOn {
				return code
			}
		default:
			return goOn
		}
	}
}

// handle is what one signal does: a trap, else its effect on a process, which
// the first process of a container without init does not feel.
func (p *process) handle(name string) int {
	short := strings.TrimPrefix(name, "SIG")
	if code, ok := p.traps[short]; ok {
		return code
	}
	if code, ok := termination[short]; ok && p.c.spec.Options.InitOrDefault() {
		return code
	}
	return goOn
}

func (p *process) step(verb, rest string) int {
	first, second, _ := strings.Cut(rest, ":")
	n, _ := strconv.Atoi(first)
	switch verb {
	case "out":
		p.write(engine.Stdout, unescape(rest))
	case "err":
		p.write(engine.Stderr, unescape(rest))
	case "fill":
		p.write(engine.Stdout, bytes.Repeat([]byte(second), n))
	case "lines":
		return p.lines(n, second)
	case "write":
		return p.writeFile(first, unescape(second))
	case "cat":
		return p.cat(rest)
	case "env":
		p.write(engine.Stdout, []byte(string(p.c.spec.Options.Environment[rest])+"\n"))
	case "pwd":
		p.write(engine.Stdout, []byte(orElse(p.c.spec.Options.WorkingDir, "/")+"\n"))
	case "id":
		p.write(engine.Stdout, []byte(identity(string(p.c.spec.Options.User))+"\n"))
	case "net":
		p.write(engine.Stdout, []byte("lo\n"))
	case "memory":
		p.write(engine.Stdout, fmt.Appendf(nil, "%d\n", p.c.spec.Options.MemLimit))
	case "alloc":
		if limit := int64(p.c.spec.Options.MemLimit); limit > 0 && int64(n)<<20 > limit {
			p.oom = true
			return killed
		}
	case "await":
		return p.await(rest)
	case "trap":
		p.traps[first], _ = strconv.Atoi(second)
	case "die":
		if rest == "KILL" {
			return killed
		}
		return p.handle(rest)
	case "hang":
		return p.hang(nil)
	case "exit":
		return n
	default:
		p.write(engine.Stderr, []byte("unknown step: "+verb+"\n"))
		return 64
	}
	return goOn
}

func (p *process) write(s engine.Stream, data []byte) {
	if s == engine.Stderr {
		p.stderr.write(data)
		return
	}
	p.stdout.write(data)
}

func (p *process) lines(n int, width string) int {
	w, _ := strconv.Atoi(width)
	for i := range n {
		p.write(engine.Stdout, fmt.Appendf(nil, "%0*d\n", w-1, i))
		if code := p.pending(); code != goOn {
			return code
		}
	}
	return goOn
}

// hang handles signals until one ends the process, or again says so.
func (p *process) hang(again <-chan time.Time) int {
	for {
		select {
		case <-p.c.killed.Done():
			return killed
		case name := <-p.c.signals:
			if code := p.handle(name); code != goOn {
				return code
			}
		case <-again:
			return goOn
		}
	}
}

func (p *process) await(file string) int {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if host, _, ok := p.hostPath(file); ok {
			if _, err := os.Stat(host); err == nil {
				return goOn
			}
		}
		if code := p.hang(poll.C); code != goOn {
			return code
		}
	}
}

func (p *process) writeFile(file string, data []byte) int {
	host, readOnly, ok := p.hostPath(file)
	if !ok || readOnly {
		return p.complain("cannot create " + file)
	}
	f, err := p.open(host, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return p.complain(err.Error())
	}
	_, err = f.Write(data)
	return p.finishFile(f, err)
}

func (p *process) cat(file string) int {
	host, _, ok := p.hostPath(file)
	if !ok {
		return p.complain("cannot open " + file)
	}
	f, err := p.open(host, os.O_RDONLY)
	if err != nil {
		return p.complain(err.Error())
	}
	data, err := io.ReadAll(f)
	p.write(engine.Stdout, data)
	return p.finishFile(f, err)
}

// finishFile closes a file and returns what the step comes to.
func (p *process) finishFile(f *openFile, err error) int {
	err = errors.Join(err, f.Close())
	if p.c.killed.Err() != nil {
		return killed
	}
	if err != nil {
		return p.complain(err.Error())
	}
	return goOn
}

func (p *process) complain(why string) int {
	p.write(engine.Stderr, []byte(why+"\n"))
	return 1
}

// hostPath finds the mount that a container path lies on.
func (p *process) hostPath(file string) (host string, readOnly, ok bool) {
	best := -1
	for _, m := range p.c.spec.Mounts {
		rest, inside := strings.CutPrefix(path.Clean(file), path.Clean(m.ContainerPath))
		if inside && (rest == "" || rest[0] == '/') && len(m.ContainerPath) > best {
			best, host, readOnly = len(m.ContainerPath), m.HostPath+rest, m.ReadOnly
		}
	}
	return host, readOnly, best >= 0
}

func identity(user string) string {
	if user == "" {
		return "0:0"
	}
	if !strings.Contains(user, ":") {
		user += ":0"
	}
	return user
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func unescape(text string) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		switch text[i] {
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case '0':
			end := i + 1
			for end < len(text) && end < i+4 && text[end] >= '0' && text[end] <= '7' {
				end++
			}
			value, _ := strconv.ParseUint("0"+text[i+1:end], 8, 16)
			out = append(out, byte(value))
			i = end - 1
		default:
			out = append(out, text[i])
		}
	}
	return out
}

package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

func outputBothStreams(b *bench) {
	out, _ := b.finish(b.spec("out:one\\n", "err:uno\\n", "out:two\\n", "err:due\\n"))
	if string(out.stdout) != "one\ntwo\n" || string(out.stderr) != "uno\ndue\n" {
		b.Errorf("stdout %q, stderr %q", out.stdout, out.stderr)
	}
	if out.frames != 4 {
		b.Errorf("%d frames, want one per line", out.frames)
	}
}

func outputExactBytes(b *bench) {
	var escaped strings.Builder
	var want []byte
	for c := range 256 { // every byte there is, most of it no UTF-8
		fmt.Fprintf(&escaped, "\\0%03o", c)
		want = append(want, byte(c))
	}
	out, _ := b.finish(b.spec("out:"+escaped.String(), "out:\\r\\n\\n \\n", "err:\\0377\\0376\\n"))
	want = append(want, "\r\n\n \n"...)
	if !bytes.Equal(out.stdout, want) {
		b.Errorf("stdout %q, want %q", out.stdout, want)
	}
	if string(out.stderr) != "\xff\xfe\n" {
		b.Errorf("stderr %q", out.stderr)
	}
}

func outputLongLine(b *bench) {
	out, _ := b.finish(b.spec("out:before\\n", "fill:100000:x", "out:\\nafter\\n", "fill:16384:y", "out:\\n"))
	want := "before\n" + strings.Repeat("x", 100000) + "\nafter\n" + strings.Repeat("y", 16384) + "\n"
	if string(out.stdout) != want {
		b.Errorf("%d bytes, want %d, equal up to %d", len(out.stdout), len(want), commonPrefix(out.stdout, want))
	}
}

func commonPrefix(a []byte, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func outputWithoutNewline(b *bench) {
	out, _ := b.finish(b.spec("out:line\\nrest", "err:only"))
	if string(out.stdout) != "line\nrest" || string(out.stderr) != "only" {
		b.Errorf("stdout %q, stderr %q", out.stdout, out.stderr)
	}
	empty, _ := b.finish(b.spec("exit:0"))
	if empty.frames != 0 {
		b.Errorf("a container without output gave %d frames: %q", empty.frames, empty.stdout)
	}
}

func outputManyLines(b *bench) {
	const lines, width = 20000, 60
	out, _ := b.finish(b.spec(fmt.Sprintf("lines:%d:%d", lines, width)))
	checkLines(b, out.stdout, 0, lines, width)
}

// checkLines checks that out is the lines from first to before last, each of
// which is its number.
func checkLines(b *bench, out []byte, first, last, width int) {
	b.Helper()
	if len(out) != (last-first)*width {
		b.Fatalf("%d bytes, want %d", len(out), (last-first)*width)
	}
	for i := first; i < last; i++ {
		line, want := out[(i-first)*width:][:width], fmt.Sprintf("%0*d\n", width-1, i)
		if string(line) != want {
			b.Fatalf("line %d is %q", i, line)
		}
	}
}

func outputWhileRunning(b *bench) {
	id := b.start(b.spec("out:first\\n", "hang"))
	log := b.follow(id, engine.Position{})
	b.expect(log, "first\n") // arrives while the program runs on
	if err := b.Engine.Signal(b.Context(), id, "SIGKILL"); err != nil {
		b.Fatal(err)
	}
	if frame, open := <-log.frames; open {
		b.Errorf("another frame: %q", frame.Data)
	}
	log.group.Wait()
	if log.err != nil {
		b.Errorf("follow: %v", log.err)
	}
}

var errEnough = errors.New("enough")

// take reads n frames behind a position.
func (b *bench) take(id string, since engine.Position, n int) (output, engine.Position) {
	b.Helper()
	var out output
	pos, err := b.Engine.Logs(b.Context(), id, engine.Both, since, func(f engine.Frame) error {
		if out.frames == n {
			return errEnough
		}
		out.add(f)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		b.Fatalf("logs: %v", err)
	}
	return out, pos
}

func outputResumed(b *bench) {
	const lines, width = 3000, 20
	id := b.start(b.spec(fmt.Sprintf("lines:%d:%d", lines, width), "err:last\\n"))
	b.wait(id)
	var all output
	var pos engine.Position
	for _, n := range []int{1, 1, 10, 500, 2000} { // stops at a record, goes on behind it
		var part output
		part, pos = b.take(id, pos, n)
		all.stdout = append(all.stdout, part.stdout...)
		all.stderr = append(all.stderr, part.stderr...)
	}
	rest, pos := b.logs(id, pos)
	checkLines(b, append(all.stdout, rest.stdout...), 0, lines, width)
	if got := string(append(all.stderr, rest.stderr...)); got != "last\n" {
		b.Errorf("stderr %q", got)
	}
	if again, _ := b.logs(id, pos); again.frames != 0 {
		b.Errorf("%d frames behind the last", again.frames)
	}
}

func outputResumedInsideLine(b *bench) {
	id := b.start(b.spec("fill:3000000:z", "out:\\nend\\n")) // its parts share one time
	b.wait(id)
	head, pos := b.take(id, engine.Position{}, 5)
	more, pos := b.take(id, pos, 40)
	tail, _ := b.logs(id, pos)
	got := string(head.stdout) + string(more.stdout) + string(tail.stdout)
	want := strings.Repeat("z", 3000000) + "\nend\n"
	if got != want {
		b.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func outputResumedWhileRunning(b *bench) {
	dir := b.TempDir()
	spec := b.spec("out:one\\n", "err:uno\\n", "await:/mnt/go", "out:two\\n", "err:due\\n")
	spec.Mounts = []engine.Mount{{HostPath: dir, ContainerPath: "/mnt"}}
	id := b.start(spec)
	before := b.follow(id, engine.Position{})
	first, second := <-before.frames, <-before.frames
	before.stop()
	for range before.frames { //nolint:revive // only its end counts
	}
	before.group.Wait()

	after := b.follow(id, before.pos)
	b.touch(dir, "go")
	var out output
	out.add(first)
	out.add(second)
	for f := range after.frames {
		out.add(f)
	}
	if string(out.stdout) != "one\ntwo\n" || string(out.stderr) != "uno\ndue\n" {
		b.Errorf("stdout %q, stderr %q", out.stdout, out.stderr)
	}
}

func outputCanceled(b *bench) {
	id := b.start(b.spec("out:first\\n", "hang"))
	log := b.follow(id, engine.Position{})
	b.expect(log, "first\n")
	log.stop()
	for range log.frames { //nolint:revive // only its end counts
	}
	log.group.Wait()
	if log.err == nil || log.pos.Stdout.Records != 1 {
		b.Errorf("canceled follow: error %v, position %+v", log.err, log.pos)
	}
}

// outputOfOneStream: each stream by itself, resumed in the middle, beside marks
// of the other one that are none of its business.
func outputOfOneStream(b *bench) {
	const lines, width = 1000, 20
	id := b.start(b.spec("err:uno\\n", fmt.Sprintf("lines:%d:%d", lines, width), "err:due\\n", "err:tre\\n"))
	b.wait(id)
	read := func(streams engine.Streams, since engine.Position, n int) (output, engine.Position) {
		var out output
		pos, err := b.Engine.Logs(b.Context(), id, streams, since, func(f engine.Frame) error {
			if out.frames == n {
				return errEnough
			}
			out.add(f)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			b.Fatalf("logs: %v", err)
		}
		return out, pos
	}
	head, pos := read(engine.StderrOnly, engine.Position{}, 1)
	if string(head.stderr) != "uno\n" || len(head.stdout) != 0 || pos.Stdout != (engine.Mark{}) {
		b.Errorf("first of stderr: %q, stdout %d bytes, position %+v", head.stderr, len(head.stdout), pos)
	}
	tail, end := read(engine.StderrOnly, pos, 100)
	if string(tail.stderr) != "due\ntre\n" || len(tail.stdout) != 0 || end.Stdout != (engine.Mark{}) {
		b.Errorf("rest of stderr: %q, stdout %d bytes, position %+v", tail.stderr, len(tail.stdout), end)
	}
	first, mid := read(engine.StdoutOnly, end, 700)
	rest, last := read(engine.StdoutOnly, mid, lines)
	checkLines(b, append(first.stdout, rest.stdout...), 0, lines, width)
	if len(first.stderr)+len(rest.stderr) != 0 || last.Stderr != end.Stderr {
		b.Errorf("stderr was read along, or its mark moved: %+v, want %+v", last.Stderr, end.Stderr)
	}
	if all, _ := read(engine.Both, last, lines); all.frames != 0 {
		b.Errorf("%d frames behind the last of both", all.frames)
	}
}

// outputOfSlowReader: one who does not take the next record of a stream delays
// neither another reader nor the container.
func outputOfSlowReader(b *bench) {
	const lines, width = 5000, 100
	id := b.start(b.spec("out:first\\n", fmt.Sprintf("lines:%d:%d", lines, width), "err:done\\n"))
	stuck := b.followStreams(id, engine.StdoutOnly, engine.Position{})
	b.expect(stuck, "first\n") // and takes no more until the container has ended
	b.expect(b.followStreams(id, engine.StderrOnly, engine.Position{}), "done\n")
	b.wait(id)
	var out output
	for f := range stuck.frames {
		out.add(f)
	}
	checkLines(b, out.stdout, 0, lines, width)
}

// Program is what the containers of the conformance tests do that busybox
// cannot.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/gantry-worker/gantry/e2e/conformance/program/pattern"
)

const usage = `program read FILE SIZE EVERY PAUSE   read in pieces of SIZE, pause after every EVERY-th, print number and sum
program copy FROM TO SIZE            copy in pieces of SIZE
program write FILE NUMBER SIZE       write NUMBER pieces of SIZE, each with one write, and print the sum
program flood BYTES                  write lines to the standard output
program line BYTES                   write one line of BYTES to the standard output
program cat FILE                     print a file
program now FILE TEXT                write to a pipe that has a reader already, else fail
program eat BYTES                    use that much memory
program socket FILE                  leave a socket`

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	number := func(i int) int {
		n, err := strconv.Atoi(args[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	switch command {
	case "read":
		pause, err := time.ParseDuration(args[3])
		if err != nil {
			return err
		}
		return read(args[0], number(1), number(2), pause)
	case "copy":
		return copyPieces(args[0], args[1], number(2))
	case "write":
		return write(args[0], number(1), number(2))
	case "flood":
		_, err := io.Copy(os.Stdout, pattern.Lines(int64(number(0))))
		return err
	case "line":
		_, err := io.Copy(os.Stdout, pattern.Line(int64(number(0))))
		return err
	case "cat":
		return cat(args[0])
	case "now":
		return now(args[0], args[1])
	case "eat":
		return eat(number(0))
	case "socket":
		return socket(args[0])
	default:
		return fmt.Errorf("%s: unknown\n%s", command, usage)
	}
}

// read reads slowly. What it prints is how much it got, and its checksum.
func read(path string, size, every int, pause time.Duration) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	sum, piece, total := sha256.New(), make([]byte, size), int64(0)
	for i := 1; ; i++ {
		n, err := file.Read(piece)
		sum.Write(piece[:n])
		total += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if i%every == 0 {
			time.Sleep(pause)
		}
	}
	fmt.Printf("%d %x\n", total, sum.Sum(nil))
	return file.Close()
}

func copyPieces(from, to string, size int) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	for piece := make([]byte, size); ; {
		n, err := in.Read(piece)
		if _, err := out.Write(piece[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
	}
}

func write(path string, number, size int) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	sum, source, piece := sha256.New(), pattern.Lines(int64(number)*int64(size)), make([]byte, size)
	for range number {
		if _, err := io.ReadFull(source, piece); err != nil {
			return err
		}
		sum.Write(piece)
		if _, err := out.Write(piece); err != nil {
			return err
		}
	}
	fmt.Printf("%x\n", sum.Sum(nil))
	return out.Close()
}

func cat(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, file)
	return err
}

func now(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if _, err := file.WriteString(text); err != nil {
		return err
	}
	return file.Close()
}

// eat uses memory, all of it, until it is stopped or has enough.
func eat(size int) error {
	const step = 1 << 20
	var all [][]byte
	for range size / step {
		piece := make([]byte, step)
		for i := 0; i < step; i += 4096 {
			piece[i] = 1
		}
		all = append(all, piece)
	}
	fmt.Println("ate", len(all))
	return nil
}

func socket(path string) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	return listener.Close()
}

package girdersim

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// hold keeps a port for a server, also while nobody listens there: it is a socket
// that is bound and does not listen. The system refuses connections to such a
// port and gives it to nobody who asks for any port; whoever asks for this one may
// listen on it.
type hold struct {
	fd   int
	addr string // host:port, the host as it was asked for
}

// newHold takes the port of an address, any free one for port 0.
func newHold(addr string) (*hold, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	wanted, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	family, to := sockaddr(wanted)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	h := &hold{fd: fd}
	port, err := h.bind(to)
	if err != nil {
		h.close()
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	h.addr = net.JoinHostPort(host, strconv.Itoa(port))
	return h, nil
}

// sockaddr is an address for the system. All addresses are held by the IPv4 ones.
func sockaddr(addr *net.TCPAddr) (family int, to syscall.Sockaddr) {
	if ip := addr.IP.To4(); ip != nil || len(addr.IP) == 0 {
		in4 := &syscall.SockaddrInet4{Port: addr.Port}
		copy(in4.Addr[:], ip)
		return syscall.AF_INET, in4
	}
	in6 := &syscall.SockaddrInet6{Port: addr.Port}
	copy(in6.Addr[:], addr.IP.To16())
	return syscall.AF_INET6, in6
}

// bind binds the socket so that a listener, which Go makes with SO_REUSEADDR too,
// can share the port with it.
func (h *hold) bind(to syscall.Sockaddr) (port int, err error) {
	if err := syscall.SetsockoptInt(h.fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(h.fd, to); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	bound, err := syscall.Getsockname(h.fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch bound := bound.(type) {
	case *syscall.SockaddrInet4:
		return bound.Port, nil
	case *syscall.SockaddrInet6:
		return bound.Port, nil
	}
	return 0, fmt.Errorf("bound to %T", bound)
}

// close lets go of the port.
func (h *hold) close() {
	syscall.Close(h.fd) // nothing was written
}

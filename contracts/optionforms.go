package contracts

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// SwapSize is a [ByteSize] that may be -1, for no limit.
type SwapSize int64

// UnmarshalJSONFrom reads -1, a number of bytes or docker-py's text form.
func (s *SwapSize) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if kind := token.Kind(); kind != '0' && kind != '"' {
		return errors.New(`must be -1, a number of bytes or text such as "512m"`)
	}
	if token.String() == "-1" {
		*s = -1
		return nil
	}
	size, err := units.RAMInBytes(token.String())
	if err != nil || size < 0 {
		return fmt.Errorf("%q is not -1 or a size such as \"512m\"", token.String())
	}
	*s = SwapSize(size)
	return nil
}

// TextMap is an object whose values are strings or numbers.
type TextMap map[string]Text

// Names is a list of names, on the wire a list or one string with commas.
type Names []string

// UnmarshalJSONFrom reads a list or one string.
func (n *Names) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	list, err := listOr(dec, func(text string) []string { return strings.Split(text, ",") })
	*n = list
	return err
}

// listOr reads a list of strings, or one string that stands for a list.
func listOr(dec *jsontext.Decoder, listOf func(text string) []string) (list []string, err error) {
	if dec.PeekKind() != '"' {
		err = json.UnmarshalDecode(dec, &list)
		return list, err
	}
	token, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	return listOf(token.String()), nil
}

// NamePairs are pairs that the engine writes "a:b", on the wire an object, a
// list of "a:b", or a list of pairs.
type NamePairs []string

// UnmarshalJSONFrom reads an object or a list.
func (p *NamePairs) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*p = nil
	if dec.PeekKind() == '{' {
		var pairs map[string]string
		if err := json.UnmarshalDecode(dec, &pairs); err != nil {
			return err
		}
		for name, value := range pairs {
			*p = append(*p, pairText(name, value))
		}
		slices.Sort(*p)
		return nil
	}
	var list []pair
	if err := json.UnmarshalDecode(dec, &list); err != nil {
		return err
	}
	for _, one := range list {
		*p = append(*p, string(one))
	}
	return nil
}

func pairText(name, value string) string {
	if value == "" {
		return name
	}
	return name + ":" + value
}

// pair is one element of a list of [NamePairs].
type pair string

func (p *pair) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		*p = pair(token.String())
		return err
	}
	var both []string
	if err := json.UnmarshalDecode(dec, &both); err != nil {
		return err
	}
	if len(both) != 2 {
		return errors.New(`must be "a:b" or a list of two`)
	}
	*p = pair(pairText(both[0], both[1]))
	return nil
}

// MountPoints are paths in the container with their mount options, on the wire
// an object or a list of "path:options".
type MountPoints map[string]string

// UnmarshalJSONFrom reads an object or a list.
func (m *MountPoints) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	points := map[string]string{}
	if dec.PeekKind() == '[' {
		var list []string
		if err := json.UnmarshalDecode(dec, &list); err != nil {
			return err
		}
		for _, text := range list {
			path, options, _ := strings.Cut(text, ":")
			points[path] = options
		}
	} else if err := json.UnmarshalDecode(dec, &points); err != nil {
		return err
	}
	*m = points
	return nil
}

// HealthTest is the command of a [Healthcheck], on the wire a list that begins
// with "NONE", "CMD" or "CMD-SHELL", or a string for the shell.
type HealthTest []string

// UnmarshalJSONFrom reads a list or one string.
func (h *HealthTest) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	list, err := listOr(dec, func(command string) []string { return []string{"CMD-SHELL", command} })
	*h = list
	return err
}

// Device is a device of the node, on the wire an object or
// "host path[:container path[:permissions]]".
type Device struct {
	PathOnHost        string `json:"path_on_host,case:ignore"`
	PathInContainer   string `json:"path_in_container,omitempty,case:ignore"`  // PathOnHost if empty
	CgroupPermissions string `json:"cgroup_permissions,omitempty,case:ignore"` // "rwm" if empty
}

// UnmarshalJSONFrom reads an object or a string.
func (d *Device) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain Device
	if dec.PeekKind() != '"' {
		return json.UnmarshalDecode(dec, (*plain)(d), json.RejectUnknownMembers(true))
	}
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	parts := strings.Split(token.String(), ":")
	if len(parts) > 3 {
		return fmt.Errorf("%q is not host path[:container path[:permissions]]", token.String())
	}
	parts = append(parts, "", "")
	*d = Device{PathOnHost: parts[0], PathInContainer: parts[1], CgroupPermissions: parts[2]}
	return nil
}

// PortBindings are, by a port of the container such as "80/tcp", where the node
// publishes it.
type PortBindings map[string][]PortBinding

// PortBinding is a port of the node.
type PortBinding struct {
	HostIP   string `json:"host_ip,omitempty,case:ignore"`   // all addresses if empty
	HostPort Text   `json:"host_port,omitempty,case:ignore"` // a free one if empty, or a range
}

// UnmarshalJSONFrom reads docker-py's forms of a binding: null, a port, a list
// of ports, or a list of an address and a port.
func (p *PortBindings) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var ports map[string]hostPorts
	if err := json.UnmarshalDecode(dec, &ports); err != nil {
		return err
	}
	bindings := make(PortBindings, len(ports))
	for port, on := range ports {
		number, protocol, _ := strings.Cut(port, "/")
		if !isPort(number) || !slices.Contains([]string{"", "tcp", "udp", "sctp"}, protocol) {
			return fmt.Errorf("%q is not a port such as \"80/tcp\"", port)
		}
		if protocol == "" {
			protocol = "tcp"
		}
		bindings[number+"/"+protocol] = on
	}
	*p = bindings
	return nil
}

func isPort(text string) bool {
	first, last, isRange := strings.Cut(text, "-")
	low, err := strconv.ParseUint(first, 10, 16)
	if err != nil || !isRange {
		return err == nil
	}
	high, err := strconv.ParseUint(last, 10, 16)
	return err == nil && low <= high
}

// hostPorts is where one port is published.
type hostPorts []PortBinding

func (h *hostPorts) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		*h = hostPorts{{}}
		return dec.SkipValue()
	case '[':
		var list []PortBinding
		if err := json.UnmarshalDecode(dec, &list); err != nil {
			return err
		}
		// A list of an address and its port is what a pair comes to in JSON.
		if len(list) > 0 && len(list) <= 2 && isAddress(string(list[0].HostPort)) {
			address := PortBinding{HostIP: string(list[0].HostPort)}
			if len(list) == 2 {
				address.HostPort = list[1].HostPort
			}
			list = []PortBinding{address}
		}
		*h = list
	default:
		var one PortBinding
		if err := json.UnmarshalDecode(dec, &one); err != nil {
			return err
		}
		*h = hostPorts{one}
	}
	for _, binding := range *h {
		if binding.HostIP != "" && !isAddress(binding.HostIP) {
			return fmt.Errorf("%q is not an address of the node", binding.HostIP)
		}
		if binding.HostPort != "" && !isPort(string(binding.HostPort)) {
			return fmt.Errorf("%q is not a port of the node", binding.HostPort)
		}
	}
	return nil
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// UnmarshalJSONFrom reads a port, or an object with an address and a port.
func (b *PortBinding) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	type plain PortBinding
	switch dec.PeekKind() {
	case '{':
		return json.UnmarshalDecode(dec, (*plain)(b), json.RejectUnknownMembers(true))
	case 'n':
		return dec.SkipValue()
	default:
		return json.UnmarshalDecode(dec, &b.HostPort)
	}
}

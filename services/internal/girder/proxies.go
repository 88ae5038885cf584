package girder

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
)

// proxies are those of a session, read as Python's requests does: the most
// particular name of a URL counts. Hosts in "no_proxy" are asked without one.
// Without any but "no_proxy" the environment's count.
type proxies struct {
	byName map[string]*url.URL
	bypass string
}

func readProxies(given map[string]contracts.Secret) (proxies, error) {
	p := proxies{byName: map[string]*url.URL{}}
	for name, secret := range given {
		value := strings.TrimSpace(string(secret))
		switch {
		case name == "no_proxy" || name == "no":
			p.bypass = strings.Trim(p.bypass+","+value, ",")
			continue
		case value == "": // Python's way to say "none"
			p.byName[ofHost(name)] = nil
			continue
		}
		proxy, err := contracts.ParseProxy(value)
		if err != nil {
			return proxies{}, &SessionError{Field: "proxies." + name, Err: err}
		}
		p.byName[ofHost(name)] = proxy
	}
	return p, nil
}

// ofHost writes the name of a host's proxies as [proxies.of] looks for it.
func ofHost(name string) string {
	u, err := url.Parse(name)
	if err != nil || u.Host == "" {
		return name
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname())
}

func (p proxies) empty() bool { return len(p.byName) == 0 && p.bypass == "" }

// list has the same elements for proxies that are the same.
func (p proxies) list() []string {
	all := []string{p.bypass}
	for name, proxy := range p.byName {
		if proxy == nil {
			all = append(all, name+"=")
			continue
		}
		all = append(all, name+"="+proxy.String())
	}
	slices.Sort(all[1:])
	return all
}

// of is for an http.Transport.
func (p proxies) of(r *http.Request) (*url.URL, error) {
	if p.bypasses(r.URL) {
		return nil, nil
	}
	if len(p.byName) == 0 {
		return http.ProxyFromEnvironment(r)
	}
	host := strings.ToLower(r.URL.Hostname())
	for _, name := range []string{r.URL.Scheme + "://" + host, r.URL.Scheme, "all://" + host, "all"} {
		if proxy, ok := p.byName[name]; ok {
			return proxy, nil
		}
	}
	return nil, nil
}

// bypasses reads "no_proxy": names stand for themselves and all below them, with
// or without a port, and addresses for themselves or, with a length, for a range.
func (p proxies) bypasses(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	address, _ := netip.ParseAddr(host)
	for entry := range strings.FieldsFuncSeq(strings.ToLower(p.bypass), func(r rune) bool { return r == ',' || r == ' ' }) {
		if name, port, err := net.SplitHostPort(entry); err == nil {
			if port != portOf(u) {
				continue
			}
			entry = name
		}
		if entry == "*" || inRange(address, entry) {
			return true
		}
		entry = strings.TrimPrefix(strings.TrimPrefix(entry, "*"), ".")
		if entry != "" && (host == entry || strings.HasSuffix(host, "."+entry)) {
			return true
		}
	}
	return false
}

func inRange(address netip.Addr, entry string) bool {
	if one, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
		return address == one
	}
	all, err := netip.ParsePrefix(entry)
	return err == nil && all.Contains(address)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	default:
		return "80"
	}
}

package faultproxy

import (
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync"
)

// fault is how one request goes wrong.
type fault struct {
	kind   Kind    // empty: it does not
	at     float64 // where in the bytes, of 1
	size   int     // how many bytes are concerned, where that matters
	done   bool    // a refusal comes after Girder did it
	second bool    // of two answers the second is passed on
	early  bool    // a refusal comes before the request's body is read
	gentle bool    // a connection is closed, not reset
}

// plan decides about requests.
type plan struct {
	options Options

	mu    sync.Mutex
	seen  map[Route]uint64
	spent int
}

// next decides about the next request of a route.
func (p *plan) next(route Route, hasBody bool) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[route]++
	text := fnv.New64a()
	_, _ = io.WriteString(text, string(route))
	dice := rand.New(rand.NewPCG(p.options.Seed, text.Sum64()+p.seen[route]))
	f := fault{
		at: dice.Float64(), size: 1 + dice.IntN(64), done: dice.IntN(2) == 0,
		second: dice.IntN(2) == 0, early: dice.IntN(2) == 0, gentle: dice.IntN(2) == 0,
	}
	if kind, ok := p.options.Always[route]; ok && kind.suits(route, hasBody) {
		f.kind = kind
		return f
	}
	if p.spent >= p.options.Most || dice.Float64() >= p.options.Rate {
		return fault{}
	}
	kinds := p.options.kindsFor(route, hasBody)
	if len(kinds) == 0 {
		return fault{}
	}
	p.spent++
	f.kind = kinds[dice.IntN(len(kinds))]
	return f
}

// kindsFor are the kinds that suit a request. Those that suit few requests are
// there more than once.
func (o Options) kindsFor(route Route, hasBody bool) []Kind {
	var kinds []Kind
	for _, kind := range o.kinds() {
		switch {
		case !kind.suits(route, hasBody):
		case kind == CutRequest, kind == ShortBody, kind == CorruptUpload, kind == CorruptDownload:
			kinds = append(kinds, kind, kind, kind)
		default:
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

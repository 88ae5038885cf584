package logship

import (
	"context"
	"time"
)

// OpenWithIndex is Open with an index that is summed up at another size.
var OpenWithIndex = open

// FlushNow flushes as Run does when everything has waited long enough.
func (s *Shipper) FlushNow(ctx context.Context) {
	s.first = time.Time{}.Add(1)
	for i := range s.since {
		s.since[i] = s.first
	}
	_, _ = s.flushDue(ctx)
}

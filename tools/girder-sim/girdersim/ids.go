package girdersim

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"
)

// ids makes document ids: 24 hex digits that sort by the order of creation.
type ids struct {
	process [5]byte
	counter atomic.Uint32
}

func newIDs() *ids {
	g := &ids{}
	rand.Read(g.process[:])
	return g
}

func (g *ids) next() string {
	var b [16]byte
	binary.BigEndian.PutUint32(b[:4], uint32(time.Now().Unix()))
	copy(b[4:9], g.process[:])
	binary.BigEndian.PutUint32(b[9:13], g.counter.Add(1)<<8)
	return hex.EncodeToString(b[:12])
}

func isID(s string) bool {
	if len(s) != 24 {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

func randomUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// randomText makes secrets: token values and keys.
func randomText(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b)
}

// stamp is the present as a document shows it when it is created. Afterwards
// the database knows milliseconds only, see stored.
func stamp() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func stored(t time.Time) time.Time { return t.Truncate(time.Millisecond) }

func iso(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000+00:00") }

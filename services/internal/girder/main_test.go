package girder

import (
	"io"
	"log"
	"testing"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http tells of what servers send unasked
	leaktest.Main(m)
}

package cache

import (
	"testing"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

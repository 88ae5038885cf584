package measure

import (
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var s Samples
	for i := 100; i > 0; i-- {
		s = append(s, time.Duration(i))
	}
	if s.Median() != 51 || s.P95() != 96 {
		t.Errorf("median %d, p95 %d", s.Median(), s.P95())
	}
	if (Samples{}).Median() != 0 {
		t.Error("no samples have a median")
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	ratio := Result{Gantry: Samples{150}, Limit: Samples{100}}
	if got := ratio.Compare(); got != "1.50 ×" {
		t.Errorf("ratio is %s", got)
	}
	throughput := Result{Gantry: Samples{200}, Limit: Samples{100}, Throughput: true}
	if got := throughput.Compare(); got != "0.50 ×" {
		t.Errorf("throughput is %s", got)
	}
	if got := (Result{Limit: Samples{100}, Throughput: true}).Compare(); got != "-" {
		t.Errorf("nothing measured is %s", got)
	}
	difference := Result{Gantry: Samples{30 * time.Millisecond}, Limit: Samples{10 * time.Millisecond}, Difference: true}
	if got := difference.Compare(); got != "+20.0 ms" {
		t.Errorf("difference is %s", got)
	}
}

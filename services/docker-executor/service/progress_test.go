package service_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// progressWriter has containers write progress into the pipe that their last
// argument names, a number of lines and then the last one.
type progressWriter struct {
	recorder
	lines int
}

func (w *progressWriter) Create(ctx context.Context, spec engine.Spec) (string, error) {
	pipe := spec.Args[len(spec.Args)-1]
	spec.Args = nil
	var text strings.Builder
	for i := range w.lines {
		fmt.Fprintf(&text, `{"total":200,"current":%d}\n`, i)
	}
	spec.Args = append(spec.Args, "write:"+pipe+":"+text.String(), "write:"+pipe+`:{"current":200,"message":"the last"}`)
	return w.recorder.Create(ctx, spec)
}

package stage

import (
	"context"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// look finds the file that is there already: one of this name in the item, or
// the one that this job put into the folder.
func (u *upload) look(ctx context.Context) (err error) {
	first := !u.seen
	switch {
	case u.into == nil && first && !u.relisted && u.spoiled == "":
		u.current = u.listed[u.name]
	case u.into == nil:
		u.current, err = u.inItem(ctx)
	case first && u.spoiled != "":
		u.current, err = u.still(ctx, string(u.spoiled), u.into)
	case first:
		u.current, err = u.before(ctx, u.path, u.name, u.into)
	default:
		u.current, err = u.inFolder(ctx)
	}
	if err == nil && first {
		u.seen, u.old = true, u.current
	}
	return err
}

// inItem finds the file of this name in the item; of several the first.
func (u *upload) inItem(ctx context.Context) (*girder.File, error) {
	for file, err := range u.Sink.ListItemFiles(ctx, u.Item) {
		if err != nil {
			return nil, err
		}
		if file.Name == u.name {
			return &file, nil
		}
	}
	return nil, nil
}

// inFolder finds the file that is being replaced, or what a new one has become.
func (u *upload) inFolder(ctx context.Context) (*girder.File, error) {
	if u.old != nil {
		if file, err := u.still(ctx, string(u.old.ID), u.into); file != nil || err != nil {
			return file, err
		}
	}
	if !u.unsure {
		return nil, nil
	}
	if err := u.content.hashTo(u.size); err != nil {
		return nil, err
	}
	return u.find(ctx, *u.into, u.name, u.size, u.content.checksum())
}

// isNew reports whether the last listing shows what an upload of ours left: a
// file of the size that was not there, or was created anew, as Girder says of
// a file whose contents were replaced.
func (u *upload) isNew() bool {
	is := u.current
	if is == nil || is.Size == nil || *is.Size != u.size {
		return false
	}
	return u.old == nil || u.old.ID != is.ID || u.old.Created != is.Created
}

package girdersim

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// store is everything the server knows. Its mutex guards all documents.
type store struct {
	mu      sync.Mutex
	ids     *ids
	bytes   *byteStore
	users   *collection[user]
	tokens  *collection[token]
	keys    *collection[apiKey]
	folders *collection[folder]
	items   *collection[item]
	files   *collection[file]
	uploads *collection[upload]
	jobs    *collection[job]
	logs    logFiles

	settings *collection[setting]

	jobChanged chan struct{} // closed and replaced when a job changes
}

// setting is a value that outlives the process, such as the assetstore's id.
type setting struct{ Value string }

// openStore opens the documents in dir, or an empty store in memory. Bytes are
// below dir too, or in a temporary folder, unless assets names another.
func openStore(dir, assets string) (*store, error) {
	st := &store{ids: newIDs(), jobChanged: make(chan struct{})}
	if err := st.openBytes(dir, assets); err != nil {
		return nil, fmt.Errorf("open byte store: %w", err)
	}
	if err := st.openDocuments(dir); err != nil {
		return nil, fmt.Errorf("open documents: %w", err)
	}
	if st.settings.get("assetstore") != nil {
		return st, nil
	}
	return st, st.settings.put("assetstore", &setting{Value: st.ids.next()})
}

func (st *store) openBytes(dir, assets string) (err error) {
	if assets == "" && dir != "" {
		assets = filepath.Join(dir, "assetstore")
	}
	if assets != "" {
		st.bytes, err = openByteStore(assets)
		return err
	}
	if assets, err = os.MkdirTemp("", "girder-sim-"); err != nil {
		return err
	}
	st.bytes, err = openByteStore(assets)
	st.bytes.temporary = true
	return err
}

func (st *store) openDocuments(dir string) error {
	in := func(name string) string {
		if dir == "" {
			return ""
		}
		return filepath.Join(dir, "documents", name)
	}
	err := firstError(
		open(&st.users, in("user"), nil),
		open(&st.tokens, in("token"), nil),
		open(&st.keys, in("api_key"), nil),
		open(&st.folders, in("folder"), func(f *folder) string { return f.ParentID }),
		open(&st.items, in("item"), func(i *item) string { return i.FolderID }),
		open(&st.files, in("file"), func(f *file) string { return f.ItemID }),
		open(&st.uploads, in("upload"), nil),
		open(&st.jobs, in("job"), nil),
		open(&st.settings, in("setting"), nil),
	)
	if err != nil {
		return err
	}
	return st.openLogs(in("log"))
}

func (st *store) openLogs(dir string) (err error) {
	if st.logs, err = openLogFiles(dir); err != nil || dir == "" {
		return err
	}
	for id, j := range st.jobs.docs {
		if j.Log, err = st.logs.load(id); err != nil {
			return err
		}
	}
	return nil
}

func open[T any](c **collection[T], dir string, parent func(*T) string) (err error) {
	*c, err = openCollection(dir, parent)
	return err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (st *store) assetstoreID() string { return st.settings.get("assetstore").Value }

// putJob stores a job and wakes those who wait for one.
func (st *store) putJob(j *job) error {
	j.Created, j.Updated, j.When = stored(j.Created), stored(j.Updated), stored(j.When)
	for i := range j.Timestamps {
		j.Timestamps[i].Time = stored(j.Timestamps[i].Time)
	}
	var before []string
	if old := st.jobs.get(j.ID); old != nil {
		before = old.Log
	}
	if err := st.logs.save(j.ID, before, j.Log); err != nil {
		return fmt.Errorf("write log of job %s: %w", j.ID, err)
	}
	if err := st.jobs.put(j.ID, j); err != nil {
		return err
	}
	st.wakeWaiters()
	return nil
}

// removeJob leaves the job's token alone, as Girder does.
func (st *store) removeJob(j *job) error {
	defer st.wakeWaiters()
	if err := st.jobs.remove(j.ID); err != nil {
		return err
	}
	return st.logs.remove(j.ID)
}

func (st *store) wakeWaiters() {
	close(st.jobChanged)
	st.jobChanged = make(chan struct{})
}

func (st *store) close() error { return st.bytes.close() }

package girdersim

// jobParent is the parent of files that are attached to a job.
const jobParent = "job"

// createArtifact attaches the body to a job as a file, all of it in one request.
func createArtifact(q *request) (any, error) {
	u, view, err := q.startArtifact()
	if u == nil || err != nil {
		return view, err
	}
	return q.receive(u, 0)
}

// startArtifact does what needs no bytes. Without an upload the answer is final.
func (q *request) startArtifact() (*upload, map[string]any, error) {
	q.st.mu.Lock()
	defer q.st.mu.Unlock()
	j, err := q.accessJob(q.id, write)
	if err != nil {
		return nil, nil, err
	}
	name, err := q.p.required("name")
	if err != nil {
		return nil, nil, err
	}
	size, given, err := q.p.integer("size", 0)
	if err != nil {
		return nil, nil, err
	}
	if !given || q.r.ContentLength != size {
		return nil, nil, restError("Parameter \"size\" must be the length of the body.")
	}
	mimeType := defaultType
	if m, ok := q.p.optional("mimeType"); ok {
		mimeType = m
	}
	return q.begin(&upload{Name: name, UserID: j.UserID, ParentType: jobParent, ParentID: j.ID, MimeType: &mimeType, Size: size})
}

func listArtifacts(q *request) (any, error) {
	j, err := q.accessJob(q.id, read)
	if err != nil {
		return nil, err
	}
	pg, err := q.p.page("name", false)
	if err != nil {
		return nil, err
	}
	return q.counted(views(q.st.filesOf(j.ID), (*file).view), pg), nil
}

// Artifacts are the files that are attached to a job, oldest first.
func (s *Server) Artifacts(jobID string) []File { return s.Files(jobID) }

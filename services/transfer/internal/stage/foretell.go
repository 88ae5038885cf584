package stage

import "fmt"

// Of so many small files at a time it is noted in one go what they are.
const (
	manySmall = 32
	smallFile = 256 << 10
)

// foretell notes what small files for a folder are before any of them begins.
// To find those whose last answer was lost, that has to outlive a crash of the
// machine, and to wait for the disk takes longer than to send one of them. Their
// own notes then tell nothing that could not be lost: an upload that nobody
// knows any more has no end, and is in nobody's way.
//
// What replaces a file of an earlier attempt is left out: which one it replaces
// is not known yet. So is what an earlier process may have begun, and what
// cannot be read, of which its own upload tells.
func (s *sending) foretell(files []output) error {
	if len(s.Memory.Earlier) > 0 || len(s.Before) > 0 {
		return nil
	}
	var begun []Begun
	for i, file := range files {
		if !s.isSmall(file.size) || s.isNoted(NotedPath(file.path)) {
			continue
		}
		one, err := s.summed(file.path)
		if err != nil {
			continue
		}
		files[i].foretold = one.Local
		begun = append(begun, one)
	}
	for i := range begun {
		if err := s.Remember.note(Note{Begun: &begun[i], Later: i < len(begun)-1}); err != nil {
			return fmt.Errorf("write down what begins: %w", err)
		}
	}
	return nil
}

// isSmall reports whether a file is sent so soon that to wait for the disk counts.
// An empty one has no upload, whose note would tell whether it did begin.
func (s *sending) isSmall(size int64) bool { return 0 < size && size <= min(smallFile, s.Chunk) }

// isNoted reports whether an earlier process knew anything of a file.
func (s *sending) isNoted(path NotedPath) bool {
	_, begun := s.Memory.Begun[path]
	_, pending := s.Memory.Pending[path]
	_, sent := s.Memory.Sent[path]
	return begun || pending || sent
}

// summed reads a small file.
func (s *sending) summed(path string) (Begun, error) {
	file, local, err := open(s.root, path)
	if err != nil {
		return Begun{}, err
	}
	defer file.Close()
	if !s.isSmall(local.Size) {
		return Begun{}, ErrChanged
	}
	content := newContent(file, local.Size)
	if err := content.hashTo(local.Size); err != nil {
		return Begun{}, err
	}
	return Begun{Path: NotedPath(path), Local: local, SHA512: content.checksum(), Boot: boot()}, nil
}

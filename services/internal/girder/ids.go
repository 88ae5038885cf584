package girder

import "fmt"

// Ids of Girder's documents, a type each so that a signature cannot mix them up.
type (
	JobID    string
	FileID   string
	ItemID   string
	FolderID string
	UploadID string
	UserID   string
)

// BadIDError refuses an id that cannot be part of a URL. Girder was not asked.
type BadIDError struct {
	Kind string // what the id should name, e.g. "file"
	ID   string
}

// Error says which id of what is not one.
func (e *BadIDError) Error() string {
	return fmt.Sprintf("%q is not the id of a Girder %s", e.ID, e.Kind)
}

// Is makes a malformed id match [ErrNotFound], as it does for Girder.
func (e *BadIDError) Is(target error) bool { return target == ErrNotFound }

// checkID refuses what could change the path of a request. Whether the id
// exists, and whether its length is right, is for Girder to say.
func checkID(kind, id string) error {
	for _, r := range id {
		plain := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == '-'
		if !plain {
			return &BadIDError{Kind: kind, ID: id}
		}
	}
	if id == "" {
		return &BadIDError{Kind: kind, ID: id}
	}
	return nil
}

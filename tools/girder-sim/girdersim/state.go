package girdersim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrNotFound is returned by the methods of [Server] for an id that no document has.
var ErrNotFound = errors.New("not found")

// User is an account.
type User struct{ ID, Login string }

// Folder is a folder.
type Folder struct {
	ID, Name, ParentID string
	Public             bool
}

// Item is an item.
type Item struct {
	ID, Name, FolderID string
	Meta               map[string]any // do not change
}

// File is a file.
type File struct {
	ID, Name, ItemID, MimeType string
	Size                       int64 // 0 if not known
	LinkURL                    string
	SHA512                     string // empty: a link
}

// CreateUser adds an account with the folders Public and Private.
func (s *Server) CreateUser(login, password string) (User, error) {
	return s.createUser(login, password, false)
}

// CreateAdmin adds a site admin.
func (s *Server) CreateAdmin(login, password string) (User, error) {
	return s.createUser(login, password, true)
}

func (s *Server) createUser(login, password string, isAdmin bool) (User, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	u, err := s.st.newUser(login, password, isAdmin)
	if err != nil {
		return User{}, fmt.Errorf("create user %s: %w", login, err)
	}
	return User{u.ID, u.Login}, nil
}

// FindUser returns the account with that login.
func (s *Server) FindUser(login string) (User, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	u := s.st.users.first(func(u *user) bool { return u.Login == login })
	if u == nil {
		return User{}, fmt.Errorf("user %s: %w", login, ErrNotFound)
	}
	return User{u.ID, u.Login}, nil
}

// Token makes a token of nobody with the scopes.
func (s *Server) Token(scopes ...string) (string, error) {
	return s.ExpiringToken("", time.Now().Add(tokenLife), scopes...)
}

// UserToken makes a token of the user with the scopes; [ScopeUser] is a login's.
func (s *Server) UserToken(userID string, scopes ...string) (string, error) {
	return s.ExpiringToken(userID, time.Now().Add(tokenLife), scopes...)
}

// ExpiringToken makes a token that is good until then. An empty user is nobody.
func (s *Server) ExpiringToken(userID string, expires time.Time, scopes ...string) (string, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	t, err := s.st.newToken(userID, "", time.Until(expires), scopes...)
	if err != nil {
		return "", fmt.Errorf("create token: %w", err)
	}
	return t.Value, nil
}

// RevokeToken makes a token worthless at once.
func (s *Server) RevokeToken(value string) error {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	return s.st.tokens.remove(value)
}

// CreateFolder makes a folder in a folder, or in a user's home, given its id.
func (s *Server) CreateFolder(parentID, name string, public bool) (Folder, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	f := &folder{Name: name, ParentID: parentID, Public: public}
	if u := s.st.users.get(parentID); u != nil {
		f.ParentType, f.BaseID, f.Access = "user", u.ID, map[string]int{u.ID: admin}
	} else if p := s.st.folders.get(parentID); p != nil {
		f.ParentType, f.BaseID, f.Access = "folder", p.BaseID, p.Access
	} else {
		return Folder{}, fmt.Errorf("parent %s of folder %s: %w", parentID, name, ErrNotFound)
	}
	f.CreatorID = f.BaseID
	f, err := s.st.newFolder(f)
	if err != nil {
		return Folder{}, fmt.Errorf("create folder %s: %w", name, err)
	}
	return f.public(), nil
}

func (f *folder) public() Folder { return Folder{f.ID, f.Name, f.ParentID, f.Public} }

// Folders are the folders in a folder or in a user's home.
func (s *Server) Folders(parentID string) []Folder {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	var out []Folder
	for _, f := range s.st.folders.in(parentID) {
		out = append(out, f.public())
	}
	return out
}

// CreateItem makes an item; a taken name gets a number.
func (s *Server) CreateItem(folderID, name string) (Item, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	in := s.st.folders.get(folderID)
	if in == nil {
		return Item{}, fmt.Errorf("folder %s of item %s: %w", folderID, name, ErrNotFound)
	}
	i, err := s.st.newItem(&item{Name: name, CreatorID: in.CreatorID}, in)
	if err != nil {
		return Item{}, fmt.Errorf("create item %s: %w", name, err)
	}
	return i.public(), nil
}

func (i *item) public() Item { return Item{i.ID, i.Name, i.FolderID, i.Meta} }

// Items are the items in a folder.
func (s *Server) Items(folderID string) []Item {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	var out []Item
	for _, i := range s.st.items.in(folderID) {
		out = append(out, i.public())
	}
	return out
}

// Item returns the item as it is now.
func (s *Server) Item(id string) (Item, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	i := s.st.items.get(id)
	if i == nil {
		return Item{}, fmt.Errorf("item %s: %w", id, ErrNotFound)
	}
	return i.public(), nil
}

// AddFile reads content to its end and adds it to the item as a file.
func (s *Server) AddFile(itemID, name string, content io.Reader) (File, error) {
	i, err := s.Item(itemID)
	if err != nil {
		return File{}, err
	}
	mimeType := defaultType
	u := &upload{Name: name, ParentType: "item", ParentID: i.ID, MimeType: &mimeType, Size: 1}
	if u, err = s.startUpload(u); err != nil {
		return File{}, fmt.Errorf("add file %s: %w", name, err)
	}
	source := &readError{from: content}
	sum, err := u.Hash.restore()
	if err != nil {
		return File{}, err
	}
	const unlimited = 1<<63 - 1
	n, err := s.st.bytes.write(u.ID, 0, source, unlimited, sum)
	if err := errors.Join(err, source.err); err != nil {
		return File{}, errors.Join(fmt.Errorf("add file %s: %w", name, err), s.dropUpload(u))
	}
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	if u.Hash, err = saveHash(sum); err != nil {
		return File{}, err
	}
	u.Size, u.Received = n, n
	f, err := s.st.finish(u)
	if err != nil {
		return File{}, fmt.Errorf("add file %s: %w", name, err)
	}
	return f.public(), nil
}

func (s *Server) startUpload(u *upload) (*upload, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	if i := s.st.items.get(u.ParentID); i != nil {
		u.UserID = i.CreatorID
	}
	u, _, err := s.st.newUpload(u)
	return u, err
}

func (s *Server) dropUpload(u *upload) error {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	return errors.Join(s.st.uploads.remove(u.ID), s.st.bytes.discard(u.ID))
}

// readError remembers how a source ended, unless that was its true end.
type readError struct {
	from io.Reader
	err  error
}

func (r *readError) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// AddLink adds a file to the item that only points elsewhere.
func (s *Server) AddLink(itemID, name, url string) (File, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	i := s.st.items.get(itemID)
	if i == nil {
		return File{}, fmt.Errorf("item %s of file %s: %w", itemID, name, ErrNotFound)
	}
	f, err := s.st.newLink(&file{Name: name, LinkURL: url, CreatorID: i.CreatorID}, "item", itemID)
	if err != nil {
		return File{}, fmt.Errorf("add link %s: %w", name, err)
	}
	return f.public(), nil
}

func (f *file) public() File {
	return File{f.ID, f.Name, f.ItemID, f.mimeType(), f.length(), f.LinkURL, f.SHA512}
}

// Files are the files of an item, oldest first.
func (s *Server) Files(itemID string) []File {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	var out []File
	for _, f := range s.st.filesOf(itemID) {
		out = append(out, f.public())
	}
	return out
}

// FilesIn are the files of all items of a folder, item by item.
func (s *Server) FilesIn(folderID string) []File {
	var out []File
	for _, i := range s.Items(folderID) {
		out = append(out, s.Files(i.ID)...)
	}
	return out
}

// OpenFile opens the bytes of a file. The caller closes it.
func (s *Server) OpenFile(id string) (io.ReadCloser, error) {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	f := s.st.files.get(id)
	if f == nil || f.SHA512 == "" {
		return nil, fmt.Errorf("bytes of file %s: %w", id, ErrNotFound)
	}
	return s.st.bytes.open(f.SHA512)
}

// ReadFile returns all bytes of a file.
func (s *Server) ReadFile(id string) ([]byte, error) {
	content, err := s.OpenFile(id)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(content)
}

// SHA256 hashes the bytes of a file, whatever their size.
func (s *Server) SHA256(id string) (string, error) {
	content, err := s.OpenFile(id)
	if err != nil {
		return "", err
	}
	defer content.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, content); err != nil {
		return "", fmt.Errorf("hash file %s: %w", id, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// LoseBytes removes the bytes of a file and leaves its document, like a broken
// assetstore.
func (s *Server) LoseBytes(id string) error {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	f := s.st.files.get(id)
	if f == nil {
		return fmt.Errorf("file %s: %w", id, ErrNotFound)
	}
	return s.st.bytes.remove(f.SHA512)
}

// OpenUploads is the number of uploads that are neither finished nor canceled.
func (s *Server) OpenUploads() int {
	s.st.mu.Lock()
	defer s.st.mu.Unlock()
	return len(s.st.uploads.docs)
}

package girdersim

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"time"
)

// user is an account.
type user struct {
	ID, Login, Email, FirstName, LastName string
	Admin                                 bool
	Password                              password
	Created                               time.Time
}

// view is the user as viewer sees it.
func (u *user) view(viewer *user) map[string]any {
	doc := map[string]any{
		"_accessLevel": read, "_id": u.ID, "_modelType": "user", "admin": u.Admin, "created": iso(u.Created),
		"firstName": u.FirstName, "lastName": u.LastName, "login": u.Login, "public": true,
	}
	if viewer == nil || (viewer.ID != u.ID && !viewer.Admin) {
		return doc
	}
	doc["_accessLevel"] = admin
	doc["email"] = u.Email
	doc["emailVerified"] = u.Admin
	doc["groupInvites"] = []any{}
	doc["groups"] = []any{}
	doc["otp"] = false
	doc["size"] = 0
	doc["status"] = "enabled"
	return doc
}

// newUser stores an account and its two folders, Public and Private.
func (st *store) newUser(login, pass string, isAdmin bool) (*user, error) {
	if st.users.first(func(u *user) bool { return u.Login == login }) != nil {
		return nil, validationError("login", "That login is already registered.")
	}
	secret, err := newPassword(pass)
	if err != nil {
		return nil, err
	}
	u := &user{
		ID: st.ids.next(), Login: login, Email: login + "@example.com", FirstName: login, LastName: "User",
		Admin: isAdmin, Password: secret, Created: stored(stamp()),
	}
	if err := st.users.put(u.ID, u); err != nil {
		return nil, err
	}
	for _, name := range []string{"Public", "Private"} {
		f := &folder{Name: name, ParentType: "user", ParentID: u.ID, Public: name == "Public", BaseID: u.ID, CreatorID: u.ID}
		f.Access = map[string]int{u.ID: admin}
		if _, err := st.newFolder(f); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// password is a salted hash.
type password struct{ Salt, Hash []byte }

const passwordRounds = 4096

func newPassword(text string) (password, error) {
	p := password{Salt: make([]byte, 16)}
	rand.Read(p.Salt)
	var err error
	p.Hash, err = p.hash(text)
	return p, err
}

func (p password) hash(text string) ([]byte, error) {
	h, err := pbkdf2.Key(sha256.New, text, p.Salt, passwordRounds, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("hash password: %w", err)
	}
	return h, nil
}

func (p password) matches(text string) bool {
	h, err := p.hash(text)
	return err == nil && subtle.ConstantTimeCompare(h, p.Hash) == 1
}

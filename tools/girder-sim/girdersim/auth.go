package girdersim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Scopes that Girder knows and that a worker meets.
const (
	ScopeUser      = "core.user_auth" // everything the user may do
	ScopeDataRead  = "core.data.read"
	ScopeDataWrite = "core.data.write"
	ScopeCreateJob = "jobs.rest.create_job"
	ScopeListJob   = "jobs.rest.list_job"

	scopeUserRead = "core.user_info.read"
)

// keyScopes are those that an API key may carry.
var keyScopes = []string{
	ScopeUser, ScopeDataRead, ScopeDataWrite, "core.data.own", scopeUserRead,
	"core.plugins.read", "core.setting.read", "core.assetstore.read",
	"core.partial_upload.read", "core.partial_upload.clean", ScopeListJob,
}

const tokenLife = 180 * 24 * time.Hour

// token is a credential with scopes, usually of a user.
type token struct {
	Value            string
	UserID           string // empty: nobody
	APIKeyID         string
	Scopes           []string
	Created, Expires time.Time
}

func (t *token) has(scopes ...string) bool {
	return t != nil && !slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(t.Scopes, s) })
}

func (t *token) view() map[string]any {
	doc := map[string]any{
		"_id": t.Value, "created": iso(t.Created), "expires": iso(t.Expires), "scope": t.Scopes,
	}
	if t.UserID == "" {
		doc["public"] = true
		return doc
	}
	doc["userId"] = t.UserID
	doc["access"] = map[string]any{
		"groups": []any{},
		"users":  []any{map[string]any{"flags": []any{}, "id": t.UserID, "level": admin}},
	}
	if t.APIKeyID != "" {
		doc["apiKeyId"] = t.APIKeyID
	}
	return doc
}

// grant is a token as a login shows it.
func (t *token) grant() map[string]any {
	return map[string]any{"token": t.Value, "expires": iso(t.Expires), "scope": t.Scopes}
}

// newToken stores a token that is good for life from now on.
func (st *store) newToken(userID, keyID string, life time.Duration, scopes ...string) (*token, error) {
	now := stamp()
	t := &token{
		Value: randomText(64), UserID: userID, APIKeyID: keyID, Scopes: scopes,
		Created: now, Expires: now.Add(life),
	}
	return t, st.keepToken(t)
}

// keepToken stores the token with the precision of the database, and leaves
// the caller its own, finer copy.
func (st *store) keepToken(t *token) error {
	kept := *t
	kept.Created, kept.Expires = stored(t.Created), stored(t.Expires)
	return st.tokens.put(kept.Value, &kept)
}

// findToken finds the token of a request. An unknown or expired one is none.
func (q *request) findToken() *token {
	t := q.st.tokens.get(q.tokenValue())
	if t == nil || time.Now().After(t.Expires) {
		return nil
	}
	return t
}

func (q *request) tokenValue() string {
	if value, ok := q.p.optional("token"); ok {
		return value
	}
	if value := q.r.Header.Get("Girder-Token"); value != "" {
		return value
	}
	if !q.route.cookie {
		return ""
	}
	cookie, err := q.r.Cookie("girderToken")
	if err != nil {
		return "" // there is none
	}
	return cookie.Value
}

// findUser is the user that the token stands for on this route: a token without
// the scope that the route asks for stands for nobody.
func (q *request) findUser() *user {
	if q.token == nil || q.token.UserID == "" {
		return nil
	}
	scope := q.route.scope
	if scope == "" {
		scope = ScopeUser
	}
	if !q.token.has(ScopeUser) && !q.token.has(scope) {
		return nil
	}
	return q.st.users.get(q.token.UserID)
}

// authorize applies the route's rule before its handler runs.
func (q *request) authorize() error {
	q.token = q.findToken()
	q.user = q.findUser()
	switch q.route.needs {
	case needsUser:
		if q.user == nil {
			return accessError(nil, "You must be logged in.")
		}
	case needsToken:
		if q.token == nil {
			return accessError(nil, "You must be logged in or have a valid auth token.")
		}
	case needsScope:
		if q.token == nil {
			return accessError(nil, "You must be logged in or have a valid auth token.")
		}
		if !q.token.has(q.route.scope) {
			return accessError(q.user, "Invalid token scope, required: %s.", q.route.scope)
		}
	}
	return nil
}

// ensureScope lets a full user token or one with this very scope pass.
func (q *request) ensureScope(scope string) error {
	if q.token.has(ScopeUser) || q.token.has(scope) {
		return nil
	}
	var allowed []string
	if q.token != nil {
		allowed = q.token.Scopes
	}
	return accessError(q.user, "Invalid token scope.\nRequired: %s.\nAllowed: %s", scope, strings.Join(allowed, " "))
}

func (q *request) ensureAdmin(message string) error {
	if q.user == nil || !q.user.Admin {
		return accessError(q.user, "%s", message)
	}
	return nil
}

func login(q *request) (any, error) {
	name, password, ok := q.r.BasicAuth()
	if !ok {
		return nil, &apiError{status: http.StatusUnauthorized, kind: "rest", message: "Use HTTP Basic Authentication"}
	}
	u := q.st.users.first(func(u *user) bool { return u.Login == name || u.Email == name })
	if u == nil || !u.Password.matches(password) {
		return nil, accessError(nil, "Login failed.")
	}
	t, err := q.st.newToken(u.ID, "", tokenLife, ScopeUser)
	if err != nil {
		return nil, err
	}
	http.SetCookie(q.w, &http.Cookie{Name: "girderToken", Value: t.Value, Expires: t.Expires, HttpOnly: true, Path: "/"})
	return map[string]any{"user": u.view(u), "authToken": t.grant(), "message": "Login succeeded."}, nil
}

func currentToken(q *request) (any, error) {
	if q.token == nil {
		return nil, nil
	}
	return q.token.view(), nil
}

func currentUser(q *request) (any, error) {
	if q.user == nil {
		return nil, nil
	}
	return q.user.view(q.user), nil
}

// apiKey is a lasting credential that is exchanged for tokens.
type apiKey struct {
	ID, Key, Name, UserID string
	Scopes                []string // nil: everything
	Days                  *number  // the life of its tokens; nil: the default
	Active                bool
	Created               time.Time
	LastUse               *time.Time
}

func (k *apiKey) view() map[string]any {
	doc := map[string]any{
		"_accessLevel": admin, "_id": k.ID, "_modelType": "api_key", "active": k.Active, "created": iso(k.Created),
		"key": k.Key, "lastUse": nil, "name": k.Name, "scope": nil, "tokenDuration": nil, "userId": k.UserID,
	}
	if k.LastUse != nil {
		doc["lastUse"] = iso(*k.LastUse)
	}
	if k.Scopes != nil {
		doc["scope"] = k.Scopes
	}
	if k.Days != nil {
		doc["tokenDuration"] = *k.Days
	}
	return doc
}

func createAPIKey(q *request) (any, error) {
	scopes, err := q.p.array("scope")
	if err != nil {
		return nil, err
	}
	days, err := q.p.float("tokenDuration")
	if err != nil {
		return nil, err
	}
	k := &apiKey{
		ID: q.st.ids.next(), Key: randomText(40), Name: q.p.text("name"), UserID: q.user.ID,
		Days: days, Active: q.p.boolean("active", true), Created: stamp(),
	}
	var unknown []string
	for _, s := range scopes {
		scope := fmt.Sprint(s)
		k.Scopes = append(k.Scopes, scope)
		if !slices.Contains(keyScopes, scope) {
			unknown = append(unknown, scope)
		}
	}
	if unknown != nil {
		return nil, validationError("", "Invalid scopes: %s.", strings.Join(unknown, ","))
	}
	view := k.view()
	k.Created = stored(k.Created)
	return view, q.st.keys.put(k.ID, k)
}

func exchangeAPIKey(q *request) (any, error) {
	key, err := q.p.required("key")
	if err != nil {
		return nil, err
	}
	days, err := q.p.float("duration")
	if err != nil {
		return nil, err
	}
	k := q.st.keys.first(func(k *apiKey) bool { return k.Key == key && k.Active })
	if k == nil {
		return nil, validationError("", "Invalid API key.")
	}
	life, scopes := tokenLife, k.Scopes
	if k.Days != nil {
		life = inDays(*k.Days)
	}
	if days != nil && *days > 0 {
		life = min(life, inDays(*days))
	}
	if scopes == nil {
		scopes = []string{ScopeUser}
	}
	t, err := q.st.newToken(k.UserID, k.ID, life, scopes...)
	if err != nil {
		return nil, err
	}
	now := stored(stamp())
	k.LastUse = &now
	u := map[string]any{"_id": k.UserID}
	if t.has(ScopeUser) {
		u = q.st.users.get(k.UserID).view(q.st.users.get(k.UserID))
	}
	return map[string]any{"user": u, "authToken": t.grant()}, q.st.keys.put(k.ID, k)
}

func inDays(n number) time.Duration { return time.Duration(float64(n) * float64(24*time.Hour)) }

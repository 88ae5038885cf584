package girder

import (
	"context"
	"net/http"
)

// Token is what Girder knows of the token in use. Its id is the token itself and is not read.
type Token struct {
	Scope   []string `json:"scope"`
	Expires string   `json:"expires"`
	UserID  UserID   `json:"userId"`
}

// CurrentToken asks Girder about the token in use. nil means that Girder does
// not know it, or that it has expired: Girder then answers as to anybody, so
// only this call tells.
func (c *Client) CurrentToken(ctx context.Context) (*Token, error) {
	return ask[*Token](ctx, c.s, c.call(http.MethodGet, "token/current"))
}

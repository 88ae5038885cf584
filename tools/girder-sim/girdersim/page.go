package girdersim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// page is which part of a list the caller wants, in which order.
type page struct {
	limit, offset int
	sort          string
	descending    bool
}

const defaultLimit = 50

func (p *params) page(sort string, descending bool) (page, error) {
	pg := page{sort: sort, descending: descending}
	limit, _, err := p.integer("limit", defaultLimit)
	if err != nil {
		return pg, err
	}
	offset, _, err := p.integer("offset", 0)
	if err != nil {
		return pg, err
	}
	pg.limit, pg.offset = int(max(limit, -limit)), int(max(offset, 0))
	if field, ok := p.optional("sort"); ok {
		pg.sort = field
	}
	direction, ok, err := p.integer("sortdir", 1)
	if err != nil {
		return pg, err
	}
	if direction != 1 && direction != -1 {
		return pg, restError("Invalid value for sortdir: \"%d\". Allowed values: 1, -1.", direction)
	}
	if ok {
		pg.descending = direction < 0
	}
	return pg, nil
}

// cut sorts the views of documents and takes the part that was asked for.
func (pg page) cut(docs []map[string]any) []map[string]any {
	slices.SortStableFunc(docs, func(a, b map[string]any) int {
		order := cmp.Or(compareValues(sortValue(a, pg.sort), sortValue(b, pg.sort)), compareValues(a["_id"], b["_id"]))
		if pg.descending {
			return -order
		}
		return order
	})
	docs = docs[min(pg.offset, len(docs)):]
	if pg.limit > 0 {
		docs = docs[:min(pg.limit, len(docs))]
	}
	return docs
}

func sortValue(doc map[string]any, field string) any {
	if field != "lowerName" {
		return doc[field]
	}
	name, _ := doc["name"].(string)
	return strings.ToLower(name)
}

// compareValues orders absent values first, then numbers, then everything else
// as text.
func compareValues(a, b any) int {
	x, xIsNumber := asNumber(a)
	y, yIsNumber := asNumber(b)
	switch {
	case a == nil || b == nil:
		return cmp.Compare(presence(a), presence(b))
	case xIsNumber && yIsNumber:
		return cmp.Compare(x, y)
	case xIsNumber:
		return -1
	case yIsNumber:
		return 1
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

func presence(v any) int {
	if v == nil {
		return 0
	}
	return 1
}

func asNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	}
	return 0, false
}

// counted cuts the list and tells its full length in a header.
func (q *request) counted(docs []map[string]any, pg page) any {
	q.w.Header().Set("Girder-Total-Count", strconv.Itoa(len(docs)))
	return pg.cut(docs)
}

func views[T any](docs []*T, view func(*T) map[string]any) []map[string]any {
	out := make([]map[string]any, len(docs))
	for i, doc := range docs {
		out[i] = view(doc)
	}
	return out
}

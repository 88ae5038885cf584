package stage

import (
	"mime"
	"path/filepath"
	"strings"
)

// mimeTypes has what results often are, so that a file's type does not depend
// on which tables this node has.
var mimeTypes = map[string]string{
	".avi": "video/x-msvideo", ".bin": "application/octet-stream", ".bmp": "image/bmp", ".bz2": "application/x-bzip2",
	".csv": "text/csv", ".gif": "image/gif", ".gz": "application/gzip", ".h5": "application/x-hdf5", ".htm": "text/html",
	".html": "text/html", ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".json": "application/json", ".log": "text/plain",
	".md": "text/markdown", ".mp4": "video/mp4", ".npy": "application/octet-stream", ".pdf": "application/pdf",
	".png": "image/png", ".svg": "image/svg+xml", ".tar": "application/x-tar", ".tgz": "application/gzip",
	".tif": "image/tiff", ".tiff": "image/tiff", ".tsv": "text/tab-separated-values", ".txt": "text/plain",
	".wav": "audio/x-wav", ".webp": "image/webp", ".xml": "application/xml", ".yaml": "application/yaml",
	".yml": "application/yaml", ".zip": "application/zip",
}

// mimeType tells a file's type by its extension; empty where it cannot be told.
func mimeType(name string) string {
	ext := strings.ToLower(filepath.Ext(name))
	if known, ok := mimeTypes[ext]; ok {
		return known
	}
	known, _, _ := strings.Cut(mime.TypeByExtension(ext), ";")
	return known
}

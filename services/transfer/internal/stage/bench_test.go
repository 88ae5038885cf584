package stage

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// 5,000 small files, as data sets often are.
const benchFolders, benchFiles = 50, 100

func BenchmarkStageInOfManySmallFiles(b *testing.B) {
	s := startSite(b)
	top, err := s.Server.CreateFolder(s.item.FolderID, "top", false)
	if err != nil {
		b.Fatal(err)
	}
	for i := range benchFolders {
		folder, err := s.Server.CreateFolder(top.ID, fmt.Sprint(i), false)
		if err != nil {
			b.Fatal(err)
		}
		for j := range benchFiles {
			name := fmt.Sprintf("%d.txt", j)
			item, err := s.Server.CreateItem(folder.ID, name)
			if err == nil {
				_, err = s.AddFile(item.ID, name, strings.NewReader(strings.Repeat("x", 1000)))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		staged, err := In{Source: s.Client, Folder: girder.FolderID(top.ID), Volume: b.TempDir(), Retry: quick}.Run(b.Context())
		if err != nil || staged.Bytes != benchFolders*benchFiles*1000 {
			b.Fatal(staged, err)
		}
	}
	b.ReportMetric(benchFolders*benchFiles*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkStageInOfALargeFile(b *testing.B) {
	const size = 256 << 20
	s := startSite(b)
	file, err := s.AddFile(s.item.ID, "large", io.LimitReader(zeros{}, size))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if _, err := (In{Source: s.Client, File: girder.FileID(file.ID), Volume: b.TempDir(), Retry: quick}).Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStageOutOfManySmallFiles(b *testing.B) {
	s, volume := startSite(b), b.TempDir()
	for i := range benchFolders {
		folder := filepath.Join(volume, "out", fmt.Sprint(i))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range benchFiles {
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.txt", j)), make([]byte, 1000), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		into, err := s.Server.CreateFolder(s.item.FolderID, fmt.Sprint("results ", b.Elapsed()), false)
		if err != nil {
			b.Fatal(err)
		}
		sent, err := Out{Sink: s.Client, Folder: girder.FolderID(into.ID), Volume: volume, Path: "out", Retry: quick}.Run(b.Context())
		if err != nil || len(sent) != benchFolders*benchFiles {
			b.Fatal(len(sent), err)
		}
	}
	b.ReportMetric(benchFolders*benchFiles*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

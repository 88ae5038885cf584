package service

import (
	"io"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/services/internal/config"
)

func TestSettings(t *testing.T) {
	t.Setenv("GANTRY_CACHE_SIZE", "20g")
	t.Setenv("GANTRY_SESSION_FILES", "/etc/girder,/srv/pem")
	t.Setenv("GANTRY_RATE_LIMIT", "") // as a compose file passes what is not set
	var cfg Config
	if _, err := config.Parse("transfer", "", &cfg, []string{"--girder-connections=4"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	got, err := cfg.sizes()
	if err != nil || got != (sizes{rate: 0, cache: 20 << 30}) {
		t.Errorf("%+v, %v", got, err)
	}
	if cfg.GirderConnections != 4 || strings.Join(cfg.SessionFiles, " ") != "/etc/girder /srv/pem" {
		t.Errorf("%+v", cfg)
	}
	if _, err := config.Parse("transfer", "", &cfg, []string{"--rate-limit=50m"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got, _ := cfg.sizes(); got.rate != 50<<20 {
		t.Errorf("%+v", got)
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ setting, says string }{
		{"--rate-limit=fast", `--rate-limit: must be 0, or a size of 64k or more for each second such as 50m, is "fast"`},
		{"--rate-limit=10k", `is "10k"`},
		{"--rate-limit=-50m", `is "-50m"`},
		{"--cache-size=-1", `--cache-size: must be a size such as 20g, or 0, is "-1"`},
		{"--cache-size=20 apples", `is "20 apples"`},
		{"--girder-connections=0", "--girder-connections: must be 1 or more, is 0"},
		{"--session-files=/a,b", `--session-files: must be absolute paths of folders, has "b"`},
		{"--concurrency=0", "--concurrency: must be 1 or more, is 0"},
		{"--girder-patience=0s", "--girder-patience: must be a positive time"},
		{"--work-root=here", `--work-root: must be an absolute path, is "here"`},
		{"--girder-api-url=girder", "--girder-api-url: must be an http or https URL"},
	} {
		_, err := config.Parse("transfer", "", new(Config), []string{test.setting}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.setting, err)
		}
	}
}

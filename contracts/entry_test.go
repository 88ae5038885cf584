package contracts

import (
	"errors"
	"strings"
	"testing"
)

func TestDecodeEntryOfAnUnknownType(t *testing.T) {
	t.Parallel()
	entry, err := DecodeEntry([]byte(`{"version":1,"type":"teleported","job":"j","attempt":2,"data":{"to":"x"},"later":1}`))
	if !errors.Is(err, ErrUnknownEntry) {
		t.Fatalf("error %v, want ErrUnknownEntry", err)
	}
	if entry == nil || entry.Job != "j" || entry.Attempt != 2 {
		t.Errorf("entry %+v, want its envelope", entry)
	}
	if entry.Terminal() || entry.Running() {
		t.Error("an unknown entry ends nothing and owns nothing")
	}
}

func TestDecodeEntryRefuses(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"no JSON":                  `{"type":"queued"`,
		"a wrong envelope":         `{"type":"queued","attempt":"1"}`,
		"wrong data":               `{"type":"queued","data":{"lane":1}}`,
		"no task":                  `{"type":"submitted","data":{"submission":1}}`,
		"a task that is not there": `{"type":"submitted"}`,
	} {
		if entry, err := DecodeEntry([]byte(data)); err == nil {
			t.Errorf("%s: read as %+v", name, entry)
		}
	}
}

func TestDecodeEntryIgnoresWhatIsNewer(t *testing.T) {
	t.Parallel()
	entry, err := DecodeEntry([]byte(`{"version":1,"type":"claimed","data":{"node":"n","executor":"e","later":1},"later":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	if claimed := entry.Data.(*Claimed); claimed.Node != "n" || claimed.Executor != "e" {
		t.Errorf("%+v", claimed)
	}
}

// An engine's or a server's message may hold any bytes; an entry that cannot be
// written would leave its job without an end.
func TestEntryWithForeignBytesIsWritten(t *testing.T) {
	t.Parallel()
	entry := NextEntry(last("started"), "", "source\xfe", &Failed{Kind: FailureTask, Message: "no such file: \xff"})
	data, err := entry.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeEntry(data)
	if err != nil {
		t.Fatal(err)
	}
	if message := again.Data.(*Failed).Message; message != "no such file: \uFFFD" {
		t.Errorf("message %q", message)
	}
	note, err := NewNote(NoteProgress, 1, 1, Progress{Message: "\xff"})
	if err != nil || !strings.Contains(string(note.Data), "\uFFFD") {
		t.Errorf("note %+v, error %v", note, err)
	}
}

func TestEntryKinds(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]struct {
		terminal, running, claimable bool
		status                       Status
	}{
		"submitted": {status: StatusSubmitted},
		"queued":    {claimable: true, status: StatusQueued},
		"released":  {claimable: true, status: StatusQueued},
		"claimed":   {running: true, status: StatusClaimed},
		"adopted":   {running: true, status: "before"},
		"started":   {running: true, status: StatusRunning},
		"canceling": {running: true, status: StatusCanceling},
		"pushing":   {running: true, status: StatusPushing},
		"pushed":    {running: true, status: StatusPushing},
		"retrying":  {status: StatusRetrying},
		"succeeded": {terminal: true, status: StatusSucceeded},
		"failed":    {terminal: true, status: StatusFailed},
		"canceled":  {terminal: true, status: StatusCanceled},
	} {
		entry := last(kind)
		if entry.Terminal() != want.terminal || entry.Running() != want.running {
			t.Errorf("%s: terminal %t, running %t", kind, entry.Terminal(), entry.Running())
		}
		if entry.Claimable(entry.Offer) != want.claimable || entry.Claimable(entry.Offer-1) {
			t.Errorf("%s: claimable with its offer %t, with an older one %t", kind, entry.Claimable(entry.Offer), entry.Claimable(entry.Offer-1))
		}
		status := StatusAfter("before", entry)
		if status != want.status || status.Terminal() != want.terminal {
			t.Errorf("%s: status %q, terminal %t", kind, status, status.Terminal())
		}
	}
}

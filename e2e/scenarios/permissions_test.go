package scenarios

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// shippedUsers are the users of deploy/nats/nats.conf but for the operator.
var shippedUsers = []string{"dispatcher", "executor", "transfer", "job-tracker", "client"}

// shippedServer starts NATS with the configuration that is shipped.
func shippedServer(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"DISPATCHER", "EXECUTOR", "TRANSFER", "TRACKER", "CLIENT", "ADMIN"} {
		t.Setenv("GANTRY_NATS_PASSWORD_"+name, "password")
	}
	options, err := server.ProcessConfigFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.HTTPPort, options.StoreDir = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir()
	options.NoSigs, options.NoLog = true, true
	nats, err := natstest.Run(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nats.Shutdown()
		nats.WaitForShutdown()
	})
	return nats.ClientURL()
}

func as(t *testing.T, url, user string) *client.Client {
	t.Helper()
	c, err := client.Connect(t.Context(), client.Config{URL: url, User: user, Password: "password", Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// patience is how long a word of the server may take on a busy machine.
const patience = 2 * time.Minute

// refused reports whether the server says that a user may not do something.
func refused(t *testing.T, c *client.Client, do func(*nats.Conn) error) bool {
	t.Helper()
	said := make(chan error, 8)
	c.Conn().SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { said <- err })
	if err := do(c.Conn()); err != nil {
		t.Fatal(err)
	}
	if err := c.Conn().Flush(); err != nil { // what the server has to say comes before its pong
		t.Fatal(err)
	}
	select { // the handler runs in a goroutine of its own
	case err := <-said:
		return errors.Is(err, nats.ErrPermissionViolation)
	case <-time.After(patience):
		return false
	}
}

// Answers carry secrets: whoever may listen to somebody else's inbox reads them.
func TestNobodyHearsTheInboxOfAnother(t *testing.T) {
	url := shippedServer(t)
	for _, user := range shippedUsers {
		subjects := []string{"_INBOX.>", ">", "_INBOX_*.>", "tasks.>"}
		for _, other := range shippedUsers {
			if other != user {
				subjects = append(subjects, "_INBOX_"+other+".>")
			}
		}
		for _, subject := range subjects {
			if !refused(t, as(t, url, user), func(conn *nats.Conn) error {
				_, err := conn.Subscribe(subject, func(*nats.Msg) {})
				return err
			}) {
				t.Errorf("%s may listen to %s", user, subject)
			}
		}
	}
}

func TestSecretsAreReadByTheirKindAlone(t *testing.T) {
	url := shippedServer(t)
	dispatcher := as(t, url, "dispatcher")
	if err := dispatcher.ApplyTopology(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, kind := range contracts.SecretKinds {
		if _, err := dispatcher.JetStream().Publish(t.Context(), "$KV.secrets.job."+string(kind), []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	may := map[string]contracts.SecretKind{
		"transfer": contracts.SecretIO, "job-tracker": contracts.SecretJob, "executor": contracts.SecretContainer,
	}
	for _, user := range shippedUsers {
		c := as(t, url, user)
		kv, err := c.JetStream().KeyValue(t.Context(), contracts.BucketSecrets)
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		for _, kind := range contracts.SecretKinds {
			// A request that is refused gets no answer, only the server's word of it.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			c.Conn().SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) { cancel() })
			_, err := kv.Get(ctx, "job."+string(kind))
			cancel()
			if got, want := err == nil, may[user] == kind; got != want {
				t.Errorf("%s reads %s secrets: %v, want %v (%v)", user, kind, got, want, err)
			}
		}
	}
}

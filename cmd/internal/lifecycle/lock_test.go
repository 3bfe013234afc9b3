package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-relay/tandem/bench/lab/require"
)

func instanceDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "run", "edge")
	if err := PrepareDir(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLockIsHeldByOne(t *testing.T) {
	dir := instanceDir(t)
	if _, held, err := Held(dir); held || err != nil {
		t.Fatalf("a new directory is held: %v %v", held, err)
	}
	owner := Owner{PID: 4711, Socket: "/run/x", Started: time.Now().Round(0)}
	lock, err := Acquire(dir, owner)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(dir, Owner{PID: 2})
	var running *RunningError
	if !errors.As(err, &running) || running.Owner.PID != 4711 || running.Instance != "edge" {
		t.Fatalf("second acquire: %v", err)
	}
	got, held, err := Held(dir)
	if err != nil || !held || got.PID != 4711 || got.Socket != "/run/x" || !got.Started.Equal(owner.Started) {
		t.Fatalf("held: %+v %v %v", got, held, err)
	}
	all, err := Instances(filepath.Dir(dir))
	if err != nil || len(all) != 1 || all["edge"].PID != 4711 {
		t.Fatalf("instances: %v %v", all, err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if _, held, err := Held(dir); held || err != nil {
		t.Fatalf("held after release: %v %v", held, err)
	}
	if all, err := Instances(filepath.Dir(dir)); err != nil || len(all) != 0 {
		t.Fatalf("instances after release: %v %v", all, err)
	}
	lock, err = Acquire(dir, Owner{PID: 1})
	if err != nil {
		t.Fatalf("acquire after release: %v", err)
	}
	if got, _, _ := Held(dir); got.PID != 1 {
		t.Fatalf("the new owner is shorter than the old one and must replace it: %+v", got)
	}
	if err := lock.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("directory after remove: %v", err)
	}
}

// What is in the directory goes, the hold on the instance stays.
func TestClear(t *testing.T) {
	dir := instanceDir(t)
	lock, err := Acquire(dir, Owner{PID: 4711})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "journal", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "journal", "journal"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := lock.Clear(); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != lockFile {
			t.Errorf("left: %v %v", entries, err)
		}
		if owner, held, err := Held(dir); err != nil || !held || owner.PID != 4711 {
			t.Errorf("held: %+v %v %v", owner, held, err)
		}
	}
	if err := lock.Remove(); err != nil {
		t.Fatal(err)
	}
}

// A process that opened the lock file before it was removed must not believe to hold the instance.
func TestLockOfRemovedFile(t *testing.T) {
	dir := instanceDir(t)
	old, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if same, err := stillThere(old, filepath.Join(dir, lockFile)); !same || err != nil {
		t.Fatalf("the file is there: %v %v", same, err)
	}
	if err := os.Remove(filepath.Join(dir, lockFile)); err != nil {
		t.Fatal(err)
	}
	if same, err := stillThere(old, filepath.Join(dir, lockFile)); same || err != nil {
		t.Fatalf("the file was removed: %v %v", same, err)
	}
	lock, err := Acquire(dir, Owner{PID: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if same, err := stillThere(old, filepath.Join(dir, lockFile)); same || err != nil {
		t.Fatalf("another file has the name: %v %v", same, err)
	}
}

// However processes come, remove and go, one at a time holds the instance.
func TestLockUnderRemoval(t *testing.T) {
	dir := instanceDir(t)
	var holders, taken atomic.Int32
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 500 {
				if err := PrepareDir(dir); err != nil {
					continue // removed under our feet
				}
				lock, err := Acquire(dir, Owner{PID: 1})
				if err != nil {
					continue // somebody else has it, or has just removed it
				}
				taken.Add(1)
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold it", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				if err := lock.Remove(); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if taken.Load() == 0 {
		t.Error("nobody ever held it")
	}
}

func TestPrepareDirOfAnother(t *testing.T) {
	require.Root(t) // to give a directory to another user
	base := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(base, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := PrepareDir(filepath.Join(base, "edge")); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("got %v", err)
	}
}

func TestInstancesWithoutBase(t *testing.T) {
	if all, err := Instances(filepath.Join(t.TempDir(), "none")); err != nil || len(all) != 0 {
		t.Errorf("got %v %v", all, err)
	}
}

func TestPrepareDir(t *testing.T) {
	cases := []struct {
		name    string
		prepare func(base string) error
		want    string // in the error; empty: none
	}{
		{"nothing there", func(string) error { return nil }, ""},
		{"a base of ours", func(base string) error { return os.Mkdir(base, 0o700) }, ""},
		{"a base that everybody can write to", func(base string) error {
			if err := os.Mkdir(base, 0o700); err != nil {
				return err
			}
			return os.Chmod(base, 0o777)
		}, "is writable by everybody"},
		{"a base that is a link to elsewhere", func(base string) error { return os.Symlink(os.TempDir(), base) }, "is not a directory"},
		{"a base that is a file", func(base string) error { return os.WriteFile(base, nil, 0o600) }, "is not a directory"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "run")
			if err := c.prepare(base); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(base, "edge")
			err := PrepareDir(dir)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q in it", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&^0o750 != 0 {
				t.Errorf("mode %v %v", info.Mode(), err)
			}
			// Whose instances are his own affair has a base of his own, too.
			if info, err := os.Stat(base); err != nil || os.Geteuid() != 0 && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("mode of the base %v %v", info.Mode(), err)
			}
		})
	}
}

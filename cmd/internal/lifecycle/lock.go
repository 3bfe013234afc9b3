package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const lockFile = "lock"

// Owner is who holds an instance.
type Owner struct {
	PID     int       `json:"pid"`
	Socket  string    `json:"socket,omitempty"` // control API
	Started time.Time `json:"started"`
}

// RunningError says that another process holds the instance.
type RunningError struct {
	Instance string
	Owner    Owner // zero if the other process had not yet said who it is
}

func (e *RunningError) Error() string {
	if e.Owner.PID == 0 {
		return fmt.Sprintf("instance %q is in use by another process", e.Instance)
	}
	return fmt.Sprintf("instance %q is in use by process %d, running since %s", e.Instance, e.Owner.PID, e.Owner.Started.Local().Format(time.DateTime))
}

// Lock is the hold on an instance. The kernel releases it when the process ends, however it ends.
type Lock struct {
	file *os.File
	dir  string
}

// PrepareDir makes the runtime directory of an instance, base included. The directory is for owner and group only. It refuses
// a base that somebody else could have put there.
func PrepareDir(dir string) error {
	base := filepath.Dir(dir)
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return fmt.Errorf("make runtime directory: %w", err)
	}
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{base, baseMode()}, {dir, 0o750}} {
		if err := os.Mkdir(d.path, d.mode); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make runtime directory: %w", err)
		}
		if err := Trusted(d.path); err != nil {
			return err
		}
	}
	return nil
}

// baseMode lets everybody see which instances root has. Those of a user are his own affair.
func baseMode() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o755
	}
	return 0o700
}

// Trusted refuses a directory that is a link, or of another user, or writable by others.
func Trusted(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("look at runtime directory %s: %w", path, err)
	}
	switch uid := os.Geteuid(); {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("runtime directory %s is not a directory", path)
	case int(st.Uid) != uid && st.Uid != 0:
		return fmt.Errorf("runtime directory %s belongs to user %d, not to %d", path, st.Uid, uid)
	case st.Mode&unix.S_IWOTH != 0:
		return fmt.Errorf("runtime directory %s is writable by everybody", path)
	}
	return nil
}

// Acquire takes the instance whose runtime directory is dir, which must exist. It returns *RunningError if another process
// holds it.
func Acquire(dir string, owner Owner) (*Lock, error) {
	instance := filepath.Base(dir)
	for {
		f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
		if err != nil {
			return nil, fmt.Errorf("lock instance %q: %w", instance, err)
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, whole()); err != nil {
			defer f.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return nil, &RunningError{Instance: instance, Owner: readOwner(f)}
			}
			return nil, fmt.Errorf("lock instance %q: %w", instance, err)
		}
		// Whoever held the lock may have removed the file (see Remove): then this lock excludes nobody.
		if same, err := stillThere(f, filepath.Join(dir, lockFile)); err != nil || !same {
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("lock instance %q: %w", instance, err)
			}
			continue
		}
		l := &Lock{file: f, dir: dir}
		if err := l.write(owner); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock instance %q: %w", instance, err)
		}
		return l, nil
	}
}

func stillThere(f *os.File, path string) (bool, error) {
	held, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(held, named), nil
}

func (l *Lock) write(owner Owner) error {
	text, err := json.Marshal(owner)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if _, err := l.file.WriteAt(text, 0); err != nil {
		return err
	}
	return l.file.Truncate(int64(len(text)))
}

// Release gives the instance free.
func (l *Lock) Release() error { return l.file.Close() }

// Clear removes everything from the runtime directory but the lock, which stays held.
func (l *Lock) Clear() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("clear runtime directory: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() == lockFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(l.dir, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("clear runtime directory: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Remove gives the instance free and removes its runtime directory with all that is in it.
func (l *Lock) Remove() error {
	return errors.Join(os.RemoveAll(l.dir), l.file.Close())
}

// Held tells who holds the instance whose runtime directory is dir, without taking it.
func Held(dir string) (Owner, bool, error) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return Owner{}, false, nil
	}
	if err != nil {
		return Owner{}, false, fmt.Errorf("look at instance: %w", err)
	}
	defer f.Close()
	lock := whole()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, lock); err != nil {
		return Owner{}, false, fmt.Errorf("look at instance: %w", err)
	}
	if lock.Type == unix.F_UNLCK {
		return Owner{}, false, nil
	}
	return readOwner(f), true, nil
}

// whole is a lock on the whole file. Open file description locks, unlike flock, can be asked for without being taken.
func whole() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }

// Instances lists the instances under base that a process holds.
func Instances(base string) (map[string]Owner, error) {
	entries, err := os.ReadDir(base)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	running := map[string]Owner{}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		owner, held, err := Held(filepath.Join(base, e.Name()))
		if err != nil {
			if errors.Is(err, os.ErrPermission) {
				continue
			}
			return nil, err
		}
		if held {
			running[e.Name()] = owner
		}
	}
	return running, nil
}

// readOwner reads what the holder wrote; zero if it has not yet.
func readOwner(f *os.File) Owner {
	var owner Owner
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil || json.Unmarshal(text, &owner) != nil {
		return Owner{}
	}
	return owner
}

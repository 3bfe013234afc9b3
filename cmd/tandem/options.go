package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-relay/tandem/cmd/internal/config"
	"github.com/tandem-relay/tandem/cmd/internal/exit"
	"github.com/tandem-relay/tandem/cmd/internal/lifecycle"
	"github.com/tandem-relay/tandem/signalling/rest"
)

// options are the flags that all commands share, and where they print.
type options struct {
	stdout, stderr   io.Writer
	instance, socket string
	json             bool
	started          bool // a command began its work
	printed          bool // the object of --json was printed
}

// client connects to the daemon that is meant.
func (o *options) client() (*rest.Client, error) {
	socket, err := o.find()
	if err != nil {
		return nil, err
	}
	return rest.NewClient(socket), nil
}

// find returns the control socket of the daemon that is meant: the given one, the given instance's, or that of the only one that runs.
func (o *options) find() (string, error) {
	if o.socket != "" && o.instance != "" {
		return "", exit.With(exit.Usage, errors.New("--instance and --socket both say which daemon is meant: give one of them"))
	}
	if o.socket != "" {
		return o.socket, nil
	}
	base := config.RuntimeBase()
	if err := checkBase(base); err != nil {
		return "", err
	}
	if o.instance != "" {
		if !config.ValidInstance(o.instance) {
			return "", exit.With(exit.Usage, fmt.Errorf("%q cannot name an instance", o.instance))
		}
		dir := filepath.Join(base, o.instance)
		owner, held, err := lifecycle.Held(dir)
		if err != nil {
			return "", err
		}
		if !held {
			return "", exit.With(exit.NotRunning, fmt.Errorf("instance %q is not running (nobody holds %s)%s", o.instance, filepath.Join(dir, "lock"), elsewhere(base)))
		}
		return socketOf(owner, dir), nil
	}
	running, err := lifecycle.Instances(base)
	if err != nil {
		return "", err
	}
	names := slices.Sorted(maps.Keys(running))
	switch len(names) {
	case 0:
		return "", exit.With(exit.NotRunning, fmt.Errorf("tandemd is not running (no instance in %s)%s", base, elsewhere(base)))
	case 1:
		return socketOf(running[names[0]], filepath.Join(base, names[0])), nil
	}
	return "", exit.With(exit.Usage, fmt.Errorf("several instances run: %s; choose one with --instance", strings.Join(names, ", ")))
}

func socketOf(owner lifecycle.Owner, dir string) string {
	if owner.Socket != "" {
		return owner.Socket
	}
	return filepath.Join(dir, "api.sock")
}

// checkBase refuses a directory of instances that somebody else could have made, with an instance of his. Where the operator chose
// it, the choice is his.
func checkBase(base string) error {
	if os.Getenv("TANDEM_RUNTIME_DIR") != "" {
		return nil
	}
	if err := lifecycle.Trusted(base); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// elsewhere reminds a user who is not root that the instances of root are not his.
func elsewhere(base string) string {
	const system = "/run/tandem"
	if info, err := os.Stat(system); os.Geteuid() != 0 && base != system && err == nil && info.IsDir() {
		return "; instances of root need sudo"
	}
	return ""
}

// explain gives errors of the client their exit code.
func explain(err error) error {
	if errors.Is(err, rest.ErrNotRunning) {
		return exit.With(exit.NotRunning, err)
	}
	return err
}

// print prints v as JSON, or by the function that makes a table.
func (o *options) print(v any, table func(io.Writer) error) error {
	if !o.json {
		return table(o.stdout)
	}
	o.printed = true
	e := json.NewEncoder(o.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

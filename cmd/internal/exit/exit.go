// Package exit gives the programs' exit codes their meaning, one for all of them.
package exit

import "errors"

// Code is an exit code.
type Code int

// The exit codes. They are part of the interface: scripts and units rely on them.
const (
	OK         Code = 0
	Failure    Code = 1 // what was asked for did not work out
	Usage      Code = 2 // the command line is wrong
	Config     Code = 3 // the configuration is refused
	NotRunning Code = 4 // no daemon answers
	Running    Code = 5 // a daemon of this instance runs already
	Privilege  Code = 6 // a capability is missing
)

// Help lists the codes for the programs' help texts.
const Help = `Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration refused, 4 daemon not running,
5 a daemon of this instance runs already, 6 a capability is missing.`

// Error is an error that decides the exit code.
type Error struct {
	Code Code
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error itself.
func (e *Error) Unwrap() error { return e.Err }

// With gives an error its exit code; nil stays nil.
func With(code Code, err error) error {
	if err == nil {
		return nil
	}
	return &Error{code, err}
}

// Of is the exit code of an error: that of the outermost Error in it, Failure for any other.
func Of(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Code
	}
	return Failure
}

// Package speech holds the G.711 μ-law recordings that test calls play.
package speech

import _ "embed"

// FrameSize is the size in bytes of 20 ms of G.711.
const FrameSize = 160

//go:embed caller.ulaw
var caller string

//go:embed callee.ulaw
var callee string

// Voice is a recording in whole frames, played in a loop. It cannot be changed.
type Voice struct{ audio string }

// Caller is what the caller says.
func Caller() Voice { return Voice{caller} }

// Callee is what the callee says.
func Callee() Voice { return Voice{callee} }

// Frames is the length of the recording.
func (v Voice) Frames() int { return len(v.audio) / FrameSize }

// Frame returns the n-th frame of the endless loop, FrameSize bytes.
func (v Voice) Frame(n uint64) string {
	at := int(n%uint64(v.Frames())) * FrameSize
	return v.audio[at : at+FrameSize]
}

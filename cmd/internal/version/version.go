// Package version knows which build this is.
package version

import "runtime/debug"

// Version is set by the linker; see String.
var Version string

// String is the version given at build time, or else what the Go tool noted of the source.
func String() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// Package guard ends a panic where one packet or timer is handled, so that the process and its calls go on.
package guard

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// period is the least time between two messages of one Panics.
const period = time.Second

// Panics counts what was caught. The zero value is ready; all methods may be called concurrently.
type Panics struct {
	count atomic.Uint64
	last  atomic.Int64 // when the last message was due, ns since 1970
}

// Catch ends a panic of the function that defers it, counts it and logs it with its stack, once a second at most. What
// names the work in which it happened. It must be deferred directly.
func (p *Panics) Catch(logger *slog.Logger, what string) {
	v := recover()
	if v == nil {
		return
	}
	n := p.count.Add(1)
	now, last := time.Now().UnixNano(), p.last.Load()
	if now-last < int64(period) && n > 1 || !p.last.CompareAndSwap(last, now) {
		return
	}
	logger.Error("panic", "in", what, "err", fmt.Sprint(v), "panics", n, "stack", string(debug.Stack()))
}

// Count is the number of panics that were caught.
func (p *Panics) Count() uint64 { return p.count.Load() }

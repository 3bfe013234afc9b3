package sip

import "sync/atomic"

// counter names one of a server's counters.
type counter uint8

const (
	cReceived counter = iota
	cSent
	cSendErrors
	cReadErrors
	cStrangers
	cMalformed
	cComplaints
	cOversize
	cKeepalives
	cQueueFull
	cShed
	cTableFull
	cRetransmitsIn
	cRetransmitsOut
	cStrayResponses
	cStrayACKs
	cTokenless
	cForeign
	cTimeouts
	cMerged
	cRejected
	cCallsStarted
	cCallsAnswered
	cCallsChallenged
	cCallsCancelled
	cCallsFailed
	cCallsEnded
	cCallsRestored
	cCallsLost
	cReleaseRetries
	cPanics
	counters
)

// counterNames are the keys of Server.Counters.
var counterNames = [counters]string{
	cReceived:        "messages_received",
	cSent:            "messages_sent",
	cSendErrors:      "send_errors",
	cReadErrors:      "read_errors",
	cStrangers:       "strangers_dropped",
	cMalformed:       "malformed",
	cComplaints:      "complaints_suppressed",
	cOversize:        "oversize_dropped",
	cKeepalives:      "keepalives",
	cQueueFull:       "queue_full_dropped",
	cShed:            "overload_dropped",
	cTableFull:       "table_full_dropped",
	cRetransmitsIn:   "retransmissions_received",
	cRetransmitsOut:  "retransmissions_sent",
	cStrayResponses:  "stray_responses",
	cStrayACKs:       "stray_acks",
	cTokenless:       "tokenless_requests",
	cForeign:         "foreign_trunk_rejected",
	cTimeouts:        "transaction_timeouts",
	cMerged:          "merged_rejected",
	cRejected:        "requests_rejected",
	cCallsStarted:    "calls_started",
	cCallsAnswered:   "calls_answered",
	cCallsChallenged: "calls_challenged",
	cCallsCancelled:  "calls_cancelled",
	cCallsFailed:     "calls_failed",
	cCallsEnded:      "calls_ended",
	cCallsRestored:   "calls_restored",
	cCallsLost:       "calls_lost",
	cReleaseRetries:  "release_retries",
	cPanics:          "panics",
}

// counts are a server's counters.
type counts [counters]atomic.Uint64

func (c *counts) add(n counter) { c[n].Add(1) }

// snapshot returns them by name.
func (c *counts) snapshot() map[string]uint64 {
	all := make(map[string]uint64, counters)
	for i, name := range counterNames {
		all[name] = c[i].Load()
	}
	return all
}

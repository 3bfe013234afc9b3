package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// Notify tells the service manager the state of the process, such as "READY=1", after sd_notify(3). Without a service manager it does nothing.
func Notify(state ...string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] != '/' && name[0] != '@' {
		return fmt.Errorf("notify service manager: %w: NOTIFY_SOCKET=%q", errors.ErrUnsupported, name)
	}
	conn, err := net.Dial("unixgram", name)
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(state, "\n"))); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}

// Command tandem-bench measures what Tandem promises.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tandem-relay/tandem/bpf"
)

func main() {
	root := &cobra.Command{
		Use:           "tandem-bench",
		Short:         "Measure Tandem on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(xdp())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "tandem-bench:", err)
		os.Exit(1)
	}
}

// xdpResult is what `tandem-bench xdp --json` prints.
type xdpResult struct {
	Sessions    int     `json:"sessions"`
	NsPerPacket float64 `json:"ns_per_packet"`
	BaselineNs  float64 `json:"baseline_ns"`
}

func xdp() *cobra.Command {
	var sessions int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "xdp",
		Short: "Time per packet of the XDP program, by test runs over random sessions, above its harness",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ns, baseline, err := bpf.Measure(sessions)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(xdpResult{Sessions: sessions, NsPerPacket: ns, BaselineNs: baseline})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d sessions: %.0f ns per packet (above a harness of %.0f ns)\n", sessions, ns, baseline)
			return err
		},
	}
	cmd.Flags().IntVar(&sessions, "sessions", 4096, fmt.Sprintf("number of sessions, 1 to %d", bpf.MeasureMax))
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// Print where the dashboard on the standard input does not fit Grafana's schema.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	// The schemas of panels and queries.
	plugins.RegisterDefaultPlugins()
	// The SDK returns an empty list of errors if there is none.
	if err := check(os.Stdin); err != nil && err.Error() != "" {
		fmt.Println(err)
		os.Exit(1)
	}
}

func check(input io.Reader) error {
	raw, err := io.ReadAll(input)
	if err != nil {
		return err
	}
	var read dashboard.Dashboard
	if err := read.UnmarshalJSONStrict(raw); err != nil && err.Error() != "" {
		return err
	}
	return read.Validate()
}

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
	plugins.RegisterDefaultPlugins()                             // the schemas of panels and queries
	if err := check(os.Stdin); err != nil && err.Error() != "" { // the SDK also returns empty lists
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

// Command gitops answers how GitOps tools treat Tasks, with the code of these tools: kstatus, Argo CD (its Lua machine and its
// engine for diffs and syncs) and Flux (its apply, drift detection, wait and CEL expressions). Built by ../parts/install.
//
// It reads JSON values from stdin and prints one JSON value for each, with an `error` where the tool itself would report one.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// verb handles one value of stdin.
type verb func(input json.RawMessage) (any, error)

var verbs = map[string]verb{
	"argo-action": argoAction,
	"argo-diff":   argoDiff,
	"argo-sync":   argoSync,
	"decode":      decodeHelmRelease,
	"flux-apply":  fluxApply,
	"health":      health,
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gitops:", err)
		os.Exit(1)
	}
}

func run(arguments []string, in io.Reader, out io.Writer) error {
	if len(arguments) != 1 || verbs[arguments[0]] == nil {
		return fmt.Errorf("give one of argo-action, argo-diff, argo-sync, decode, flux-apply, health, not %q", arguments)
	}
	handle := verbs[arguments[0]]
	values, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var input json.RawMessage
		if err := values.Decode(&input); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("stdin is not JSON: %w", err)
		}
		answer, err := handle(input)
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		if err := answers.Encode(answer); err != nil {
			return fmt.Errorf("print an answer: %w", err)
		}
	}
}

// decode reads an input strictly: a misspelt name is an error and not a default.
func decode(input json.RawMessage, into any) error {
	value := json.NewDecoder(newReader(input))
	value.DisallowUnknownFields()
	if err := value.Decode(into); err != nil {
		return fmt.Errorf("input %.200s: %w", input, err)
	}
	return nil
}

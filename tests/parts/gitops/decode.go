package main

import (
	"encoding/json"

	helm "github.com/fluxcd/helm-controller/api/v2"
)

// decodeHelmRelease decodes a HelmRelease strictly, by the controller's own type: its definition is in no Go module.
func decodeHelmRelease(input json.RawMessage) (any, error) {
	var release helm.HelmRelease
	if err := decode(input, &release); err != nil {
		return nil, err
	}
	return map[string]string{"chart": release.Spec.Chart.Spec.Chart}, nil
}

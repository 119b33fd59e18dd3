package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	argo "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const (
	healthKey  = "resource.customizations.health."
	actionsKey = "resource.customizations.actions."
)

// overridesOf reads Argo CD's customizations from its ConfigMap, or from a patch of it.
func overridesOf(path string) (lua.ResourceHealthOverrides, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file corev1.ConfigMap
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	overrides := lua.ResourceHealthOverrides{}
	for key, script := range file.Data {
		of, isHealth := strings.CutPrefix(key, healthKey)
		if isHealth {
			override := overrides[strings.Replace(of, "_", "/", 1)]
			override.HealthLua = script
			overrides[strings.Replace(of, "_", "/", 1)] = override
		} else if of, isActions := strings.CutPrefix(key, actionsKey); isActions {
			override := overrides[strings.Replace(of, "_", "/", 1)]
			override.Actions = script
			overrides[strings.Replace(of, "_", "/", 1)] = override
		} else {
			return nil, fmt.Errorf("%s: %q is neither health nor actions", path, key)
		}
	}
	return overrides, nil
}

func overridesOfNothing() lua.ResourceHealthOverrides { return lua.ResourceHealthOverrides{} }

// argoAction prints the actions that Argo CD offers for an object, and what the named one makes of it.
func argoAction(input json.RawMessage) (any, error) {
	var request struct {
		Object    map[string]any `json:"object"`
		ConfigMap string         `json:"configMap"`
		// Action may be empty: only the offer is wanted.
		Action string `json:"action"`
	}
	if err := decode(input, &request); err != nil {
		return nil, err
	}
	overrides, err := overridesOf(request.ConfigMap)
	if err != nil {
		return nil, err
	}
	object, machine := integers(request.Object), lua.VM{ResourceOverrides: overrides}
	scripts, err := machine.GetResourceActionDiscovery(object)
	if err != nil {
		return nil, err
	}
	offered, err := machine.ExecuteResourceActionDiscovery(object, scripts)
	if err != nil {
		return nil, err
	}
	sort.Slice(offered, func(a, b int) bool { return offered[a].Name < offered[b].Name })
	answer := struct {
		Offered []argo.ResourceAction `json:"offered"`
		Object  map[string]any        `json:"object,omitempty"`
	}{Offered: offered}
	if request.Action == "" {
		return answer, nil
	}
	action, err := machine.GetResourceAction(object, request.Action)
	if err != nil {
		return nil, err
	}
	impacted, err := machine.ExecuteResourceAction(object, action.ActionLua, nil)
	if err != nil {
		return nil, err
	}
	if len(impacted) != 1 || impacted[0].K8SOperation != lua.PatchOperation {
		return nil, fmt.Errorf("action %s is not one patch: %v", request.Action, impacted)
	}
	answer.Object = impacted[0].UnstructuredObj.Object
	return answer, nil
}

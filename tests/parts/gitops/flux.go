package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/ssa"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// fluxApply applies objects as Flux's controllers do, waits for them if asked, and then detects drift.
func fluxApply(input json.RawMessage) (any, error) {
	var request struct {
		Objects    []map[string]any `json:"objects"`
		Kubeconfig string           `json:"kubeconfig"`
		// Namespace and Name are the Kustomization's.
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
		// Manager is the field manager: kustomize-controller or helm-controller.
		Manager string `json:"manager"`
		// Kustomization has the expressions; without it the wait is kstatus's.
		Kustomization string `json:"kustomization"`
		// Seconds to wait; 0 does not wait.
		Seconds int `json:"seconds"`
	}
	if err := decode(input, &request); err != nil {
		return nil, err
	}
	manager, err := fluxManager(request.Kubeconfig, request.Manager, request.Kustomization)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, each := range request.Objects {
		object := integers(each)
		object.SetNamespace(request.Namespace)
		objects = append(objects, object)
	}
	manager.SetOwnerLabels(objects, request.Name, request.Namespace)
	answer := struct {
		Applied map[string]string `json:"applied"`
		Drift   map[string]any    `json:"drift"`
		Wait    string            `json:"wait,omitempty"`
	}{Applied: map[string]string{}, Drift: map[string]any{}}
	applied, err := manager.ApplyAllStaged(context.Background(), objects, ssa.DefaultApplyOptions())
	if err != nil {
		return nil, err
	}
	for _, entry := range applied.Entries {
		answer.Applied[entry.Subject] = entry.Action.String()
	}
	if request.Seconds > 0 {
		wait := ssa.WaitOptions{Interval: time.Second, Timeout: time.Duration(request.Seconds) * time.Second, FailFast: true}
		if err := manager.Wait(objects, wait); err != nil {
			answer.Wait = err.Error()
		}
	}
	for _, object := range objects {
		entry, live, predicted, err := manager.Diff(context.Background(), object, ssa.DefaultDiffOptions())
		if err != nil {
			return nil, err
		}
		if entry.Action != ssa.UnchangedAction {
			answer.Drift[entry.Subject] = map[string]any{"action": entry.Action, "live": live, "predicted": predicted}
		}
	}
	return answer, nil
}

func fluxManager(kubeconfig, name, kustomization string) (*ssa.ResourceManager, error) {
	config, err := config(kubeconfig)
	if err != nil {
		return nil, err
	}
	cluster, err := client.New(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	var options polling.Options
	if kustomization != "" {
		checks, err := healthChecks(kustomization)
		if err != nil {
			return nil, err
		}
		readers, err := cel.PollerWithCustomHealthChecks(context.Background(), checks)
		if err != nil {
			return nil, err
		}
		for _, reader := range readers {
			options.CustomStatusReaders = append(options.CustomStatusReaders, reader(cluster.RESTMapper()))
		}
	}
	poller := polling.NewStatusPoller(cluster, cluster.RESTMapper(), options)
	owner := ssa.Owner{Field: name, Group: "kustomize.toolkit.fluxcd.io"}
	return ssa.NewResourceManager(cluster, poller, owner), nil
}

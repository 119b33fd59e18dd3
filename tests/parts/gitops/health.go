package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	gitopshealth "github.com/argoproj/gitops-engine/pkg/health"
	fluxstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

func newReader(input json.RawMessage) io.Reader { return bytes.NewReader(input) }

// judged is what a tool concludes about an object.
type judged struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// health prints the conclusions of kstatus, of the kstatus in Helm and Flux, of Flux with the expressions, and of Argo CD
// without and with the customization.
func health(input json.RawMessage) (any, error) {
	var request struct {
		Object map[string]any `json:"object"`
		// ConfigMap has Argo CD's customizations, Kustomization Flux's expressions: paths of YAML files.
		ConfigMap     string `json:"configMap"`
		Kustomization string `json:"kustomization"`
	}
	if err := decode(input, &request); err != nil {
		return nil, err
	}
	object := integers(request.Object)
	answer := map[string]judged{}

	upstream, err := status.Compute(object)
	if err != nil {
		return nil, fmt.Errorf("kstatus: %w", err)
	}
	answer["kstatus"] = judged{upstream.Status.String(), upstream.Message}

	flux, err := fluxstatus.Compute(object)
	if err != nil {
		return nil, fmt.Errorf("kstatus of Helm and Flux: %w", err)
	}
	answer["flux"] = judged{flux.Status.String(), flux.Message}

	checks, err := healthChecks(request.Kustomization)
	if err != nil {
		return nil, err
	}
	expressions, err := evaluate(checks, object)
	if err != nil {
		return nil, err
	}
	answer["fluxExpressions"] = *expressions

	overrides, err := overridesOf(request.ConfigMap)
	if err != nil {
		return nil, err
	}
	for name, override := range map[string]gitopshealth.HealthOverride{"argoWithout": overridesOfNothing(), "argo": overrides} {
		argo, err := gitopshealth.GetResourceHealth(object, override)
		if err != nil {
			return nil, fmt.Errorf("health of Argo CD: %w", err)
		}
		if argo == nil {
			// Argo CD takes a resource without health for a success.
			answer[name] = judged{}
			continue
		}
		answer[name] = judged{string(argo.Status), argo.Message}
	}
	return answer, nil
}

// integers is the object with whole numbers as int64, as clients of Kubernetes decode them and kstatus needs them.
func integers(object map[string]any) *unstructured.Unstructured {
	text, err := json.Marshal(object)
	if err != nil {
		panic(err) // it was JSON
	}
	result := &unstructured.Unstructured{}
	if err := result.UnmarshalJSON(text); err != nil {
		// Without a kind it cannot be decoded; the caller's own error is clearer.
		return &unstructured.Unstructured{Object: object}
	}
	return result
}

// healthChecks reads `spec.healthCheckExprs` of a Kustomization.
func healthChecks(path string) ([]kustomize.CustomHealthCheck, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Spec.HealthCheckExprs) == 0 {
		return nil, fmt.Errorf("%s has no spec.healthCheckExprs", path)
	}
	return file.Spec.HealthCheckExprs, nil
}

func evaluate(checks []kustomize.CustomHealthCheck, object *unstructured.Unstructured) (*judged, error) {
	for _, check := range checks {
		if check.APIVersion != object.GetAPIVersion() || check.Kind != object.GetKind() {
			continue
		}
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return nil, fmt.Errorf("expressions: %w", err)
		}
		result, err := evaluator.Evaluate(context.Background(), object)
		if err != nil {
			return nil, fmt.Errorf("expressions: %w", err)
		}
		return &judged{result.Status.String(), result.Message}, nil
	}
	return nil, fmt.Errorf("no expressions for %s %s", object.GetAPIVersion(), object.GetKind())
}

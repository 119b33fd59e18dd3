package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/argoproj/gitops-engine/pkg/cache"
	"github.com/argoproj/gitops-engine/pkg/diff"
	gitopshealth "github.com/argoproj/gitops-engine/pkg/health"
	"github.com/argoproj/gitops-engine/pkg/sync"
	"github.com/argoproj/gitops-engine/pkg/sync/common"
	"github.com/argoproj/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// argoManager is the field manager of Argo CD's server-side apply.
	argoManager = "argocd-controller"
	// trackingID is the annotation by which Argo CD recognizes what belongs to an application.
	trackingID = "argocd.argoproj.io/tracking-id"
	// revision of the repository; Argo CD names hooks after its first seven digits.
	revision = "0000000000000000000000000000000000000000"
	// betweenPasses of a sync; Argo CD waits for a change.
	betweenPasses = 250 * time.Millisecond
)

func config(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	// The client's own limit would be what is measured.
	config.QPS, config.Burst = 200, 400
	return config, nil
}

// track sets the annotation that Argo CD sets on all that it applies.
func track(object *unstructured.Unstructured, application, namespace string) {
	kind := object.GroupVersionKind().GroupKind()
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[trackingID] = fmt.Sprintf("%s:%s/%s:%s/%s", application, kind.Group, kind.Kind, namespace, object.GetName())
	object.SetAnnotations(annotations)
}

// differ compares with one cluster.
type differ struct {
	config  *rest.Config
	kubectl kube.KubectlCmd
	parser  *managedfields.GvkParser
	applier diff.KubeApplier
}

// differs are kept: each reads the whole schema of its cluster.
var differs = map[string]*differ{}

func differFor(kubeconfig string) (*differ, error) {
	if known := differs[kubeconfig]; known != nil {
		return known, nil
	}
	config, err := config(kubeconfig)
	if err != nil {
		return nil, err
	}
	kubectl := kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}
	schema, parser, err := kubectl.LoadOpenAPISchema(config)
	if err != nil {
		return nil, err
	}
	// Its files are temporary and end with this process.
	applier, _, err := kube.ManageServerSideDiffDryRuns(config, schema, kubectl.Tracer, kubectl.Log, nothingOnRun)
	if err != nil {
		return nil, err
	}
	differs[kubeconfig] = &differ{config, kubectl, parser, applier}
	return differs[kubeconfig], nil
}

func nothingOnRun(string) (kube.CleanupFunc, error) { return func() {}, nil }

// argoDiff prints whether Argo CD finds a difference between an object in Git and the live one, by each of its three ways.
func argoDiff(input json.RawMessage) (any, error) {
	var request struct {
		Object     map[string]any `json:"object"`
		Kubeconfig string         `json:"kubeconfig"`
		// Namespace is empty for an object of the cluster.
		Namespace string `json:"namespace"`
		// Application may be empty: Argo CD has not applied the object.
		Application string `json:"application"`
	}
	if err := decode(input, &request); err != nil {
		return nil, err
	}
	differ, err := differFor(request.Kubeconfig)
	if err != nil {
		return nil, err
	}
	wanted := integers(request.Object)
	wanted.SetNamespace(request.Namespace)
	if request.Application != "" {
		track(wanted, request.Application, request.Namespace)
	}
	live, err := differ.kubectl.GetResource(
		context.Background(), differ.config, wanted.GroupVersionKind(), wanted.GetName(), request.Namespace)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{}
	for name, options := range map[string][]diff.Option{
		"threeWay":        nil,
		"structuredMerge": {diff.WithStructuredMergeDiff(true)},
		"serverSide": {
			diff.WithServerSideDiff(true), diff.WithServerSideDryRunner(diff.NewK8sServerSideDryRunner(differ.applier)),
		},
	} {
		options = append(options, diff.WithManager(argoManager), diff.WithLogr(logr.Discard()), diff.WithGVKParser(differ.parser))
		result, err := diff.Diff(wanted, live, options...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		answer[name] = difference(result)
	}
	return answer, nil
}

// difference is nil where the two are alike for Argo CD, or else both.
func difference(result *diff.DiffResult) any {
	if !result.Modified {
		return nil
	}
	return map[string]json.RawMessage{"live": result.NormalizedLive, "predicted": result.PredictedLive}
}

// gated opens a gate when the engine has waited: the second time that it found something in progress.
type gated struct {
	gitopshealth.HealthOverride
	gate  string
	found int
}

func (g *gated) GetResourceHealth(object *unstructured.Unstructured) (*gitopshealth.HealthStatus, error) {
	result, err := g.HealthOverride.GetResourceHealth(object)
	if g.gate != "" && result != nil && result.Status == gitopshealth.HealthStatusProgressing {
		if g.found++; g.found == 2 {
			err = errors.Join(err, os.WriteFile(g.gate, nil, 0o600))
		}
	}
	return result, err
}

// operation is one sync of an application.
type operation struct {
	config                 *rest.Config
	live                   cache.ClusterCache
	namespace, application string
	objects                []*unstructured.Unstructured
}

// run makes a pass after the other until the sync has ended, each with the live objects of then and the results so far, as the
// controller of Argo CD does.
func (o *operation) run(limit time.Duration, options []sync.SyncOpt) ([]common.ResourceSyncResult, error) {
	ours := func(resource *cache.Resource) bool {
		id, _ := resource.Info.(string)
		return strings.HasPrefix(id, o.application+":")
	}
	kubectl := &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}, OnKubectlRun: nothingOnRun}
	started := metav1.Now()
	phase, message, results := common.OperationRunning, "", []common.ResourceSyncResult(nil)
	for {
		managed, err := o.live.GetManagedLiveObjs(o.objects, ours)
		if err != nil {
			return nil, fmt.Errorf("live objects: %w", err)
		}
		reconciled := sync.Reconcile(o.objects, managed, o.namespace, o.live)
		pass := append([]sync.SyncOpt{sync.WithInitialState(phase, message, results, started)}, options...)
		context, cleanup, err := sync.NewSyncContext(
			revision, reconciled, o.config, o.config, kubectl, o.namespace, o.live.GetOpenAPISchema(), pass...)
		if err != nil {
			return nil, fmt.Errorf("begin to sync: %w", err)
		}
		context.Sync()
		phase, message, results = context.GetState()
		cleanup()
		if phase.Completed() {
			if phase != common.OperationSucceeded {
				err = fmt.Errorf("%s: %s", phase, message)
			}
			return results, err
		}
		if time.Since(started.Time) > limit {
			return results, fmt.Errorf("not synced within %s: %s", limit, message)
		}
		time.Sleep(betweenPasses)
	}
}

// argoSync syncs objects as Argo CD does an application: phases, hooks, waves, health.
func argoSync(input json.RawMessage) (any, error) {
	var request struct {
		Objects     []map[string]any `json:"objects"`
		Kubeconfig  string           `json:"kubeconfig"`
		Namespace   string           `json:"namespace"`
		Application string           `json:"application"`
		// ConfigMap may be empty: no customizations are installed.
		ConfigMap       string `json:"configMap"`
		ServerSideApply bool   `json:"serverSideApply"`
		Prune           bool   `json:"prune"`
		// Gate is a file that a command waits for. It is made once the engine has found a resource in progress twice.
		Gate    string `json:"gate"`
		Seconds int    `json:"seconds"`
	}
	if err := decode(input, &request); err != nil {
		return nil, err
	}
	config, err := config(request.Kubeconfig)
	if err != nil {
		return nil, err
	}
	overrides := overridesOfNothing()
	if request.ConfigMap != "" {
		if overrides, err = overridesOf(request.ConfigMap); err != nil {
			return nil, err
		}
	}
	var objects []*unstructured.Unstructured
	for _, each := range request.Objects {
		object := integers(each)
		if object.GetNamespace() == "" {
			object.SetNamespace(request.Namespace)
		}
		track(object, request.Application, request.Namespace)
		objects = append(objects, object)
	}
	live := cache.NewClusterCache(config, cache.SetLogr(logr.Discard()), cache.SetNamespaces([]string{request.Namespace}),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			id := object.GetAnnotations()[trackingID]
			return id, id != ""
		}))
	if err := live.EnsureSynced(); err != nil {
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	defer live.Invalidate()
	operation := operation{config, live, request.Namespace, request.Application, objects}
	options := []sync.SyncOpt{
		sync.WithHealthOverride(&gated{HealthOverride: overrides, gate: request.Gate}), sync.WithPrune(request.Prune),
		sync.WithLogr(logr.Discard()), sync.WithServerSideApply(request.ServerSideApply), sync.WithServerSideApplyManager(argoManager),
	}
	results, err := operation.run(time.Duration(request.Seconds)*time.Second, options)
	type result struct {
		Kind, Name, Status, Message, Hook, Phase string
	}
	answer := struct {
		Results []result `json:"results"`
		Error   string   `json:"error,omitempty"`
	}{Results: []result{}}
	if err != nil {
		answer.Error = err.Error()
	}
	for _, each := range results {
		answer.Results = append(answer.Results, result{
			each.ResourceKey.Kind, each.ResourceKey.Name, string(each.Status), each.Message, string(each.HookType), string(each.HookPhase),
		})
	}
	return answer, nil
}

{{/* What an administrator should know about these values, as a YAML list of sentences. */}}
{{- define "sentinel.warnings" -}}
{{- $warnings := list -}}
{{- $persistence := .Values.storage.embedded.persistence -}}
{{- if .Values.operator.enabled -}}
{{- if .Values.trial.enabled -}}
{{- $warnings = append $warnings "trial.enabled: these stores are for trials. History is lost when the pod of MongoDB is." -}}
{{- else if and (eq .Values.storage.kind "embedded") (not $persistence.enabled) -}}
{{- $warnings = append $warnings "storage.embedded.persistence.enabled is false: History is lost with the operator's pod." -}}
{{- else if eq .Values.storage.kind "embedded" -}}
{{- $warnings = append $warnings "storage.kind: embedded runs one replica. While it restarts, commands continue, but no Task starts; for production use mongodb." -}}
{{- end -}}
{{- $deployed := lookup "apps/v1" "Deployment" (include "sentinel.namespace" .) (printf "%s-operator" (include "sentinel.fullname" .)) | default dict -}}
{{- range dig "spec" "template" "spec" "containers" list $deployed -}}
{{- range .args -}}
{{- if and (hasPrefix "--storage=" .) (ne . (printf "--storage=%s" $.Values.storage.kind)) -}}
{{- $warnings = append $warnings (printf "storage.kind was %s and is %s now: the earlier History stays where it is, and is not shown." (trimPrefix "--storage=" .) $.Values.storage.kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.storage.kind "mongodb") (eq (include "sentinel.replicas" . | int) 1) -}}
{{- $warnings = append $warnings "operator.replicas: 1 has no follower that could take over; use 2 or 3." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.tlsSecret) -}}
{{- $warnings = append $warnings "ingress.tlsSecret is empty: bearer tokens of people may cross the network in clear text." -}}
{{- end -}}
{{- if eq .Values.api.auth "token" -}}
{{- $warnings = append $warnings "api.auth: token gives everyone with that one token all rights; kubernetes asks for each person's." -}}
{{- end -}}
{{- if eq .Values.metrics.auth "none" -}}
{{- $warnings = append $warnings "metrics.auth: none: everyone who reaches the port reads the metrics." -}}
{{- end -}}
{{- if and (eq .Values.tls.mode "certManager") (not (.Capabilities.APIVersions.Has "cert-manager.io/v1/Certificate")) -}}
{{- $warnings = append $warnings "tls.mode: certManager: this cluster has no Certificate (cert-manager.io/v1); install cert-manager, or the pods wait for their Secret." -}}
{{- end -}}
{{- if not .Values.rbac.create -}}
{{- $warnings = append $warnings "rbac.create is false: without the rights of rbac-expected.yaml the operator does not become ready." -}}
{{- end -}}
{{- range list "serviceMonitor" "prometheusRule" -}}
{{- $settings := get $.Values.monitoring . -}}
{{- $kind := eq . "serviceMonitor" | ternary "ServiceMonitor" "PrometheusRule" -}}
{{- if and $settings.enabled (eq $settings.renderMode "skipIfMissing") (not ($.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind))) -}}
{{- $warnings = append $warnings (printf "monitoring.%s was skipped: this cluster has no %s. Install the Prometheus operator, then upgrade this release." . $kind) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled (eq .Values.metrics.auth "kubernetes") (not .Values.monitoring.metricsReaders) (not .Values.monitoring.serviceMonitor.tokenSecret.name) -}}
{{- $warnings = append $warnings (printf "monitoring.metricsReaders is empty: bind the ServiceAccount of Prometheus to the ClusterRole %s-metrics-reader, or its scrapes are refused." (include "sentinel.fullname" .)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ceilings.enabled (not .Values.admission.enabled) -}}
{{- $warnings = append $warnings "ceilings.enabled without admission.enabled: it is unknown who asks for a Task, so no Run that needs an approval can get one." -}}
{{- else if and .Values.ceilings.enabled (eq .Values.admission.failurePolicy "Ignore") -}}
{{- $warnings = append $warnings "ceilings.enabled with admission.failurePolicy: Ignore: while the webhook is down a Task can be changed unseen, so who may not approve it is less certain; set Fail where approvals matter." -}}
{{- end -}}
{{- if or .Values.rbac.aggregate.taskRunnerToEdit .Values.rbac.aggregate.taskRunnerToAdmin -}}
{{- $warnings = append $warnings "rbac.aggregate.taskRunner*: everyone with edit or admin in any namespace can run commands on all nodes." -}}
{{- end -}}
{{- if .Values.agent.enabled -}}
{{- if eq .Values.agent.profile "host" -}}
{{- $warnings = append $warnings "agent.profile: host: who can create a Task is root on every node. See docs/security.md." -}}
{{- else if eq .Values.agent.profile "observe" -}}
{{- $warnings = append $warnings "agent.profile: observe: agents report their nodes and run nothing." -}}
{{- else -}}
{{- if eq (include "sentinel.stateKind" .) "emptyDir" -}}
{{- $warnings = append $warnings "agent.state.kind: emptyDir: what ran while an agent's pod was replaced is reported as Lost." -}}
{{- end -}}
{{- if and (not .Values.agent.image.tools) (not .Values.agent.extraVolumes) (not .Values.agent.image.digest) -}}
{{- $warnings = append $warnings "agent.image.tools is false: the agent's image has no program that a command in it could run." -}}
{{- end -}}
{{- end -}}
{{- $level := include "sentinel.podSecurityLevel" . -}}
{{- if and (ne $level "restricted") (not .Values.namespace.create) (not (include "sentinel.podSecurityEnforced" .)) -}}
{{- $warnings = append $warnings (printf "the agents need the Pod Security level %s, and the namespace has no label for it. Where the cluster enforces a stricter one by default: kubectl label --overwrite namespace %s pod-security.kubernetes.io/enforce=%s" $level (include "sentinel.namespace" .) $level) -}}
{{- end -}}
{{- end -}}
{{- toYaml $warnings -}}
{{- end -}}

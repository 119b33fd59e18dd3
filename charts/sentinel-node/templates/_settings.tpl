{{/* Values that follow from others. */}}

{{- define "sentinel.replicas" -}}
{{- if eq (toString .Values.operator.replicas) "auto" -}}
{{- eq .Values.storage.kind "embedded" | ternary 1 2 -}}
{{- else -}}
{{- .Values.operator.replicas -}}
{{- end -}}
{{- end -}}

{{/* hostPath or emptyDir */}}
{{- define "sentinel.stateKind" -}}
{{- if eq .Values.agent.profile "observe" -}}
emptyDir
{{- else -}}
{{- eq .Values.agent.state.kind "auto" | ternary "hostPath" .Values.agent.state.kind -}}
{{- end -}}
{{- end -}}

{{/* The lowest Pod Security level that admits the agents: a hostPath volume alone needs privileged. */}}
{{- define "sentinel.podSecurityLevel" -}}
{{- if not .Values.agent.enabled -}}
restricted
{{- else if or .Values.agent.hostNetwork (eq .Values.agent.profile "host") (eq (include "sentinel.stateKind" .) "hostPath") -}}
privileged
{{- else -}}
{{- eq .Values.agent.profile "observe" | ternary "restricted" "baseline" -}}
{{- end -}}
{{- end -}}

{{/* The level in the namespace's label; empty without one, or where it cannot be asked. */}}
{{- define "sentinel.podSecurityEnforced" -}}
{{- $namespace := lookup "v1" "Namespace" "" (include "sentinel.namespace" .) -}}
{{- dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" ($namespace | default dict) -}}
{{- end -}}

{{/* That level, if it is too strict for the agents; otherwise empty. */}}
{{- define "sentinel.podSecurityConflict" -}}
{{- $enforced := default "privileged" (include "sentinel.podSecurityEnforced" .) -}}
{{- $strictness := dict "privileged" 0 "baseline" 1 "restricted" 2 -}}
{{- if and (not .Values.namespace.create) (gt (get $strictness $enforced | int) (get $strictness (include "sentinel.podSecurityLevel" .) | int)) -}}
{{- $enforced -}}
{{- end -}}
{{- end -}}

{{/* Operators of other releases that serve a namespace which this one would serve, as a YAML list of {release, namespace, watched}.
Without rights to make ClusterRoles, the installer may not list the Deployments of all namespaces: only this one's are read. */}}
{{- define "sentinel.otherOperators" -}}
{{- $scope := .Values.rbac.create | ternary "" (include "sentinel.namespace" .) -}}
{{- $own := printf "%s/%s-operator" (include "sentinel.namespace" .) (include "sentinel.fullname" .) -}}
{{- $others := list -}}
{{- range dig "items" list (lookup "apps/v1" "Deployment" $scope "" | default dict) -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- $release := default (get $labels "app.kubernetes.io/instance") (get $annotations "meta.helm.sh/release-name") -}}
{{- $home := default .metadata.namespace (get $annotations "meta.helm.sh/release-namespace") -}}
{{- $ours := or (eq $own (printf "%s/%s" .metadata.namespace .metadata.name)) (and (eq $release $.Release.Name) (eq $home $.Release.Namespace)) -}}
{{- $operates := and (eq (get $labels "app.kubernetes.io/name") "sentinel-node") (eq (get $labels "app.kubernetes.io/component") "operator") -}}
{{- if and $operates (not $ours) -}}
{{- $watched := "" -}}
{{- range .spec.template.spec.containers -}}
{{- range .args -}}
{{- if hasPrefix "--watch-namespace=" . -}}
{{- $watched = trimPrefix "--watch-namespace=" . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or (not $watched) (not $.Values.watchNamespace) (eq $watched $.Values.watchNamespace) -}}
{{- $others = append $others (dict "release" $release "namespace" $home "watched" $watched) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $others -}}
{{- end -}}

{{/* The Secret with the server's certificate. */}}
{{- define "sentinel.tlsSecret" -}}
{{- eq .Values.tls.mode "existingSecret" | ternary .Values.tls.existingSecret (printf "%s-tls" (include "sentinel.fullname" .)) -}}
{{- end -}}

{{/* The names in the certificate, as a YAML list. */}}
{{- define "sentinel.tlsNames" -}}
{{- range list "gateway" "api" "aggregated" "metrics" "admission" }}
{{- $host := include "sentinel.host" (dict "root" $ "service" .) }}
- {{ $host }}
- {{ $host }}.{{ $.Values.clusterDomain }}
{{- end }}
- localhost
{{- range .Values.tls.extraNames }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "sentinel.gatewayUrl" -}}
{{- default (printf "wss://%s:7979" (include "sentinel.host" (dict "root" . "service" "gateway"))) .Values.agent.operatorUrl -}}
{{- end -}}

{{/* The Secret with a store's URL, or nothing: (dict "root" $ "store" "mongodb") */}}
{{- define "sentinel.storeSecret" -}}
{{- $settings := get .root.Values.storage .store -}}
{{- if $settings.existingSecret.name -}}
{{- $settings.existingSecret.name -}}
{{- else if or $settings.url .root.Values.trial.enabled -}}
{{- printf "%s-%s" (include "sentinel.fullname" .root) .store -}}
{{- end -}}
{{- end -}}

{{- define "sentinel.publicUrls" -}}
{{- if .Values.ingress.enabled }}
- {{ .Values.ingress.tlsSecret | empty | ternary "http" "https" }}://{{ .Values.ingress.host }}
{{- end }}
{{- range .Values.api.publicUrls }}
- {{ . }}
{{- end }}
{{- end -}}

{{/* Labels, or with restricted rights a Role: rights on Tasks are in one namespace with watchNamespace. */}}
{{- define "sentinel.taskRoleKind" -}}
{{- .Values.watchNamespace | empty | ternary "ClusterRole" "Role" -}}
{{- end -}}

{{- define "sentinel.persistentClaim" -}}
{{- default (printf "%s-history" (include "sentinel.fullname" .)) .Values.storage.embedded.persistence.existingClaim -}}
{{- end -}}

{{/* The ConfigMap with the ceilings; empty where there are none. */}}
{{- define "sentinel.ceilingsMap" -}}
{{- if and .Values.operator.enabled .Values.ceilings.enabled -}}
{{- default (printf "%s-ceilings" (include "sentinel.fullname" .)) .Values.ceilings.configMap -}}
{{- end -}}
{{- end }}

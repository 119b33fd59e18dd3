{{/* Names, labels and images. */}}

{{/* The prefix of all names. The longest suffix has 14 characters, and a Service's name at most 63. */}}
{{- define "sentinel.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- $full | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{- define "sentinel.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "sentinel.version" -}}
{{- .Chart.AppVersion -}}
{{- end -}}

{{/* (dict "root" $ "component" "operator") */}}
{{- define "sentinel.selectorLabels" -}}
app.kubernetes.io/name: sentinel-node
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of pods. Not the chart's version: a new chart with the same images restarts nothing. */}}
{{- define "sentinel.podLabels" -}}
{{ include "sentinel.selectorLabels" . }}
app.kubernetes.io/part-of: sentinel-node
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sentinel.labels" -}}
{{ include "sentinel.podLabels" . }}
app.kubernetes.io/version: {{ include "sentinel.version" .root | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* Labels, and annotations if there are any: (dict "root" $ "component" "operator" "labels" map "annotations" map) */}}
{{- define "sentinel.metadata" -}}
labels:
  {{- mergeOverwrite (include "sentinel.labels" . | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) (.root.Values.commonAnnotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "image" .Values.operator.image "suffix" "") */}}
{{- define "sentinel.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- $repository := $registry | empty | ternary .image.repository (printf "%s/%s" $registry .image.repository) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default (printf "%s%s" (include "sentinel.version" .root) (default "" .suffix)) .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "sentinel.agentImage" -}}
{{- $suffix := and .Values.agent.image.tools (ne .Values.agent.profile "observe") | ternary "-tools" "" -}}
{{- include "sentinel.image" (dict "root" . "image" .Values.agent.image "suffix" $suffix) -}}
{{- end -}}

{{- define "sentinel.imagePullSecrets" -}}
{{- with concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets -}}
imagePullSecrets:
{{- range . }}
- name: {{ kindIs "map" . | ternary . (dict "name" .) | dig "name" "" }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "sentinel.operatorAccount" -}}
{{- default (printf "%s-operator" (include "sentinel.fullname" .)) .Values.operator.serviceAccount.name -}}
{{- end -}}

{{- define "sentinel.agentAccount" -}}
{{- default (printf "%s-agent" (include "sentinel.fullname" .)) .Values.agent.serviceAccount.name -}}
{{- end -}}

{{/* The DNS name of a Service: (dict "root" $ "service" "gateway") */}}
{{- define "sentinel.host" -}}
{{- printf "%s-%s.%s.svc" (include "sentinel.fullname" .root) .service (include "sentinel.namespace" .root) -}}
{{- end -}}

{{/* "true" if an optional kind is to be rendered: (dict "root" $ "settings" .Values.… "api" "monitoring.coreos.com/v1" "kind" "ServiceMonitor" "key" "monitoring.serviceMonitor") */}}
{{- define "sentinel.renders" -}}
{{- if .settings.enabled -}}
{{- $present := .root.Capabilities.APIVersions.Has (printf "%s/%s" .api .kind) -}}
{{- if or $present (eq .settings.renderMode "alwaysRender") -}}
true
{{- else if eq .settings.renderMode "failIfMissing" -}}
{{- fail (printf "%s.enabled: this cluster has no %s (%s); install its custom resource definitions first, or set %s.renderMode to skipIfMissing" .key .kind .api .key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the pods of operator and agents have in common. (dict "root" $ "settings" .Values.operator) */}}
{{- define "sentinel.placement" -}}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of pods: (dict "root" $ "component" "agent" "settings" .Values.agent) */}}
{{- define "sentinel.podMetadata" -}}
labels:
  {{- include "sentinel.podLabels" . | nindent 2 }}
{{- with mergeOverwrite (dict) (.root.Values.commonAnnotations | default dict) .settings.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The user's variables: (dict "settings" .Values.agent) */}}
{{- define "sentinel.extraEnvFrom" -}}
{{- with .settings.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* The operator's arguments, as a YAML list. */}}
{{- define "sentinel.operatorArgs" -}}
{{ include "sentinel.operatorOwnArgs" . }}
{{- range .Values.operator.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Those that the chart sets. */}}
{{- define "sentinel.operatorOwnArgs" -}}
{{- $full := include "sentinel.fullname" . -}}
{{- $namespace := include "sentinel.namespace" . -}}
{{- $any := eq .Values.ipFamily "IPv6" | ternary "[::]" "0.0.0.0" -}}
- --gateway-listen={{ $any }}:7979
- --api-listen={{ $any }}:7980
- --metrics-listen={{ $any }}:7981
{{- if .Values.aggregatedApi.enabled }}
- --aggregated-listen={{ $any }}:7982
{{- end }}
{{- if include "sentinel.ceilingsMap" . }}
- --ceilings-file=/etc/sentinel/ceilings/ceilings.yaml
{{- end }}
{{- if .Values.admission.enabled }}
- --admission-listen={{ $any }}:7983
- --admission-secret={{ $full }}-admission
- --admission-webhook={{ $full }}-tasks
{{- end }}
- --advertise={{ eq .Values.ipFamily "IPv6" | ternary "[$(POD_IP)]" "$(POD_IP)" }}:7979
- {{ printf "--agent-service-account=%s" (default (printf "%s/%s" $namespace (include "sentinel.agentAccount" .)) .Values.operator.agentServiceAccount) | quote }}
- {{ printf "--token-audience=%s" .Values.gateway.tokenAudience | quote }}
- --lease-name={{ $full }}-operator
- {{ printf "--lease-namespace=%s" $namespace | quote }}
{{- with .Values.watchNamespace }}
- {{ printf "--watch-namespace=%s" . | quote }}
{{- end }}
- --drain={{ .Values.operator.drainSeconds | int }}s
- {{ printf "--log-format=%s" .Values.log.format | quote }}
- --log-filter-file=/etc/sentinel/log/operator
{{- with .Values.tracing.otlpEndpoint }}
- {{ printf "--trace-otlp-endpoint=%s" . | quote }}
{{- end }}
{{ include "sentinel.operatorApiArgs" . }}
{{ include "sentinel.operatorTlsArgs" . }}
{{ include "sentinel.operatorStoreArgs" . }}
{{- include "sentinel.operatorAuditArgs" . }}
{{- end -}}

{{/* Where audit records go. Those of the embedded store are beside its file without a flag. */}}
{{- define "sentinel.operatorAuditArgs" -}}
{{- $audit := .Values.operator.audit }}
{{- $embedded := eq .Values.storage.kind "embedded" }}
{{- $lasting := and $embedded .Values.storage.embedded.persistence.enabled }}
{{- $log := eq $audit.log "auto" | ternary ($lasting | ternary "none" "-") $audit.log }}
{{- if $audit.volume }}
- --audit-dir=/var/lib/sentinel/audit/chain
{{- end }}
{{- if and (or $embedded $audit.volume) (ne $audit.keep "1Gi") }}
- {{ printf "--audit-keep=%s" $audit.keep | quote }}
{{- end }}
{{- if ne $log "none" }}
- {{ printf "--audit-log=%s" $log | quote }}
{{- end }}
{{- end -}}

{{- define "sentinel.operatorApiArgs" -}}
- {{ printf "--api-auth=%s" .Values.api.auth | quote }}
{{- with .Values.api.audience }}
- {{ printf "--api-audience=%s" . | quote }}
{{- end }}
{{- if eq .Values.api.auth "token" }}
- {{ printf "--api-token-file=/etc/sentinel/api-token/%s" .Values.api.tokenSecret.key | quote }}
{{- end }}
{{- range include "sentinel.publicUrls" . | fromYamlArray }}
- {{ printf "--public-url=%s" . | quote }}
{{- end }}
{{- if ne .Values.api.basePath "/" }}
- {{ printf "--base-path=%s" .Values.api.basePath | quote }}
{{- end }}
{{- with .Values.api.trustedProxy }}
{{- if .caSecret }}
- {{ printf "--trusted-proxy-ca-file=/etc/sentinel/trusted-proxy/%s" .caKey | quote }}
- {{ printf "--trusted-proxy-names=%s" (join "," .names) | quote }}
- {{ printf "--trusted-proxy-user-header=%s" .userHeader | quote }}
- {{ printf "--trusted-proxy-group-header=%s" .groupHeader | quote }}
{{- with .groupSeparator }}
- {{ printf "--trusted-proxy-group-separator=%s" . | quote }}
{{- end }}
{{- end }}
{{- end }}
- {{ printf "--metrics-auth=%s" .Values.metrics.auth | quote }}
{{- end -}}

{{- define "sentinel.operatorTlsArgs" -}}
{{- if eq .Values.tls.mode "generated" -}}
- {{ printf "--tls-secret=%s" (include "sentinel.tlsSecret" .) | quote }}
- {{ printf "--tls-names=%s" (include "sentinel.tlsNames" . | fromYamlArray | join ",") | quote }}
- --tls-ca-config-map={{ include "sentinel.fullname" . }}-ca
{{- with .Values.tls.generated.lifetime }}
- {{ printf "--tls-lifetime=%s" . | quote }}
{{- end }}
{{- with .Values.tls.generated.caLifetime }}
- {{ printf "--tls-ca-lifetime=%s" . | quote }}
{{- end }}
{{- if .Values.aggregatedApi.enabled }}
- --apiservice=v1alpha1.ops.sentinelnode.dev
{{- end }}
{{- else -}}
- --tls-cert-file=/etc/sentinel/tls/tls.crt
- --tls-key-file=/etc/sentinel/tls/tls.key
- --tls-ca-file=/etc/sentinel/tls/ca.crt
- --tls-ca-config-map={{ include "sentinel.fullname" . }}-ca
{{- end }}
{{- end -}}

{{- define "sentinel.operatorStoreArgs" -}}
- {{ printf "--storage=%s" .Values.storage.kind | quote }}
- {{ printf "--retention=%s" .Values.storage.retention | quote }}
{{- if eq .Values.storage.kind "embedded" }}
- --data-dir=/var/lib/sentinel/history
{{- else }}
{{- with .Values.storage.mongodb }}
- --mongodb-url-file=/etc/sentinel/mongodb/url
- {{ printf "--mongodb-database=%s" .database | quote }}
{{- if .tls.caSecret }}
- {{ printf "--mongodb-tls-ca-file=/etc/sentinel/mongodb-ca/%s" .tls.caKey | quote }}
{{- end }}
{{- if .tls.clientSecret }}
- {{ printf "--mongodb-tls-cert-key-file=/etc/sentinel/mongodb-client/%s" .tls.clientKey | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- if include "sentinel.storeSecret" (dict "root" . "store" "redis") }}
{{- with .Values.storage.redis }}
- --redis-url-file=/etc/sentinel/redis/url
- {{ printf "--redis-prefix=%s" .prefix | quote }}
{{- if .tls.caSecret }}
- {{ printf "--redis-tls-ca-file=/etc/sentinel/redis-ca/%s" .tls.caKey | quote }}
{{- end }}
{{- if .tls.clientSecret }}
- {{ printf "--redis-tls-cert-file=/etc/sentinel/redis-client/%s" .tls.certKey | quote }}
- {{ printf "--redis-tls-key-file=/etc/sentinel/redis-client/%s" .tls.keyKey | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Secrets that the operator mounts: a YAML list of {name, secret, items}; each is at /etc/sentinel/NAME. */}}
{{- define "sentinel.operatorSecrets" -}}
{{- if ne .Values.tls.mode "generated" }}
- {name: tls, secret: {{ include "sentinel.tlsSecret" . | quote }}}
{{- end }}
{{- if eq .Values.api.auth "token" }}
- {name: api-token, secret: {{ .Values.api.tokenSecret.name | quote }}}
{{- end }}
{{- with .Values.api.trustedProxy.caSecret }}
- {name: trusted-proxy, secret: {{ . | quote }}}
{{- end }}
{{- $stores := eq .Values.storage.kind "mongodb" | ternary (list "mongodb" "redis") (list "redis") }}
{{- range $store := $stores }}
{{- $settings := get $.Values.storage $store }}
{{- with include "sentinel.storeSecret" (dict "root" $ "store" $store) }}
- {name: {{ $store }}, secret: {{ . | quote }}, key: {{ $settings.existingSecret.name | empty | ternary "url" $settings.existingSecret.key | quote }}}
{{- with $settings.tls.caSecret }}
- {name: {{ $store }}-ca, secret: {{ . | quote }}}
{{- end }}
{{- with $settings.tls.clientSecret }}
- {name: {{ $store }}-client, secret: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

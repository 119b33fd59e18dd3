{{/* Security contexts by profile; the user's settings are merged over them. */}}

{{- define "sentinel.agentPodSecurity" -}}
{{- $context := dict -}}
{{- if eq .Values.agent.profile "observe" -}}
{{- $context = dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- else -}}
{{- $context = dict "runAsUser" 0 "runAsGroup" 0 -}}
{{- if eq .Values.agent.profile "container" -}}
{{- $_ := set $context "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- end -}}
{{- toYaml (mergeOverwrite $context .Values.agent.podSecurityContext) -}}
{{- end -}}

{{- define "sentinel.agentSecurity" -}}
{{- $context := dict "readOnlyRootFilesystem" true -}}
{{- if eq .Values.agent.profile "host" -}}
{{- $_ := set $context "privileged" true -}}
{{- else -}}
{{- $_ := set $context "allowPrivilegeEscalation" false -}}
{{- $_ := set $context "capabilities" (dict "drop" (list "ALL")) -}}
{{- end -}}
{{- if eq .Values.agent.profile "container" -}}
{{- /* KILL: to end commands of other users. SETGID, SETUID: `run.group` and `run.user`. Nothing else is the agent's need. */ -}}
{{- $needed := concat (list "KILL" "SETGID" "SETUID") .Values.agent.extraCapabilities | uniq | sortAlpha -}}
{{- $_ := set $context.capabilities "add" $needed -}}
{{- if and .Values.openshift.enabled (eq (include "sentinel.stateKind" .) "hostPath") -}}
{{- /* SELinux lets no ordinary container write to a directory of the node. */ -}}
{{- $_ := set $context "seLinuxOptions" (dict "type" "spc_t") -}}
{{- end -}}
{{- end -}}
{{- toYaml (mergeOverwrite $context .Values.agent.securityContext) -}}
{{- end -}}

{{/* The volume with the CA of the gateway. With `items`, a pod waits for the key, so that no agent starts without its CA. From the
     Secret only without an operator: a node that mounts a Secret may read all of it, also the private key. */}}
{{- define "sentinel.agentCa" -}}
{{- if or .Values.agent.caConfigMap .Values.operator.enabled -}}
configMap:
  name: {{ default (printf "%s-ca" (include "sentinel.fullname" .)) .Values.agent.caConfigMap }}
  items: [{key: ca.crt, path: ca.crt}]
{{- else -}}
secret:
  secretName: {{ include "sentinel.tlsSecret" . | quote }}
  # The CA alone, and never the private key.
  items: [{key: ca.crt, path: ca.crt}]
{{- end -}}
{{- end -}}

{{/* The ConfigMap with the nodes' policy; empty where there is none. An agent that only observes runs nothing. */}}
{{- define "sentinel.policyMap" -}}
{{- if and .Values.agent.policy.enabled (ne .Values.agent.profile "observe") -}}
{{- default (printf "%s-policy" (include "sentinel.fullname" .)) .Values.agent.policy.configMap -}}
{{- end -}}
{{- end -}}

{{/* The agent's arguments, as a YAML list. */}}
{{- define "sentinel.agentArgs" -}}
{{ include "sentinel.agentOwnArgs" . }}
{{- range .Values.agent.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Those that the chart sets. */}}
{{- define "sentinel.agentOwnArgs" -}}
- {{ printf "--operator-url=%s" (include "sentinel.gatewayUrl" .) | quote }}
- --ca-file=/etc/sentinel/ca/ca.crt
- --token-file=/run/sentinel/token
- --state-dir=/var/lib/sentinel
- --node-name=$(NODE_NAME)
- {{ printf "--profile=%s" .Values.agent.profile | quote }}
{{- if .Values.agent.nestedNode }}
- --nested-node
{{- end }}
- {{ printf "--max-attempts=%d" (.Values.agent.maxAttempts | int) | quote }}
- {{ printf "--min-free=%s" .Values.agent.minFree | quote }}
- {{ printf "--log-format=%s" .Values.log.format | quote }}
- --log-filter-file=/etc/sentinel/log/agent
{{- if include "sentinel.policyMap" . }}
- --policy-file=/etc/sentinel/policy/policy.yaml
{{- end }}
{{- end -}}

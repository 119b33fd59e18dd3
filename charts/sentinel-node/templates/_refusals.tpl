{{/* Values that are well-formed and cannot work, as a YAML list of sentences: each names the value and what to do. */}}
{{- define "sentinel.refusedValues" -}}
{{- $wrong := list -}}
{{- $registry := `^(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9][a-zA-Z0-9.-]*)(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$` -}}
{{- $registries := dict "global.imageRegistry" .Values.global.imageRegistry "operator.image.registry" .Values.operator.image.registry "agent.image.registry" .Values.agent.image.registry "trial.mongodb.image.registry" .Values.trial.mongodb.image.registry "trial.valkey.image.registry" .Values.trial.valkey.image.registry -}}
{{- range $key, $value := $registries -}}
{{- if and $value (not (regexMatch $registry $value)) -}}
{{- $wrong = append $wrong (printf "%s: %s is not a registry: give HOST, HOST:PORT or HOST/PATH, without https:// and without a slash at the end" $key $value) -}}
{{- end -}}
{{- end -}}
{{- if not (or .Values.operator.enabled .Values.agent.enabled) -}}
{{- $wrong = append $wrong "operator.enabled and agent.enabled are both false: nothing would run; set one of them to true (for the definitions alone, kubectl apply -f crds/)" -}}
{{- end -}}
{{- if .Values.operator.enabled -}}
{{- $wrong = concat $wrong (include "sentinel.refusedOperatorValues" . | fromYamlArray) -}}
{{- end -}}
{{- if .Values.agent.enabled -}}
{{- $wrong = concat $wrong (include "sentinel.refusedAgentValues" . | fromYamlArray) -}}
{{- end -}}
{{- if and .Values.operator.enabled .Values.agent.enabled -}}
{{- $agents := printf "%s/%s" (include "sentinel.namespace" .) (include "sentinel.agentAccount" .) -}}
{{- if not (has .Values.operator.agentServiceAccount (list "" $agents)) -}}
{{- $wrong = append $wrong (printf "operator.agentServiceAccount: %s is not the ServiceAccount of this release's agents, %s: the operator would refuse them; remove it, or set agent.enabled: false" .Values.operator.agentServiceAccount $agents) -}}
{{- end -}}
{{- if eq (include "sentinel.operatorAccount" .) (include "sentinel.agentAccount" .) -}}
{{- $wrong = append $wrong (printf "the agents would have the operator's ServiceAccount, %s, and so its rights: give agent.serviceAccount.name another one" (include "sentinel.operatorAccount" .)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $wrong -}}
{{- end -}}

{{- define "sentinel.refusedOperatorValues" -}}
{{- $wrong := list -}}
{{- if eq (include "sentinel.replicas" .) "0" -}}
{{- $wrong = append $wrong "operator.replicas: 0 starts no operator, and no Task would run: set 1 or more" -}}
{{- end -}}
{{- if regexMatch "^(0+(ms|s|m|h|d))+$" .Values.storage.retention -}}
{{- $wrong = append $wrong (printf "storage.retention: %s keeps nothing: set how long History keeps Runs and output after their end, for example 30d" .Values.storage.retention) -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.ingress.host (not (regexMatch `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$` .Values.ingress.host)) -}}
{{- $wrong = append $wrong (printf "ingress.host: %s is not a host name: give the name alone, without scheme, port and path, for example sentinel.example.com" .Values.ingress.host) -}}
{{- end -}}
{{- if and (not .Values.ceilings.enabled) (or .Values.ceilings.ceilings .Values.ceilings.protectedNodes .Values.ceilings.configMap) -}}
{{- $wrong = append $wrong "ceilings: they limit nothing without ceilings.enabled: set ceilings.enabled: true, or remove them" -}}
{{- end -}}
{{- $repeatable := list "--public-url" "--tls-names" "--trusted-proxy-names" -}}
{{- $own := include "sentinel.operatorOwnArgs" . | fromYamlArray -}}
{{- range include "sentinel.clashes" (dict "own" $own "extra" .Values.operator.extraArgs "repeatable" $repeatable) | fromYamlArray -}}
{{- $wrong = append $wrong (printf "operator.extraArgs: the chart sets %s already, and the operator refuses it twice: remove it, and set the chart's value for it" .) -}}
{{- end -}}
{{- toYaml $wrong -}}
{{- end -}}

{{- define "sentinel.refusedAgentValues" -}}
{{- $wrong := list -}}
{{- if and .Values.agent.extraCapabilities (ne .Values.agent.profile "container") -}}
{{- $wrong = append $wrong (printf "agent.extraCapabilities has no effect with agent.profile: %s: host has all capabilities, and observe none; remove it, or set agent.profile: container" .Values.agent.profile) -}}
{{- end -}}
{{- $systems := `^/(etc|usr|bin|sbin|lib[0-9a-z]*|boot|dev|proc|sys|var/lib/(kubelet|containerd|containers|docker|etcd))(/|$)|^/((var|var/lib|var/log|var/run|var/tmp|run|tmp|root|home|opt|srv|mnt|media)?$)` -}}
{{- if and (eq (include "sentinel.stateKind" .) "hostPath") (regexMatch $systems (clean .Values.agent.state.hostPath)) -}}
{{- $wrong = append $wrong (printf "agent.state.hostPath: %s is a directory of the node's system: give the agents one of their own, for example /var/lib/sentinel" .Values.agent.state.hostPath) -}}
{{- end -}}
{{- $own := include "sentinel.agentOwnArgs" . | fromYamlArray -}}
{{- range include "sentinel.clashes" (dict "own" $own "extra" .Values.agent.extraArgs "repeatable" list) | fromYamlArray -}}
{{- $wrong = append $wrong (printf "agent.extraArgs: the chart sets %s already, and the agent refuses it twice: remove it, and set the chart's value for it" .) -}}
{{- end -}}
{{- toYaml $wrong -}}
{{- end -}}

{{/* Flags that are in both lists, as a YAML list: (dict "own" list "extra" list "repeatable" list) */}}
{{- define "sentinel.clashes" -}}
{{- $own := list -}}
{{- range .own -}}
{{- $own = append $own (splitList "=" . | first) -}}
{{- end -}}
{{- $clashes := list -}}
{{- range .extra -}}
{{- $flag := splitList "=" . | first -}}
{{- if and (hasPrefix "--" $flag) (has $flag $own) (not (has $flag $.repeatable)) -}}
{{- $clashes = append $clashes $flag -}}
{{- end -}}
{{- end -}}
{{- toYaml ($clashes | uniq) -}}
{{- end -}}

{{/* Full name of everything: at most 50 characters, so that -prices and -progress still fit into 63. */}}
{{- define "rft.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $joined := contains $chart .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $chart) -}}
{{- default $joined .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "rft.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rft.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* A Deployment's selector cannot be changed later: nothing that an upgrade changes may be in it. */}}
{{- define "rft.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rft.labels" -}}
{{- $own := fromYaml (include "rft.selector" .) -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "rft-operator" -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $own .Values.commonLabels) -}}
{{- end }}

{{/* The operator's priority class: the one it makes, or one that exists. */}}
{{- define "rft.priorityClass" -}}
{{- if .Values.priorityClass.create -}}
{{- if .Values.priorityClassName }}{{ fail "priorityClassName names a class that exists and priorityClass.create makes one: set only one of them" }}{{ end -}}
{{- .Values.priorityClass.name | default (printf "%s-%s" .Release.Namespace (include "rft.name" .)) -}}
{{- else -}}
{{- if .Values.priorityClass.name }}{{ fail "priorityClass.name names the class that priorityClass.create makes: set that to true, or name a class that exists with priorityClassName" }}{{ end -}}
{{- .Values.priorityClassName -}}
{{- end -}}
{{- end }}

{{- define "rft.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The user's variables. One that is there twice Helm 4 cannot apply, and Helm 3 lets the second one win. */}}
{{- define "rft.extraEnv" -}}
{{- $values := dict
  "RFT_TRAINER_IMAGE" "trainer.image" "RFT_IMAGE_PULL_POLICY" "trainer.pullPolicy" "RFT_WATCH_NAMESPACES" "watchNamespaces"
  "RFT_PRICES_FILE" "prices" "RFT_WORKERS" "operator.workers" "RFT_LOG_FORMAT" "operator.logFormat"
  "RFT_LOG_LEVEL" "operator.logLevel" "RFT_SWEEP_SECONDS" "operator.sweepSeconds"
  "RFT_PROGRESS_WRITE_SECONDS" "operator.progressWriteSeconds" "RFT_NODE_LOST_SECONDS" "operator.nodeLostSeconds"
  "RFT_RESTART_BACKOFF_SECONDS" "operator.restartBackoffSeconds"
  "RFT_EXPECTED_STARTUP_SECONDS" "operator.expectedStartupSeconds"
-}}
{{- $names := list -}}
{{- range .Values.extraEnv -}}
{{- if hasKey $values .name }}{{ fail (printf "extraEnv: the chart sets %s itself; use the value %s" .name (get $values .name)) }}{{ end -}}
{{- if hasPrefix "RFT_" .name }}{{ fail (printf "extraEnv: %s is the chart's to settle, with its Service, Lease and probes; leave it out" .name) }}{{ end -}}
{{- if has .name $names }}{{ fail (printf "extraEnv: %s is there twice" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- toYaml .Values.extraEnv -}}
{{- end }}

{{/* What the operator may do with runs and their children, in the namespaces it watches. */}}
{{- define "rft.rules" -}}
- apiGroups: [rft.dev]
  resources: [reasoningfinetunes]  # patch: its finalizer; delete: ttlSecondsAfterFinished
  verbs: [get, list, watch, patch, delete]
- apiGroups: [rft.dev]
  resources: [reasoningfinetunes/status]
  verbs: [patch]
- apiGroups: [rft.dev]
  resources: [reasoningfinetunes/finalizers]  # blockOwnerDeletion on children, where the cluster enforces it
  verbs: [update]
- apiGroups: [rft.dev]
  resources: [finetunebudgets]
  verbs: [list, watch]
- apiGroups: [rft.dev]
  resources: [finetunebudgets/status]  # what is reserved for runs, and what they have spent
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps, persistentvolumeclaims]  # get: does an object that a run refers to exist
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]  # deny all traffic of pods that run programs which a model wrote
  verbs: [create, patch]
- apiGroups: [""]
  resources: [pods]  # patch: the ledger's finalizer, once the bill of a pod is closed
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [secrets]  # only the metadata of Secrets that a run names is asked for
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, create, update]
{{- end }}

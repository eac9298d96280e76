{{- define "rft.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "rft.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rft.labels" -}}
{{ include "rft.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "rft.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What the operator may do with runs and their children, in the namespaces it watches. */}}
{{- define "rft.rules" -}}
- apiGroups: [rft.dev]
  resources: [reasoningfinetunes]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [rft.dev]
  resources: [reasoningfinetunes/status]
  verbs: [patch]
- apiGroups: [rft.dev]
  resources: [reasoningfinetunes/finalizers]   # blockOwnerDeletion on children
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]            # patch: our own finalizer, once the bill of a pod is closed
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [secrets]         # only the metadata of Secrets that a run names is asked for
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, create, update]
{{- end }}
